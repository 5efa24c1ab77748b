//! All integration tests, in one binary: linking is most of a test's build time.

mod tidy;
mod world;
