//! Tickgate.
