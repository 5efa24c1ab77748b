//! `watch` against a small server of the test's own.
//!
//! Bound: a few frames over real sockets.

use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use futures_util::SinkExt;

use super::*;

fn desk(topic: &str) -> Desk {
    let wish = Wish { topics: vec![topic.to_owned()], ..Wish::default() };
    Desk::new(View::new(wish), Screen::Lines).unwrap()
}

/// Serves each script to one connection after another; the text before a `|` is what the client must have said.
async fn serve(listener: TcpListener, scripts: Vec<Vec<&'static str>>, code: u16) {
    let last = scripts.len() - 1;
    for (number, script) in scripts.into_iter().enumerate() {
        let mut socket = tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
        for step in script {
            if let Some(expected) = step.strip_prefix('?') {
                let said = socket.next().await.unwrap().unwrap().into_text().unwrap();
                assert!(said.contains(expected), "{said} has no {expected}");
            } else {
                socket.send(Message::text(step)).await.unwrap();
            }
        }
        if number == last {
            let frame = CloseFrame { code: code.into(), reason: "forbidden:no".into() };
            socket.close(Some(frame)).await.unwrap();
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
    }
}

#[tokio::test]
async fn gaps_reconnects_and_final_codes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let first = vec![
        r#"{"type":"welcome","epoch":"e","heartbeat_ms":3000}"#,
        r#"?"topics":["VCB"]"#,
        r#"{"type":"subscribed","sub":"w1","stream":1,"seq":0,"wish":"h"}"#,
        r#"{"type":"batch","stream":1,"seq":1,"prev":null,"rev":5,"ts_us":1,"snapshot":true,"rows":[{"symbol":"VCB","full":true,"last":61500,"bid":1}]}"#,
        r#"{"type":"batch","stream":1,"seq":3,"prev":2,"rev":7,"ts_us":1,"rows":[{"symbol":"VCB","last":9}]}"#,
        r#"?"unsubscribe""#,
        r#"?"since":{"epoch":"e","rev":5,"wish":"h"}"#,
        r#"{"type":"subscribed","sub":"w2","stream":2,"seq":0,"wish":"h","recovered":"conflated"}"#,
        r#"{"type":"batch","stream":2,"seq":1,"prev":0,"rev":8,"ts_us":1,"rows":[{"symbol":"VCB","last":61600}]}"#,
        r#"{"type":"drain","reconnect_in_ms":10,"to":null}"#,
    ];
    let second = vec![r#"?"rev":8"#];
    let server = tokio::spawn(serve(listener, vec![first, second], 4501));
    let mut desk = desk("VCB");
    let end = keep_following(&mut desk, &url).await;
    let Err(End::Fatal(why)) = end else { panic!("not ended for good") };
    assert!(why.contains("4501 forbidden:no"), "{why}");
    server.await.unwrap();
    let (_, _, row) = desk.view.table.iter().next().unwrap();
    assert_eq!((row.get("last"), row.get("bid")), ("61600", "1"));
    assert_eq!((desk.view.missed, desk.view.rev), (1, Some(8)));
}

#[tokio::test]
async fn a_refusal_for_now_is_asked_again_and_one_for_good_ends_the_lines() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let script = vec![
        r#"{"type":"welcome","epoch":"e","heartbeat_ms":3000}"#,
        r#"?"id":1,"#,
        r#"{"type":"error","id":1,"code":"node_behind","message":"not yet","retry_after_ms":1}"#,
        r#"?"id":2,"#,
        r#"{"type":"error","id":2,"code":"unknown_topic","message":"no such symbol"}"#,
    ];
    let server = tokio::spawn(serve(listener, vec![script], 1000));
    let mut desk = desk("VCB");
    let Err(End::Fatal(why)) = keep_following(&mut desk, &url).await else { panic!("not ended for good") };
    assert_eq!(why, "the subscription was refused: unknown_topic: no such symbol");
    assert_eq!(desk.view.link, Link::Stale("the subscription was refused".into()));
    server.await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_refused_stays_and_is_stale() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let script = vec![
        r#"{"type":"welcome","epoch":"e","heartbeat_ms":3000}"#,
        r#"?"id":1,"#,
        r#"{"type":"error","id":1,"code":"unknown_topic","message":"no such symbol"}"#,
    ];
    let server = tokio::spawn(serve(listener, vec![script], 4501));
    let mut desk = desk("VCB");
    desk.screen = Screen::Table { drawn: 0, height: 24, width: 80 };
    assert!(matches!(keep_following(&mut desk, &url).await, Err(End::Fatal(why)) if why.contains("4501")));
    assert_eq!(desk.view.link, Link::Stale("the subscription was refused".into()));
    server.await.unwrap();
}

#[tokio::test]
async fn one_picture_is_not_live_for_ever_and_ends_the_lines() {
    for is_table in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let script = vec![
            r#"{"type":"welcome","epoch":"e","heartbeat_ms":3000}"#,
            r#"?"mode":"snapshot""#,
            r#"{"type":"subscribed","sub":"w1","stream":1,"seq":0}"#,
            r#"{"type":"batch","stream":1,"seq":1,"prev":null,"rev":5,"ts_us":1,"snapshot":true,"rows":[{"symbol":"VCB","full":true,"last":61500}]}"#,
            r#"{"type":"unsubscribed","sub":"w1","stream":1}"#,
        ];
        let server = tokio::spawn(serve(listener, vec![script], 4501));
        let mut desk = desk("VCB");
        desk.view.wish.mode = Some("snapshot".into());
        if is_table {
            desk.screen = Screen::Table { drawn: 0, height: 24, width: 80 };
        }
        let end = keep_following(&mut desk, &url).await;
        assert_eq!(is_table, end.is_err(), "a table stays until the server goes");
        assert_eq!(desk.view.link, Link::Stale("one picture was asked for".into()));
        drop(desk);
        server.await.unwrap();
    }
}

#[tokio::test]
async fn nobody_there_is_one_clear_line() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("ws://{free}/ws");
    let Err(End::Again { why, .. }) = keep_following(&mut desk("VCB"), &url).await else {
        panic!("connected")
    };
    assert_eq!(why, format!("cannot connect to {url}: connection refused; is `tickgate serve` running?"));
}
