//! The sizes of a llama model, read and checked from its metadata.

use crate::{gguf::Gguf, model::ModelError};

/// The longest history of a sequence, in tokens; also the widest attention window.
pub const CONTEXT_MAX: usize = 1 << 20;

/// Sizes and constants of a model.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    /// Values of a token's state.
    pub(crate) width: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads; divides `heads`.
    pub(crate) kv_heads: usize,
    /// Values of a head.
    pub(crate) head: usize,
    /// Values inside the feed-forward part.
    pub(crate) hidden: usize,
    pub(crate) vocabulary: usize,
    /// Tokens that a token attends to, itself included.
    pub(crate) window: usize,
    pub(crate) epsilon: f32,
    /// Radians a position for each rotated pair of a head.
    pub(crate) frequencies: Vec<f64>,
}

impl Shape {
    /// Reads the `llama.*` keys.
    pub(crate) fn read(file: &Gguf<'_>, vocabulary: usize) -> Result<Shape, ModelError> {
        let architecture = file.text("general.architecture").unwrap_or("");
        if architecture != "llama" {
            return Err(ModelError::Architecture {
                found: architecture.to_owned(),
            });
        }
        let experts = file.number("llama.expert_count").unwrap_or(0.0);
        if experts > 0.0 {
            return Err(ModelError::Experts {
                count: experts as usize,
            });
        }

        let width = size(file, "llama.embedding_length", None)?;
        let heads = size(file, "llama.attention.head_count", None)?;
        let kv_heads = size(file, "llama.attention.head_count_kv", Some(heads))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(ModelError::value(
                "llama.attention.head_count_kv",
                "does not divide head_count",
            ));
        }
        let head = size(file, "llama.attention.key_length", Some(width / heads))?;
        if size(file, "llama.attention.value_length", Some(head))? != head {
            return Err(ModelError::value(
                "llama.attention.value_length",
                "differs from key_length",
            ));
        }
        let rotated = size(file, "llama.rope.dimension_count", Some(head))?;
        if rotated > head || !rotated.is_multiple_of(2) {
            return Err(ModelError::value(
                "llama.rope.dimension_count",
                "is odd or exceeds the head",
            ));
        }

        Ok(Shape {
            layers: size(file, "llama.block_count", None)?,
            width,
            heads,
            kv_heads,
            head,
            hidden: size(file, "llama.feed_forward_length", None)?,
            vocabulary,
            window: size(file, "llama.context_length", None)?.clamp(2, CONTEXT_MAX),
            epsilon: file
                .number("llama.attention.layer_norm_rms_epsilon")
                .ok_or_else(|| ModelError::missing("llama.attention.layer_norm_rms_epsilon"))?
                as f32,
            frequencies: frequencies(file, rotated)?,
        })
    }

    /// Values of all query heads.
    pub(crate) fn query(&self) -> usize {
        self.heads * self.head
    }

    /// Values of all key heads.
    pub(crate) fn key(&self) -> usize {
        self.kv_heads * self.head
    }
}

/// A size between 1 and 2^24: more than any model has, small enough that products of three fit.
fn size(file: &Gguf<'_>, key: &'static str, default: Option<usize>) -> Result<usize, ModelError> {
    let number = match (file.value(key), default) {
        (None, Some(default)) => default as f64,
        (None, None) => return Err(ModelError::missing(key)),
        (Some(_), _) => file.number(key).ok_or_else(|| {
            ModelError::value(
                key,
                "is not one number (layers that differ are not supported)",
            )
        })?,
    };
    if number.fract() != 0.0 || !(1.0..=16_777_216.0).contains(&number) {
        return Err(ModelError::value(
            key,
            "is not a whole number between 1 and 2^24",
        ));
    }
    Ok(number as usize)
}

/// Angle steps of rotary positions, base^(-2i/n), after linear scaling and the factors of `rope_freqs.weight`.
fn frequencies(file: &Gguf<'_>, rotated: usize) -> Result<Vec<f64>, ModelError> {
    let base = file.number("llama.rope.freq_base").unwrap_or(10_000.0);
    if !(base > 0.0 && base.is_finite()) {
        return Err(ModelError::value(
            "llama.rope.freq_base",
            "is not a positive number",
        ));
    }
    let scaling = file.text("llama.rope.scaling.type");
    let stretch = match scaling {
        None | Some("linear") => file
            .number("llama.rope.scaling.factor")
            .or_else(|| file.number("llama.rope.scale_linear"))
            .filter(|factor| *factor != 0.0)
            .unwrap_or(1.0),
        Some("none") => 1.0,
        Some(kind) => {
            return Err(ModelError::RopeScaling {
                kind: kind.to_owned(),
            });
        }
    };
    let mut factors = vec![1.0; rotated / 2];
    if let Some(tensor) = file.tensor("rope_freqs.weight")? {
        if tensor.shape != [factors.len(), 1, 1, 1] {
            return Err(ModelError::shape(
                "rope_freqs.weight",
                &[factors.len()],
                &tensor.shape,
            ));
        }
        tensor.format.decode(tensor.bytes, &mut factors);
    }
    Ok(factors
        .iter()
        .enumerate()
        .map(|(i, &factor)| {
            base.powf(-2.0 * i as f64 / rotated as f64) / f64::from(factor) / stretch
        })
        .collect())
}
