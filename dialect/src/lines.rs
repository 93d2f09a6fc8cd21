//! Newline-delimited JSON: an incremental splitter of bytes into lines.
//!
//! The rules are those of NDJSON (<https://github.com/ndjson/ndjson-spec>): each JSON text is followed by `\n`, which
//! may have a `\r` before it, and no text has one inside.

use memchr::memchr;

use crate::bom::Bom;
use crate::sse::EventTooLarge;

/// Splits a byte stream into lines, however the bytes are cut.
///
/// A line is handed out at the `\n` that ends it, without it and without a `\r` before it. Blank lines and a leading BOM
/// are skipped. Bytes that follow the last `\n` stay buffered: a stream that ends there was cut off inside a line, since
/// the format ends every line, the last one too.
/// Once its buffer has grown to the largest line that came in pieces, nothing is allocated.
#[derive(Debug)]
pub struct LineSplitter {
    limit: usize,
    /// The line being read, where it began in an earlier feed.
    line: Vec<u8>,
    bom: Bom,
    failed: bool,
}

impl LineSplitter {
    /// A splitter at the start of a stream. `limit` is the most bytes that one line may take.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            bom: Bom::default(),
            failed: false,
        }
    }

    /// Goes back to the start of a stream, and keeps the buffer.
    pub fn reset(&mut self) {
        self.line.clear();
        self.bom = Bom::default();
        self.failed = false;
    }

    /// Takes the next bytes and shows each line that they complete, in order.
    ///
    /// # Errors
    ///
    /// A line is larger than the limit. The splitter has then lost its place: every later call fails too.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        on_line: &mut dyn FnMut(&[u8]),
    ) -> Result<(), EventTooLarge> {
        if self.failed {
            return Err(EventTooLarge { limit: self.limit });
        }
        let mut rest = self.bom.skip(bytes, &mut self.line);
        while let Some(end) = memchr(b'\n', rest) {
            self.check_size(end)?;
            if self.line.is_empty() {
                show(&rest[..end], on_line);
            } else {
                self.line.extend_from_slice(&rest[..end]);
                show(&self.line, on_line);
                self.line.clear();
            }
            rest = &rest[end + 1..];
        }
        self.check_size(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    fn check_size(&mut self, more: usize) -> Result<(), EventTooLarge> {
        if self.line.len() + more <= self.limit {
            return Ok(());
        }
        self.failed = true;
        self.line = Vec::new();
        Err(EventTooLarge { limit: self.limit })
    }
}

fn show(line: &[u8], on_line: &mut dyn FnMut(&[u8])) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.trim_ascii().is_empty() {
        on_line(line);
    }
}
