//! A `ws://` address as a user types it, taken apart.
//!
//! Bound kept here: none of its own; an address is as long as the command line.

use std::net::{SocketAddr, ToSocketAddrs};

/// Where a WebSocket client goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port, as the `Host` header states them.
    pub authority: String,
    /// Path and query, at least `/`.
    pub path: String,
}

impl Endpoint {
    /// Reads `ws://host[:port][/path][?query]`.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        let Some(rest) = url.strip_prefix("ws://") else {
            return Err(if url.starts_with("wss://") {
                format!("{url}: wss is not spoken here; put a TLS proxy in between, or use ws://")
            } else {
                format!("{url}: expected an address like ws://127.0.0.1:8080/ws")
            });
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() {
            return Err(format!("{url}: there is no host"));
        }
        let host_end = authority.rfind(']').map_or(0, |at| at + 1);
        let port = if authority[host_end..].contains(':') { "" } else { ":80" };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Endpoint { authority: format!("{authority}{port}"), path })
    }

    /// The first address that the name has.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let mut all =
            self.authority.to_socket_addrs().map_err(|error| format!("{}: {error}", self.authority))?;
        all.next().ok_or_else(|| format!("{}: the name has no address", self.authority))
    }

    /// The path with `query` appended to whatever query it has.
    pub fn path_with(&self, query: &str) -> String {
        let joint = if query.is_empty() {
            ""
        } else if self.path.contains('?') {
            "&"
        } else {
            "?"
        };
        format!("{}{joint}{query}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parsed = |url| Endpoint::parse(url).map(|e| (e.authority, e.path));
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(parsed("ws://127.0.0.1:8080/ws"), pair("127.0.0.1:8080", "/ws"));
        assert_eq!(parsed("ws://host"), pair("host:80", "/"));
        assert_eq!(parsed("ws://host?a=1"), pair("host:80", "/?a=1"));
        assert_eq!(parsed("ws://[::1]/ws"), pair("[::1]:80", "/ws"));
        assert!(parsed("http://host/").is_err());
        assert!(parsed("wss://host/").is_err_and(|message| message.contains("wss")));
        assert!(parsed("ws:///ws").is_err());
    }

    #[test]
    fn a_query_is_appended() {
        let with = |url: &str| Endpoint::parse(url).map(|e| e.path_with("rate=5"));
        assert_eq!(with("ws://h/ws"), Ok("/ws?rate=5".into()));
        assert_eq!(with("ws://h/ws?symbols=A"), Ok("/ws?symbols=A&rate=5".into()));
    }
}
