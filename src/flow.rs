//! The data's way, in stages that are read downward. The first and the last do I/O; those between are pure:
//! they are handed `now`, and own no socket, task, timer or clock.

pub mod adapter;
pub mod buffer;
pub mod conflation;
pub mod dispatch;
pub mod frame;
pub mod outbox;
pub mod socket;
