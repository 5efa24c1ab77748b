//! Commands from bytes, and frames to bytes. A row is encoded once while its image stands, and a frame once per stream.
//!
//! Bound kept here: a frame's payload is at most `frame_bytes_max`; what is longer is split with `more`.

pub mod text;
pub mod websocket;
pub mod deflate;
pub mod msgpack;
pub mod ticks;
pub mod row;
pub mod rows;
pub mod digest;
pub mod batch;
pub mod encoder;
pub mod answer;
pub mod command;
