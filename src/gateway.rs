//! Ties the stages: the one place that knows them all.

pub mod config;
pub mod life;
pub mod sources;
pub mod ingest;
pub mod shard;
pub mod http;
pub mod rest;
pub mod stream;
pub mod page;
pub mod doors;
pub mod metrics;
pub mod admin;
pub mod run;
