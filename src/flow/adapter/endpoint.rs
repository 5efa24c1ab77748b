//! A `ws://` address as a user types it, taken apart, and the way to whoever is there.
//!
//! Bound kept here: none of its own; an address is as long as the command line.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

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

    /// The addresses that the name has, at least one, in the order in which they are to be tried.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let all = self.authority.to_socket_addrs().map_err(|error| format!("{}: {error}", self.authority))?;
        let all: Vec<SocketAddr> = all.collect();
        if all.is_empty() { Err(format!("{}: the name has no address", self.authority)) } else { Ok(all) }
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

/// A connection to the first of these addresses that takes one; each has an even share of the time. The error says what each
/// of them answered.
pub fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, String> {
    let share = timeout / addresses.len().max(1) as u32;
    let mut errors = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) => errors.push(format!("{address}: {error}")),
        }
    }
    Err(errors.join("; "))
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
    fn a_name_is_all_its_addresses() {
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap();
        let (nobody, also_nobody) = (address(&listen()), address(&listen()));
        let listener = listen();
        let timeout = Duration::from_secs(10);
        let stream = connect(&[nobody, address(&listener)], timeout).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address(&listener));
        let error = connect(&[nobody, also_nobody], timeout).unwrap_err();
        let named = |address: SocketAddr| error.contains(&format!("{address}: Connection refused"));
        assert!(named(nobody) && named(also_nobody), "{error}");
        let endpoint = Endpoint::parse("ws://127.0.0.1:8080").unwrap();
        assert_eq!(endpoint.addresses().unwrap(), ["127.0.0.1:8080".parse().unwrap()]);
        assert!(Endpoint::parse("ws://127.0.0.1:x").unwrap().addresses().is_err());
    }

    #[test]
    fn a_query_is_appended() {
        let with = |url: &str| Endpoint::parse(url).map(|e| e.path_with("rate=5"));
        assert_eq!(with("ws://h/ws"), Ok("/ws?rate=5".into()));
        assert_eq!(with("ws://h/ws?symbols=A"), Ok("/ws?symbols=A&rate=5".into()));
    }
}
