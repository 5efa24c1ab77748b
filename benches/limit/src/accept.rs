//! The accepting side of the limit program: the smallest correct WebSocket handshake, one client after another.
//!
//! Bound: one request head of at most `HEAD_BYTES_MAX`, read within `HEAD_TIMEOUT`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tungstenite::handshake::derive_accept_key;

/// Bytes of a request head; a load client's is about 200.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long one client may take with its request head, since nobody else is served meanwhile.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that the kernel may hold for us: the somaxconn default, above any client's handshakes in flight.
const BACKLOG: i32 = 4096;

/// Waits for `count` clients and returns their sockets, non-blocking and without Nagle's delay.
pub(crate) fn clients(listen: SocketAddr, count: usize) -> Result<Vec<TcpStream>, String> {
    let listener = listener(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    eprintln!("tickgate-limit: waiting for {count} clients on ws://{listen}");
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let (socket, peer) = listener.accept().map_err(|error| format!("accept: {error}"))?;
        match handshake(socket) {
            Ok(socket) => clients.push(socket),
            Err(error) => eprintln!("tickgate-limit: {peer}: {error}"),
        }
    }
    eprintln!("tickgate-limit: {count} clients are here");
    Ok(clients)
}

fn listener(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn handshake(mut socket: TcpStream) -> Result<TcpStream, String> {
    let text = |error: std::io::Error| error.to_string();
    socket.set_read_timeout(Some(HEAD_TIMEOUT)).map_err(text)?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = socket.read(&mut chunk).map_err(text)?;
        if count == 0 || head.len() + count > HEAD_BYTES_MAX {
            return Err("no request head".into());
        }
        head.extend_from_slice(&chunk[..count]);
    }
    let key = websocket_key(&head).ok_or("no Sec-WebSocket-Key")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key)
    );
    socket.write_all(answer.as_bytes()).map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    socket.set_nonblocking(true).map_err(text)?;
    Ok(socket)
}

fn websocket_key(head: &[u8]) -> Option<&[u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(colon);
        name.eq_ignore_ascii_case(b"sec-websocket-key").then(|| value[1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_in_any_case() {
        let head = b"GET / HTTP/1.1\r\nHost: a:1\r\nsec-websocket-KEY:  abc= \r\n\r\n";
        assert_eq!(websocket_key(head), Some(&b"abc="[..]));
        assert_eq!(websocket_key(b"GET / HTTP/1.1\r\n\r\n"), None);
    }
}
