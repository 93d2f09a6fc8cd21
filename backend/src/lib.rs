//! A real local model behind an OpenAI-compatible server.

pub mod engine;
pub mod model;
pub mod sampler;
pub mod tokenizer;

pub use engine::{Engine, EngineOptions, EngineStatus, Finish, Job, JobId, Output, Refusal};
pub use model::{Model, ModelError};
pub use sampler::Sampling;
pub use tokenizer::{TokenDecoder, Tokenizer};
