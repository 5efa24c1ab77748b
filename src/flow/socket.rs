//! Bytes in and out of clients' sockets, and nothing else.
//!
//! Bounds kept here: what a socket may buffer in the kernel, and how long it may say nothing to its own peer.

pub mod inbound;
pub mod events;
pub mod wire;
