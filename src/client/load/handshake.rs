//! The client's half of the WebSocket handshake: the request, and whether the answer is the right one.
//!
//! Bound: an answer's head of at most `HEAD_BYTES_MAX`.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Bytes of an answer's head; ours takes about 200, a proxy adds some.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Every client of a load uses the same key: it proves only that the other side speaks WebSocket.
const KEY: &str = "dGlja2dhdGUgYmVuY2ggMQ==";

/// The request for `path`.
pub(super) fn request(authority: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Where the head of an answer ends, when it has ended.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Whether the answer accepts; the reason otherwise.
pub(super) fn check(head: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with("HTTP/1.1 ") || code != "101" {
        return Err(match code.parse::<u16>() {
            Ok(code) => format!("the server answered HTTP {code}"),
            Err(_) => "the server does not speak HTTP".into(),
        });
    }
    let expected = derive_accept_key(KEY.as_bytes());
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == expected);
    if accepted { Ok(()) } else { Err("the answer has a wrong Sec-WebSocket-Accept".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let good =
            format!("HTTP/1.1 101 S\r\nSEC-websocket-accept: {}\r\n\r\n", derive_accept_key(KEY.as_bytes()));
        assert_eq!(check(good.as_bytes()), Ok(()));
        assert!(check(b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: x\r\n\r\n").is_err());
        assert!(check(b"HTTP/1.1 503 No\r\n\r\n").is_err_and(|why| why.contains("503")));
        assert!(check(b"SSH-2.0\r\n\r\n").is_err());
        assert_eq!(head_end(b"HTTP/1.1 101\r\n\r\n\x81"), Some(16));
    }
}
