//! The APIs as data: requests, events, encoders, incremental decoders, conversation store. Pure, no I/O.

mod bom;
pub mod chat;
pub mod completions;
pub mod conversation;
pub mod decoder;
pub mod dialect;
pub mod fields;
pub mod generation;
mod json;
pub mod lines;
pub mod message;
pub mod responses;
mod scan;
pub mod sse;
pub mod usage;

pub use conversation::{ConversationStore, Limits};
pub use decoder::{DecodeError, Decoder, Meaning, Terminal};
pub use dialect::{Dialect, Framing};
pub use fields::{Fields, NotAnObject};
pub use lines::LineSplitter;
pub use responses::BadRequest;
pub use sse::{EventTooLarge, SseEvent, SseSplitter, write_event};
