//! tokio-tungstenite, naively: a task for each client, all of them on one broadcast channel.

use std::io;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use peers::{Frames, Rounds};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

#[tokio::main]
async fn main() -> io::Result<()> {
    let (listener, rounds) = peers::start().await?;
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(client(socket, Arc::clone(&rounds)));
    }
}

/// A client until it leaves.
async fn client(socket: TcpStream, rounds: Arc<Rounds>) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut client = accept_async(socket).await.ok()?;
    let command = client.next().await?.ok()?;
    let mut frames = Frames::new(command.to_text().ok()?, &rounds)?;
    loop {
        tokio::select! {
            text = frames.next() => client.send(Message::Text(text?)).await.ok()?,
            message = client.next() => {
                message?.ok()?;
            }
        }
    }
}
