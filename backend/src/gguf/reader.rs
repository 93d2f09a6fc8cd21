//! Reads the primitive values of a GGUF file, never beyond its end.

use super::{GgufError, Value};

/// A place in a file.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
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

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things of at least `smallest` bytes each, no more than the rest of the file can hold.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        smallest: usize,
    ) -> Result<usize, GgufError> {
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

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a [u8], GgufError> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    /// A value of ggml's type `kind`; `None` for a list of lists, which no model needs.
    pub(crate) fn value(&mut self, kind: u32) -> Result<Option<Value<'a>>, GgufError> {
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

    pub(crate) fn damaged(&self, what: &'static str) -> GgufError {
        GgufError::Damaged {
            offset: self.at,
            what,
        }
    }
}
