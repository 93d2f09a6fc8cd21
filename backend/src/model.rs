//! A loaded model: weights, tokenizer and shape.

use std::path::{Path, PathBuf};

use crate::{
    gguf::{Gguf, GgufError, Tensor},
    kernel::Kernels,
    matrix::Matrix,
    shape::{CONTEXT_MAX, Shape},
    tokenizer::{Tokenizer, TokenizerError},
};

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are named in the messages")]
pub enum ModelError {
    /// The file could not be read.
    #[error("cannot read the model file {}: {source}; check the path and its permissions", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file was read, but is not a model for this engine.
    #[error("the model file {} cannot be used: {source}", path.display())]
    File {
        path: PathBuf,
        source: Box<ModelError>,
    },
    /// The container is damaged, or not one.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The tokenizer is missing, damaged or of another kind.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Another kind of model.
    #[error(
        "the architecture is '{found}'; only 'llama' is supported: use a Llama-architecture model (Llama, SmolLM, TinyLlama, Mistral, ...)"
    )]
    Architecture { found: String },
    /// A mixture of experts.
    #[error(
        "the model has {count} experts; mixtures of experts are not supported: use a dense model"
    )]
    Experts { count: usize },
    /// A way to stretch positions that is not implemented.
    #[error(
        "rope scaling '{kind}' is not supported, only 'linear' and llama3's factors: use a model without it"
    )]
    RopeScaling { kind: String },
    /// A metadata key is missing.
    #[error(
        "the metadata key '{key}' is missing; convert the model again with a current llama.cpp"
    )]
    Missing { key: &'static str },
    /// A metadata key has an impossible value.
    #[error("the metadata key '{key}' {problem}; convert the model again with a current llama.cpp")]
    Value {
        key: &'static str,
        problem: &'static str,
    },
    /// A tensor is missing.
    #[error("the tensor '{tensor}' is missing; convert the model again with a current llama.cpp")]
    MissingTensor { tensor: String },
    /// A tensor that a llama model has no use for changes what the model computes.
    #[error("the tensor '{tensor}' is not supported: use a model without biases")]
    ExtraTensor { tensor: String },
    /// A tensor's shape contradicts the metadata.
    #[error(
        "the tensor '{tensor}' has shape {found:?} where the metadata says {expected:?}; convert the model again"
    )]
    Shape {
        tensor: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
}

impl ModelError {
    pub(crate) fn missing(key: &'static str) -> ModelError {
        ModelError::Missing { key }
    }

    pub(crate) fn value(key: &'static str, problem: &'static str) -> ModelError {
        ModelError::Value { key, problem }
    }

    pub(crate) fn shape(tensor: &str, expected: &[usize], found: &[usize]) -> ModelError {
        ModelError::Shape {
            tensor: tensor.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }
}

/// A model in memory; cheap to share by `Arc`.
///
/// Matrices are kept as Q8_0, whatever the file has: other formats are decoded and quantised when it is loaded, which
/// costs them the little that 8 bits lose. Norms are f32.
pub struct Model {
    name: String,
    tokenizer: Tokenizer,
    parameters: u64,
    pub(crate) shape: Shape,
    pub(crate) kernels: Kernels,
    /// A row a token. Also the output matrix, if the file has none.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    output: Option<Matrix>,
}

/// The weights of one layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    /// Queries, keys and values stacked.
    pub(crate) attention_input: Matrix,
    pub(crate) attention_output: Matrix,
    pub(crate) feed_norm: Vec<f32>,
    /// Gate and up stacked.
    pub(crate) feed_input: Matrix,
    pub(crate) feed_output: Matrix,
}

impl Model {
    /// The model that is built into the program.
    pub fn embedded() -> Result<Model, ModelError> {
        Model::from_bytes(include_bytes!("../model/tokenlag-tiny.gguf"))
    }

