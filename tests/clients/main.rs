//! Real clients, as their registries give them, against the command: Codex, the `openai` package, curl.
//!
//! Each proof reads what the client says of its own run, and what the proxy booked of the same exchanges.

mod client;
mod codex;
mod curl;
mod install;
mod llama;
mod openai;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod upstream;
