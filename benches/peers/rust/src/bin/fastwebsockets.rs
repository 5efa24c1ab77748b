//! fastwebsockets: a task for each client, all of them on one broadcast channel.
//!
//! A client is read until it has subscribed, and only written to afterwards.

use std::io;
use std::sync::Arc;

use fastwebsockets::{Frame, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::{Frames, Rounds};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> io::Result<()> {
    let (listener, rounds) = peers::start().await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(connection(socket, Arc::clone(&rounds)));
    }
}

async fn connection(socket: TcpStream, rounds: Arc<Rounds>) {
    let answer = service_fn(move |request| handshake(request, Arc::clone(&rounds)));
    // A client that fails to get in is missed by the load client.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).with_upgrades().await;
}

async fn handshake(
    mut request: Request<Incoming>,
    rounds: Arc<Rounds>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (answer, socket) = upgrade::upgrade(&mut request)?;
    tokio::spawn(client(socket, rounds));
    Ok(answer)
}

/// A client until it leaves.
async fn client(socket: upgrade::UpgradeFut, rounds: Arc<Rounds>) -> Option<()> {
    let mut client = socket.await.ok()?;
    let command = client.read_frame().await.ok()?;
    let mut frames = Frames::new(std::str::from_utf8(&command.payload).ok()?, &rounds)?;
    loop {
        let text = frames.next().await?;
        client.write_frame(Frame::text(text.as_bytes().into())).await.ok()?;
    }
}