    /// Reads a GGUF file; every error names it.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut model = Model::from_bytes(&bytes).map_err(|source| ModelError::File {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if model.name.is_empty() {
            model.name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
        }
        Ok(model)
    }

    /// Reads a GGUF file's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, ModelError> {
        let file = Gguf::parse(bytes)?;
        let tokenizer = Tokenizer::read(&file)?;
        let vocabulary = tokenizer.vocabulary();
        let shape = Shape::read(&file, vocabulary)?;
        let mut reader = Weights {
            file: &file,
            parameters: 0,
        };
        let embedding = reader.matrix(&["token_embd.weight"], shape.width, &[vocabulary])?;
        let layers = (0..shape.layers)
            .map(|layer| reader.layer(layer, &shape))
            .collect::<Result<_, _>>()?;
        let output_norm = reader.vector("output_norm.weight", shape.width)?;
        let output = match file.tensor("output.weight")? {
            Some(_) => Some(reader.matrix(&["output.weight"], shape.width, &[vocabulary])?),
            None => None,
        };
        let parameters = reader.parameters;
        Ok(Model {
            name: file.text("general.name").unwrap_or("").to_owned(),
            tokenizer,
            parameters,
            shape,
            kernels: Kernels::detect(),
            embedding,
            layers,
            output_norm,
            output,
        })
    }

    /// Lets each token attend to `window` tokens (clamped to 2..=[`CONTEXT_MAX`]) instead of the trained context.
    #[must_use]
    pub fn with_window(mut self, window: usize) -> Model {
        self.shape.window = window.clamp(2, CONTEXT_MAX);
        self
    }

    /// `general.name` of the file, else the file's stem.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Weights in all; an output matrix that is the embedding counts once.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// How many tokens each token attends to, itself included: the trained context, unless set otherwise.
    pub fn window(&self) -> usize {
        self.shape.window
    }

    /// State to logits.
    pub(crate) fn output(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

struct Weights<'a> {
    file: &'a Gguf<'a>,
    parameters: u64,
}

impl<'a> Weights<'a> {
    fn layer(&mut self, layer: usize, shape: &Shape) -> Result<Layer, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        for part in [
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        ] {
            let tensor = format!("blk.{layer}.{part}.bias");
            if self.file.tensor(&tensor)?.is_some() {
                return Err(ModelError::ExtraTensor { tensor });
            }
        }
        let (width, query, key, hidden) = (shape.width, shape.query(), shape.key(), shape.hidden);
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm"), width)?,
            attention_input: self.matrix(
                &[&name("attn_q"), &name("attn_k"), &name("attn_v")],
                width,
                &[query, key, key],
            )?,
            attention_output: self.matrix(&[&name("attn_output")], query, &[width])?,
            feed_norm: self.vector(&name("ffn_norm"), width)?,
            feed_input: self.matrix(
                &[&name("ffn_gate"), &name("ffn_up")],
                width,
                &[hidden, hidden],
            )?,
            feed_output: self.matrix(&[&name("ffn_down")], hidden, &[width])?,
        })
    }

    /// One matrix of tensors that read the same input, one above the other.
    fn matrix(
        &mut self,
        names: &[&str],
        columns: usize,
        rows: &[usize],
    ) -> Result<Matrix, ModelError> {
        let mut tensors = Vec::with_capacity(names.len());
        for (name, &rows) in names.iter().zip(rows) {
            tensors.push(self.tensor(name, &[columns, rows])?);
        }
        Ok(Matrix::stack(&tensors))
    }

    fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, &[size])?;
        let mut values = vec![0.0; size];
        tensor.format.decode(tensor.bytes, &mut values);
        Ok(values)
    }

    fn tensor(&mut self, name: &str, expected: &[usize]) -> Result<Tensor<'a>, ModelError> {
        let tensor = find(self.file, name)?;
        let (found, rest) = tensor.shape.split_at(expected.len());
        if found != expected || rest.iter().any(|&size| size != 1) {
            return Err(ModelError::shape(name, expected, &tensor.shape));
        }
        self.parameters += expected.iter().map(|&size| size as u64).product::<u64>();
        Ok(tensor)
    }
}

fn find<'a>(file: &Gguf<'a>, name: &str) -> Result<Tensor<'a>, ModelError> {
    file.tensor(name)?.ok_or_else(|| ModelError::MissingTensor {
        tensor: name.to_owned(),
    })
}
