//! What an update of the market is, what a feed is, and the language of every venue.
//!
//! Nothing here opens a socket, reads a clock or spawns a task: a feed is a state machine that is handed bytes and
//! times, so the live adapter, a capture and a test all drive the very same decoder.
//!
//! The modules stand in the order in which they may know each other: each names only those above it.

pub mod market;
pub mod symbols;
pub mod feed;
pub mod spec;
pub mod decimal;
pub mod book;
pub mod binance;
pub mod capture;
pub mod calendar;
pub mod synthetic;
pub mod tickgate;
