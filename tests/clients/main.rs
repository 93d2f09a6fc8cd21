//! Real clients, as their registries give them, against the command: Codex, the `openai` package, niquests, curl.
//!
//! Each proof reads what the client says of its own run, and what the proxy booked of the same exchanges.

mod client;
mod codex;
mod curl;
mod histograms;
mod install;
mod llama;
mod profiles;
mod python;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod upstream;
