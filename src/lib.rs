//! Tickgate.

pub mod base;
pub mod flow;
