//! The programs on the client's side of the wire: `tickgate bench` puts load on a gateway and measures it,
//! `tickgate watch` shows topics in a terminal or writes them as NDJSON.
//!
//! They know the protocol only as a stranger would, from `docs/protocol.md`, and share nothing with the stages that
//! serve it. Bound: each keeps its own; see the files below.

mod clock;
pub mod load;
pub mod watch;
