//! Tickgate.

pub mod base;
pub mod client;
pub mod flow;
pub mod gateway;
