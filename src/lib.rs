//! Tickgate.

pub mod base;
pub mod flow;
pub mod gateway;
