//! OpenAI's Responses API: requests, the events of a stream, and the compact form of its text deltas.
//!
//! Shapes after <https://platform.openai.com/docs/api-reference/responses> and, for the WebSocket mode, the messages
//! that its public clients send and read.

pub mod chat;
pub mod completed;
pub mod delta;
pub mod error;
pub mod events;
pub mod head;
pub mod input;
mod items;
pub mod params;
pub mod request;
mod writer;

pub use chat::{FromChat, to_chat};
pub use completed::Completed;
pub use delta::TextDelta;
pub use error::{ErrorEvent, error_event};
pub use events::{CallHandle, Finish, ResponseEncoder};
pub use head::ResponseHead;
pub use params::Params;
pub use request::{BadRequest, Create, create_message, message_type, write_with_stream_id};
pub use writer::Sink;
