//! One-off answers over HTTP: what there is, as it is now. Each is made in parts, as the client takes them.
//!
//! Bound kept here: that of each answer, in its file.

pub mod form;
pub mod snapshot;
pub mod history;
pub mod listing;
