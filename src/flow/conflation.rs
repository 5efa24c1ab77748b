//! The hub: one image per symbol with a revision per field, the log of events, and cuts of what changed.
//!
//! A cut is made for whoever asks, from the revision that the asker holds: nothing is kept per asker, so nobody's
//! slowness is remembered here. The reader's side is a [`replica::Replica`], fed by cuts alone.
//!
//! Bounds kept here: `symbols_max` images, `log_events_max` events, `book_levels_max` levels of books.

pub mod images;
pub mod log;
pub mod bars;
pub mod cut;
pub mod books;
pub mod wants;
pub mod rhythm;
pub mod hub;
pub mod replica;

/// The global revision: grows by one with each accepted update, valid for all topics of one epoch.
pub type Rev = u64;
