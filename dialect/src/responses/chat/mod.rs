//! The Responses API for servers that have only chat completions: the request there, and the reply back.

mod chunk;
mod content;
mod messages;
mod reply;
mod request;
mod tools;

pub use reply::FromChat;
pub use request::to_chat;
