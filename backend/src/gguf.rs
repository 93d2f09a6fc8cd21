//! The GGUF container: metadata and tensors of a model file, borrowed from its bytes.
//!
//! The format is that of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.
//! Every count is checked against the bytes that are left before anything is allocated, so memory stays within a small
//! multiple of the file.

mod reader;

use std::collections::HashMap;

use reader::Reader;

use crate::quant::{Format, READABLE};

/// Why bytes are not a usable GGUF file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are named in the messages")]
pub enum GgufError {
    /// The bytes end too early.
    #[error(
        "the file ends at byte {length}, but {what} at byte {offset} needs {needed} more; it is cut short: copy or convert it again"
    )]
    Truncated {
        length: usize,
        offset: usize,
        needed: u64,
        what: &'static str,
    },
    /// The magic number is missing.
    #[error(
        "not a GGUF file (it begins with {found:02x?} instead of \"GGUF\"); convert the model with llama.cpp's convert_hf_to_gguf.py"
    )]
    NotGguf { found: [u8; 4] },
    /// A version this parser does not know.
    #[error(
        "GGUF version {0} cannot be read, only 2 and 3 (little-endian); convert the model again with a current llama.cpp"
    )]
    Version(u32),
    /// Something impossible is written in the file.
    #[error("at byte {offset}, {what}; the file is damaged: copy or convert it again")]
    Damaged { offset: usize, what: &'static str },
    /// A tensor in a format that cannot be read.
    #[error(
        "tensor '{tensor}' has ggml type {code}, which cannot be read; quantise the model to one of {READABLE}"
    )]
    TensorFormat { tensor: String, code: u32 },
}

/// One metadata value. Numbers of every width are f64: none that a model needs exceeds 2^53.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants say it")]
pub enum Value<'a> {
    Number(f64),
    Flag(bool),
    Text(&'a [u8]),
    Numbers(Vec<f64>),
    Texts(Vec<&'a [u8]>),
}

/// A tensor's place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Values along a row, then rows; 1 where the file has fewer dimensions.
    pub shape: [usize; 4],
    /// How the values are stored.
    pub format: Format,
    /// The rows one after another.
    pub bytes: &'a [u8],
}

/// A parsed file.
#[derive(Debug)]
pub struct Gguf<'a> {
    metadata: HashMap<&'a [u8], Value<'a>>,
    tensors: HashMap<&'a [u8], RawTensor>,
    data: &'a [u8],
    data_offset: usize,
}

#[derive(Debug)]
struct RawTensor {
    shape: [usize; 4],
    code: u32,
    offset: u64,
}

impl<'a> Gguf<'a> {
    /// Parses a whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let mut reader = Reader { bytes, at: 0 };
        let magic = reader.array::<4>("the magic number")?;
        if magic != *b"GGUF" {
            return Err(GgufError::NotGguf { found: magic });
        }
        let version = reader.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = reader.count("the tensor count", 24)?;
        let value_count = reader.count("the metadata count", 13)?;

        let mut metadata = HashMap::new();
        for _ in 0..value_count {
            let key = reader.text("a metadata key")?;
            let kind = reader.u32("a metadata type")?;
            if let Some(value) = reader.value(kind)? {
                metadata.insert(key, value);
            }
        }

        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let name = reader.text("a tensor's name")?;
            let dimensions = reader.u32("a tensor's dimension count")?;
            if dimensions > 4 {
                return Err(reader.damaged("a tensor has more than 4 dimensions"));
            }
            let mut shape = [1; 4];
            for size in shape.iter_mut().take(dimensions as usize) {
                let read = reader.u64("a tensor's shape")?;
                *size = usize::try_from(read)
                    .ok()
                    .filter(|&size| size > 0)
                    .ok_or_else(|| reader.damaged("a tensor has an impossible size"))?;
            }
            let code = reader.u32("a tensor's type")?;
            let offset = reader.u64("a tensor's offset")?;
            tensors.insert(
                name,
                RawTensor {
                    shape,
                    code,
                    offset,
                },
            );
        }

        let alignment = match metadata.get(&b"general.alignment"[..]) {
            Some(Value::Number(n)) if *n >= 1.0 && *n <= 65536.0 => *n as usize,
            Some(_) => return Err(reader.damaged("general.alignment is impossible")),
            None => 32,
        };
        let data_offset = reader.at.next_multiple_of(alignment).min(bytes.len());
        Ok(Gguf {
            metadata,
            tensors,
            data: &bytes[data_offset..],
            data_offset,
        })
    }

    /// The value of a metadata key.
    pub fn value(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key.as_bytes())
    }

    /// A number; `None` if the key is missing or not a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A text; `None` if the key is missing, not a text or not UTF-8.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// A flag; `None` if the key is missing or not a flag.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A list of numbers; `None` if the key is missing or not one.
    pub fn numbers(&self, key: &str) -> Option<&[f64]> {
        match self.value(key)? {
            Value::Numbers(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// A list of texts; `None` if the key is missing or not one.
    pub fn texts(&self, key: &str) -> Option<&[&'a [u8]]> {
        match self.value(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// The tensor of that name, if there is one; an error if its format cannot be read or its bytes are not all there.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor<'a>>, GgufError> {
        let Some(raw) = self.tensors.get(name.as_bytes()) else {
            return Ok(None);
        };
        let format = Format::from_code(raw.code).ok_or_else(|| GgufError::TensorFormat {
            tensor: name.to_owned(),
            code: raw.code,
        })?;
        let (values, size) = format.block();
        let damaged = |what| GgufError::Damaged {
            offset: self.data_offset,
            what,
        };
        if !raw.shape[0].is_multiple_of(values) {
            return Err(damaged("a tensor's rows are not whole blocks"));
        }
        let length = raw
            .shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size))
            .and_then(|count| (count / values).checked_mul(size))
            .ok_or_else(|| damaged("a tensor is larger than memory"))?;
        let start = usize::try_from(raw.offset).unwrap_or(usize::MAX);
        let end = start.checked_add(length);
        let Some(bytes) = end.and_then(|end| self.data.get(start..end)) else {
            return Err(GgufError::Truncated {
                length: self.data_offset + self.data.len(),
                offset: self.data_offset.saturating_add(start),
                needed: length as u64,
                what: "a tensor's data",
            });
        };
        Ok(Some(Tensor {
            shape: raw.shape,
            format,
            bytes,
        }))
    }
}
