//! Tickgate stands between market-data sources and the people who watch them: it takes ticks from feeds, keeps the latest
//! image of every instrument, and gives each client the symbols, fields and pace that it asked for, in numbered batch
//! frames, with proof that nothing was lost unannounced.
//!
//! # The map
//!
//! ```text
//! feeds ──▶ buffer ──▶ conflation (hub) ◀── pulls ── shard 1: dispatch ▶ frame ▶ outbox ▶ socket
//! (threads)  (bounded)  one writer       ◀── pulls ── shard N: the same; nothing shared but cuts
//! ```
//!
//! `base` is the words that all share; `flow` is the data's way, in the order of its files; `gateway` ties the stages and
//! opens the doors; `client` is the programs on the other side of the wire. The crate `tickgate-feeds` says what an
//! update and a feed are, and knows every venue's language.
//!
//! # The law: data goes down, knowledge goes up
//!
//! The `mod` lines of each file stand in the order in which data passes. A file names only files above it, its parent and
//! its own children. `tests/tidy.rs` keeps that, and these absences:
//!
//! - no stage between `flow::adapter` and `flow::socket` owns a socket, a task, a timer or a clock;
//! - no producer knows its consumer: feeds are handed a sink, shards pull cuts, sockets take from the outbox;
//! - nothing grows with a client's slowness: what it is owed is one number.

pub mod base;
pub mod flow;
pub mod gateway;
pub mod client;
