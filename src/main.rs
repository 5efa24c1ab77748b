//! Tickgate.
fn main() {}
