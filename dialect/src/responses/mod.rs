//! OpenAI's Responses API: requests, the events of a stream, and the compact form of its text deltas.
//!
//! Shapes after <https://platform.openai.com/docs/api-reference/responses> and, for the WebSocket mode, the messages
//! that its public clients send and read.

pub mod bad_request;
pub mod chat;
pub mod completed;
pub mod delta;
pub mod error;
pub mod events;
pub mod head;
pub mod input;
mod items;
pub mod lane;
pub mod params;
pub mod request;
pub mod timing;
mod writer;

pub use bad_request::BadRequest;
pub use chat::{FromChat, to_chat};
pub use completed::Completed;
pub use delta::TextDelta;
pub use error::{ErrorEvent, error_event};
pub use events::{CallHandle, Finish, ResponseEncoder};
pub use head::ResponseHead;
pub use lane::{ends_connection, ends_response, event_lane};
pub use params::Params;
pub use request::{Create, create_message, message_type, write_with_stream_id};
pub use timing::{TIMING_HEADER, Timing, timing_event};
pub use writer::Sink;
