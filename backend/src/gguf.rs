//! The GGUF container: metadata and tensors of a model file, borrowed from its bytes.
//!
//! The format is that of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.
//! Every count is checked against the bytes that are left before anything is allocated, so memory stays within a small
//! multiple of the file.

use std::collections::HashMap;

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

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let left = &self.bytes[self.at..];
        let wanted = usize::try_from(length)
            .ok()
            .and_then(|length| left.get(..length));
        let taken = wanted.ok_or(GgufError::Truncated {
            length: self.bytes.len(),
            offset: self.at,
            needed: length,
            what,
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things of at least `smallest` bytes each, no more than the rest of the file can hold.
    fn count(&mut self, what: &'static str, smallest: usize) -> Result<usize, GgufError> {
        let offset = self.at;
        let count = self.u64(what)?;
        let left = (self.bytes.len() - self.at) as u64;
        match count.checked_mul(smallest as u64) {
            Some(needed) if needed <= left => Ok(count as usize),
            needed => Err(GgufError::Truncated {
                length: self.bytes.len(),
                offset,
                needed: needed.unwrap_or(u64::MAX),
                what,
            }),
        }
    }

    fn text(&mut self, what: &'static str) -> Result<&'a [u8], GgufError> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    /// A value of ggml's type `kind`; `None` for a list of lists, which no model needs.
    fn value(&mut self, kind: u32) -> Result<Option<Value<'a>>, GgufError> {
        const WHAT: &str = "a metadata value";
        Ok(Some(match kind {
            7 => Value::Flag(self.array::<1>(WHAT)?[0] != 0),
            8 => Value::Text(self.text(WHAT)?),
            9 => return self.list(0),
            _ => Value::Number(self.number(kind)?),
        }))
    }

    fn list(&mut self, depth: usize) -> Result<Option<Value<'a>>, GgufError> {
        if depth > 4 {
            return Err(self.damaged("lists are nested too deeply"));
        }
        let kind = self.u32("a list's type")?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => return Err(self.damaged("a metadata type is unknown")),
        };
        let count = self.count("a list's length", smallest)?;
        Ok(match kind {
            8 => {
                let mut texts = Vec::with_capacity(count);
                for _ in 0..count {
                    texts.push(self.text("a list's text")?);
                }
                Some(Value::Texts(texts))
            }
            9 => {
                for _ in 0..count {
                    self.list(depth + 1)?;
                }
                None
            }
            _ => {
                let mut numbers = Vec::with_capacity(count);
                for _ in 0..count {
                    numbers.push(self.number(kind)?);
                }
                Some(Value::Numbers(numbers))
            }
        })
    }

    fn number(&mut self, kind: u32) -> Result<f64, GgufError> {
        const WHAT: &str = "a metadata number";
        Ok(match kind {
            0 | 7 => f64::from(self.array::<1>(WHAT)?[0]),
            1 => f64::from(i8::from_le_bytes(self.array(WHAT)?)),
            2 => f64::from(u16::from_le_bytes(self.array(WHAT)?)),
            3 => f64::from(i16::from_le_bytes(self.array(WHAT)?)),
            4 => f64::from(self.u32(WHAT)?),
            5 => f64::from(i32::from_le_bytes(self.array(WHAT)?)),
            6 => f64::from(f32::from_le_bytes(self.array(WHAT)?)),
            10 => self.u64(WHAT)? as f64,
            11 => i64::from_le_bytes(self.array(WHAT)?) as f64,
            12 => f64::from_le_bytes(self.array(WHAT)?),
            _ => return Err(self.damaged("a metadata type is unknown")),
        })
    }

    fn damaged(&self, what: &'static str) -> GgufError {
        GgufError::Damaged {
            offset: self.at,
            what,
        }
    }
}
