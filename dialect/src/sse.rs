//! Server-sent events: an incremental splitter of bytes into events, and the writer of one event.
//!
//! The rules are those of the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream"
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).

use memchr::{memchr, memchr2};

use crate::bom::Bom;

/// One event as the stream gave it. Borrows the splitter's buffers: copy what must outlive the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The `event:` field, empty where there is none.
    pub name: &'a [u8],
    /// The `data:` fields, joined by `\n`.
    pub data: &'a [u8],
    /// The event had no other field (`id:`, `retry:`, unknown ones), so `name` and `data` are all of it.
    pub plain: bool,
}

impl<'a> SseEvent<'a> {
    /// Data that came in another framing, where it has no fields around it.
    pub(crate) fn bare(data: &'a [u8]) -> Self {
        Self {
            name: b"",
            data,
            plain: true,
        }
    }
}

/// An event grew past the limit that the splitter was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event of the stream is larger than {limit} bytes; raise the limit if such events are meant, \
     else check that the upstream ends its events: server-sent ones with an empty line, NDJSON with a line break"
)]
pub struct EventTooLarge {
    /// The limit, in bytes of name, data and the line being read.
    pub limit: usize,
}

/// Splits a byte stream into server-sent events, however the bytes are cut.
///
/// Lines end in `\n`, `\r` or `\r\n`, a leading BOM and comments are skipped, blocks without a `data:` line are no
/// events. An event is handed out at the byte that ends it: nothing waits for the byte after. Bytes that follow the
/// last whole event stay buffered; a stream that ends there has lost them, as the standard says.
/// Once its buffers have grown to the largest event seen, nothing is allocated.
#[derive(Debug)]
pub struct SseSplitter {
    limit: usize,
    /// The line being read, where it began in an earlier feed.
    line: Vec<u8>,
    block: Block,
    /// The last byte was `\r`: a `\n` that follows belongs to it.
    after_cr: bool,
    bom: Bom,
    failed: bool,
}

/// The fields of the event being read.
#[derive(Debug, Default)]
struct Block {
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    has_others: bool,
}

impl SseSplitter {
    /// A splitter at the start of a stream. `limit` is the most bytes that one event may take.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            block: Block::default(),
            after_cr: false,
            bom: Bom::default(),
            failed: false,
        }
    }

    /// Goes back to the start of a stream, and keeps the buffers.
    pub fn reset(&mut self) {
        self.line.clear();
        self.block.clear();
        self.after_cr = false;
        self.bom = Bom::default();
        self.failed = false;
    }

    /// Takes the next bytes and shows each event that they complete, in order.
    ///
    /// # Errors
    ///
    /// An event is larger than the limit. The splitter has then lost its place: every later call fails too.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        on_event: &mut dyn FnMut(SseEvent<'_>),
    ) -> Result<(), EventTooLarge> {
        if self.failed {
            return Err(EventTooLarge { limit: self.limit });
        }
        let mut rest = self.bom.skip(bytes, &mut self.line);
        loop {
            if self.after_cr && !rest.is_empty() {
                self.after_cr = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                break;
            };
            // Most events are a line of data with the end right behind it: they are shown where they lie.
            if self.line.is_empty()
                && !self.block.has_data
                && rest[end..].starts_with(b"\n\n")
                && let Some(data) = rest[..end].strip_prefix(b"data:")
            {
                self.check_size(end)?;
                self.block
                    .show(data.strip_prefix(b" ").unwrap_or(data), on_event);
                rest = &rest[end + 2..];
                continue;
            }
            self.after_cr = rest[end] == b'\r';
            if self.line.is_empty() {
                self.check_size(end)?;
                self.block.take_line(&rest[..end], on_event);
            } else {
                self.check_size(self.line.len() + end)?;
                self.line.extend_from_slice(&rest[..end]);
                self.block.take_line(&self.line, on_event);
                self.line.clear();
            }
            rest = &rest[end + 1..];
        }
        self.check_size(self.line.len() + rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    fn check_size(&mut self, line: usize) -> Result<(), EventTooLarge> {
        if line + self.block.name.len() + self.block.data.len() <= self.limit {
            return Ok(());
        }
        self.failed = true;
        self.line = Vec::new();
        self.block = Block::default();
        Err(EventTooLarge { limit: self.limit })
    }
}

impl Block {
    fn clear(&mut self) {
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.has_others = false;
    }

    /// Shows the event whose one line of data this is, and which ends with it.
    fn show(&mut self, data: &[u8], on_event: &mut dyn FnMut(SseEvent<'_>)) {
        on_event(SseEvent {
            name: &self.name,
            data,
            plain: !self.has_others,
        });
        self.clear();
    }

    fn take_line(&mut self, line: &[u8], on_event: &mut dyn FnMut(SseEvent<'_>)) {
        if line.is_empty() {
            if self.has_data {
                on_event(SseEvent {
                    name: &self.name,
                    data: &self.data,
                    plain: !self.has_others,
                });
            }
            self.clear();
            return;
        }
        let (field, value) = match memchr(b':', line) {
            Some(0) => return, // a comment
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => self.has_others = true,
        }
    }
}

/// Appends one event. Line breaks in `data` begin a new `data:` line, so they all read back as `\n`; a `name` ends at
/// its first line break, since a field cannot hold one.
pub fn write_event(out: &mut Vec<u8>, name: Option<&str>, data: &[u8]) {
    if let Some(name) = name {
        let end = memchr2(b'\n', b'\r', name.as_bytes()).unwrap_or(name.len());
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(&name.as_bytes()[..end]);
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        let end = memchr2(b'\n', b'\r', rest);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { break };
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    out.push(b'\n');
}
