//! All integration tests, in one binary: linking is most of a test's build time.

#![expect(
    unreachable_pub,
    reason = "in a test binary nothing can be reached, and `pub` says what a module offers"
)]

mod world;
mod stage;
mod fairness;
mod rhythm;
mod vectors;
mod tidy;
