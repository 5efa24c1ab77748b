//! The words that every stage shares. Imports nothing of ours but feeds' words.

pub mod clock;
pub mod histogram;
pub mod limits;
pub mod process;
pub mod random;
pub mod backoff;
pub mod reason;
