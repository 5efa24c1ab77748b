//! Who wants what: topic names, filters, wishes, and the streams on which clients with equal wishes are together.
//!
//! It knows clients only as numbers. Bounds kept here: topics per session, streams per session, phase groups per rate.

pub mod topic;
pub mod filter;
pub mod wish;
pub mod sieve;
pub mod streams;
