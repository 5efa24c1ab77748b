//! Says back what it hears, through the gateway's own reader and writer of WebSocket frames: so that the Autobahn cases
//! judge those, and the gateway's own way to compress, and nothing else. Prints its address; ends when its standard input does.
//!
//! Bound kept here: a message is at most 16 MiB, which some cases need and no client of the gateway may send.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use tickgate::base::reason::Reason;
use tickgate::flow::frame::deflate::{self, Deflate, Inflate};
use tickgate::flow::frame::websocket::{self, COMPRESSED, Opcode};
use tickgate::flow::socket::inbound::{Inbound, Incoming, Means};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const MESSAGE_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 64 << 10;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The opcode of a binary message; the gateway itself sends none.
const BINARY: u8 = 0x02;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("ws://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                if let Err(error) = converse(stream) {
                    eprintln!("echo: {error}");
                }
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut len, window_bits) = shake_hands(&mut stream, &mut buffer)?;
    let (mut inbound, mut end) = (Inbound::default(), None);
    let (mut inflate, mut deflate) = (Inflate::default(), Deflate::default());
    let mut say = |bytes: &[u8]| match window_bits {
        Some(bits) => {
            let mut frame = websocket::frame(Opcode::Text, deflate.message(bytes, bits));
            frame[0] |= COMPRESSED;
            frame
        }
        None => websocket::frame(Opcode::Text, bytes),
    };
    loop {
        let mut out = Vec::new();
        let means = Means { message_bytes_max: MESSAGE_BYTES_MAX, compression: window_bits.is_some() };
        let mut failed = None;
        let heard = inbound.feed(&mut buffer[..len], means, &mut |incoming| {
            let incoming = match incoming.inflated(&mut inflate, MESSAGE_BYTES_MAX) {
                Ok(incoming) => incoming,
                Err(reason) => {
                    failed = Some(reason);
                    return false;
                }
            };
            match incoming {
                Incoming::Text(text) => out.extend(say(text.as_bytes())),
                Incoming::Binary(bytes) => {
                    let at = out.len();
                    out.extend(say(bytes));
                    out[at] = out[at] & 0xf0 | BINARY;
                }
                Incoming::Ping(payload) => out.extend(websocket::frame(Opcode::Pong, payload)),
                Incoming::Close(code) => end = Some(code),
                Incoming::Part | Incoming::Pong | Incoming::Compressed { .. } => {}
            }
            // What comes after a close frame counts no more.
            end.is_none()
        });
        let goodbye = match (end, failed.map_or(heard, Err)) {
            (Some(None), _) => Some(websocket::frame(Opcode::Close, &[])),
            (Some(Some(code)), _) => Some(websocket::close(code, "")),
            (None, Err(reason)) => Some(goodbye(reason)),
            (None, Ok(())) => None,
        };
        let ends = goodbye.is_some();
        out.extend(goodbye.unwrap_or_default());
        stream.write_all(&out)?;
        if ends {
            return hang_up(&mut stream, &mut buffer);
        }
        len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
    }
}

/// Answers the upgrade; returns how many bytes of the conversation came with it, at the buffer's beginning, and the window
/// to compress for.
fn shake_hands(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<u8>)> {
    let mut len = 0;
    let head_len = loop {
        match stream.read(&mut buffer[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => len += more,
        }
        if let Some(end) = buffer[..len].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_len]).into_owned();
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let key = header("sec-websocket-key").ok_or(io::ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.as_bytes());
    let agreed = header("sec-websocket-extensions").and_then(deflate::agree);
    let extension = agreed.as_ref().map(|(_, answer)| format!("Sec-WebSocket-Extensions: {answer}\r\n"));
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{}\r\n",
        extension.unwrap_or_default()
    )?;
    buffer.copy_within(head_len..len, 0);
    Ok((len - head_len, agreed.map(|(window_bits, _)| window_bits)))
}

fn goodbye(reason: Reason) -> Vec<u8> {
    reason.close_code().map(|code| websocket::close(code, reason.text())).unwrap_or_default()
}

/// Ends without a reset: else the close frame could be lost on its way.
fn hang_up(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(CLOSE_TIMEOUT))?;
    while stream.read(buffer)? > 0 {}
    Ok(())
}
