//! A real local model behind an OpenAI-compatible server.

mod api;
mod cache;
mod chat;
mod detokenize;
pub mod engine;
mod forward;
pub mod gguf;
mod half;
mod job;
mod kernel;
mod matrix;
mod merge;
pub mod model;
mod portable;
mod pretokenize;
pub mod quant;
pub mod sampler;
pub mod server;
mod shape;
pub mod tokenizer;
mod vocabulary;

pub use detokenize::TokenDecoder;
pub use engine::{Engine, EngineOptions, EngineStatus, Finish, Job, JobId, Output, Refusal};
pub use model::{Model, ModelError};
pub use sampler::Sampling;
pub use server::{ServeError, ServerOptions, serve, serve_model};
pub use shape::CONTEXT_MAX;
pub use tokenizer::{Tokenizer, TokenizerError};
