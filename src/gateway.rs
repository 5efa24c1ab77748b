//! Ties the stages: the one place that knows them all.

pub mod ingest;
pub mod shard;
