//! What a create asks of the generation, for a server that computes it itself.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::BadRequest;
use crate::generation::{Generation, from_json, token_limit};

/// The members of a create that a generating server heeds, beside those of [`Create`](super::Create).
#[derive(Clone, Debug)]
pub struct Params {
    /// The system's message. It holds for this response only, not for those that go on from it.
    pub instructions: Option<String>,
    /// Most tokens to generate.
    pub max_output_tokens: Option<usize>,
    /// Kept with the response, and given back as it came.
    pub metadata: Option<Box<RawValue>>,
    /// How to generate.
    pub generation: Generation,
}

impl Params {
    /// Reads a create's body.
    ///
    /// # Errors
    ///
    /// It is not JSON, or a parameter has the wrong type or is out of range.
    pub fn parse(json: &[u8]) -> Result<Self, BadRequest> {
        #[derive(Deserialize)]
        struct Members {
            instructions: Option<String>,
            max_output_tokens: Option<usize>,
            metadata: Option<Box<RawValue>>,
        }

        let members: Members = from_json(json)?;
        Ok(Self {
            instructions: members.instructions,
            max_output_tokens: token_limit("max_output_tokens", members.max_output_tokens)?,
            metadata: members.metadata,
            generation: Generation::parse(json)?,
        })
    }
}
