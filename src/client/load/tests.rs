//! The load against a small server of the test's own, over real sockets.
//!
//! Bound: a few clients for half a second.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, accept};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn serve(listener: &TcpListener, clients: usize, each: fn(WebSocket<std::net::TcpStream>, usize)) {
    thread::scope(|scope| {
        for number in 0..clients {
            let socket = accept(listener.accept().unwrap().0).unwrap();
            scope.spawn(move || each(socket, number));
        }
    });
}

/// Answers the subscribe command, then sends forty batches; the one with number 20 is lost on client 0.
fn forty_batches(mut socket: WebSocket<std::net::TcpStream>, number: usize) {
    let command = socket.read().unwrap().into_text().unwrap();
    let command: Value = serde_json::from_str(&command).unwrap();
    assert_eq!(command["action"], "subscribe");
    assert_eq!(command["topics"].as_array().unwrap().len(), 2);
    socket.send(Message::text(r#"{"type":"subscribed","stream":3,"seq":0,"rejected":[]}"#)).unwrap();
    socket.send(Message::Ping("are you there".into())).unwrap();
    for seq in 1..=40u64 {
        let now = wall_us();
        let prev = if seq == 1 { "null".to_owned() } else { (seq - 1).to_string() };
        let text = format!(
            "{{\"type\":\"batch\",\"stream\":3,\"seq\":{seq},\"prev\":{prev},\"rev\":9,\"ts_us\":{now},\
             \"rows\":[{{\"symbol\":\"A\",\"time_us\":{now}}},{{\"symbol\":\"B\",\"pad\":\"{}\"}}]}}",
            "x".repeat(seq as usize * 40)
        );
        if !(seq == 20 && number == 0) {
            socket.send(Message::text(text)).unwrap();
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
    let _ = socket.close(Some(tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 4001.into(),
        reason: "slow".into(),
    }));
    while socket.read().is_ok() {}
}

#[test]
fn frames_gaps_rounds_and_codes_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let server = thread::spawn(move || serve(&listener, 4, forty_batches));
    let line =
        ["bench", "--url", &url, "--clients", "4", "--symbols", "S{0..9}", "--pick", "2", "--threads", "2"];
    let more = ["--warmup", "0", "--seconds", "1.2", "--sample", "1", "--rate", "10"];
    let args = Cli::try_parse_from(line.into_iter().chain(more)).ok().unwrap().args;

    let plan = Arc::new(plan(&args).unwrap());
    let shared = Arc::new(Shared::default());
    let from_us = wall_us();
    let workers = spawn(&plan, &shared, &args).unwrap();
    shared.phase.store(MEASURE, Ordering::Relaxed);
    wait_for_all(&plan, &shared, &workers, 5.0).unwrap();
    server.join().unwrap();
    shared.phase.store(STOP, Ordering::Relaxed);
    let tally = collect(workers).unwrap();
    let run = Run {
        connected: 4,
        connect_s: 0.0,
        from_us,
        to_us: wall_us(),
        server: None,
        own_cpu_s: 0.0,
        probe: None,
    };
    let report = report::report(&args, &plan, &run, tally);
    assert_eq!(report["frames"], 159, "{report}");
    assert_eq!(report["sampled"]["rows"], 318);
    assert_eq!(report["missing"], 1);
    assert_eq!(report["subscribed"], 4);
    assert_eq!(report["server_pings"], 4);
    assert_eq!(report["closed"]["4001"], 4);
    assert_eq!(report["unreadable"], 0);
    assert_eq!(report["rounds"]["clients_max"], 4);
    assert_eq!(report["rounds"]["clients_min"], 3);
    assert!(report::table(&report).contains("frame to client"));
}

/// Sends a batch every 20 ms and answers commands in between, until the client is gone.
fn until_gone(mut socket: WebSocket<std::net::TcpStream>) {
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut subscribed, mut seq) = (false, 0u64);
    let mut next = instant();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                let command: Value = serde_json::from_str(&text).unwrap();
                subscribed |= command["action"] == "subscribe";
                if command["action"] == "ping" {
                    let answer = format!("{{\"type\":\"pong\",\"id\":{}}}", command["id"]);
                    if socket.send(Message::text(answer)).is_err() {
                        return;
                    }
                }
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
            Ok(_) => {}
        }
        if subscribed && instant() >= next {
            next += Duration::from_millis(20);
            seq += 1;
            let (prev, now) = (seq - 1, wall_us());
            let text = format!(
                "{{\"type\":\"batch\",\"stream\":1,\"seq\":{seq},\"prev\":{prev},\"ts_us\":{now},\"rows\":[]}}"
            );
            if socket.send(Message::text(text)).is_err() {
                return;
            }
        }
    }
}

#[test]
fn clients_come_and_go_some_stall_and_one_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    // The server lives as long as the test's process; its threads end with their clients.
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Ok(socket) = accept(socket) {
                    until_gone(socket);
                }
            });
        }
    });
    let line =
        ["bench", "--url", &url, "--clients", "10", "--topic", "A", "--stalled", "0.2", "--churn", "20"];
    let own = std::process::id().to_string();
    let more = ["--warmup", "0.1", "--seconds", "1", "--ping-probe", "--sample", "1", "--pid", &own];
    let args = Cli::try_parse_from(line.into_iter().chain(more)).ok().unwrap().args;
    let report = measure(&args).unwrap();
    let figure = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(-1.0);
    assert_eq!(figure("/connected"), 10.0, "{report}");
    assert!(figure("/reconnects") >= 10.0, "{report}");
    assert!(figure("/handshake_us/count") >= 20.0, "{report}");
    assert!((200.0..500.0).contains(&figure("/frames")), "eight read, fifty times a second: {report}");
    assert_eq!(figure("/missing"), 0.0, "{report}");
    assert!(figure("/probe/ping_us/count") >= 40.0, "{report}");
    assert!(figure("/probe/command_us/count") >= 6.0, "{report}");
    assert!(figure("/server/rss_after_bytes") > 0.0, "{report}");
    assert_eq!(report["closed"], serde_json::json!({}));
}

#[test]
fn nobody_there_is_one_clear_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{free}/ws");
    let args = Cli::try_parse_from(["bench", "--url", &url, "--clients", "3", "--seconds", "0.1"])
        .ok()
        .unwrap()
        .args;
    let message = run(&args).unwrap_err();
    assert!(message.contains("refused") && !message.contains('\n'), "{message}");
}
