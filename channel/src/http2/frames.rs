//! Walks HTTP/2 frames as they pass (RFC 9113, section 4.1), without keeping them: which stream's bytes came with which
//! read, and where a stream ends. The library below decodes them; this only says when they came.

use tokenlag_probes::Stamp;

/// DATA (RFC 9113, section 6.1).
pub const DATA: u8 = 0x0;
/// HEADERS (section 6.2).
pub const HEADERS: u8 = 0x1;
/// RST_STREAM (section 6.4).
pub const RST_STREAM: u8 = 0x3;
/// GOAWAY (section 6.8).
pub const GOAWAY: u8 = 0x7;
/// CONTINUATION (section 6.10).
pub const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// Bytes of a frame's header.
const HEADER: usize = 9;

/// Bytes with which a client opens a connection (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What was found on a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A stream's HEADERS begin; their first byte came at `at`.
    Headers {
        /// The stream.
        stream: u32,
        /// When the first byte of the frame came.
        at: Stamp,
    },
    /// So many bytes of a stream's body, without padding.
    Data {
        /// The stream.
        stream: u32,
        /// How many; never 0.
        bytes: usize,
    },
    /// The last byte of the last frame of a stream (in this direction).
    End {
        /// The stream.
        stream: u32,
    },
    /// A stream was given up.
    Reset {
        /// The stream.
        stream: u32,
        /// The error code (RFC 9113, section 7).
        code: u32,
    },
    /// The connection takes no more streams.
    GoAway {
        /// The error code.
        code: u32,
    },
}

/// Walks the frames of one direction of a connection, in whatever pieces its bytes come.
#[derive(Debug, Default)]
pub struct Walker {
    /// Bytes of the preface that are still to come.
    preface: usize,
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    have: usize,
    frame: Frame,
    /// When the first byte of the frame came.
    began: Stamp,
    /// Since when a stream's HEADERS are there without their END_HEADERS, and whether the stream ends with them.
    open_head: Option<(Stamp, bool)>,
}

/// The frame whose payload is passing.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// Those of them that pad a DATA frame, at its end. Not known before the first byte of a padded one.
    padding: usize,
    /// The payload's first bytes, where they say something.
    start: [u8; 8],
    /// How many of them are there.
    seen: usize,
}

impl Walker {
    /// A walker that passes over a client's preface first.
    pub fn after_preface() -> Self {
        Self {
            preface: PREFACE.len(),
            ..Self::default()
        }
    }

    /// Walks on over `bytes`, which came (or went) at `at`.
    pub fn walk(&mut self, mut bytes: &[u8], at: Stamp, found: &mut impl FnMut(Found)) {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.have == 0
                && let Some((header, rest)) = bytes.split_first_chunk()
            {
                self.header = *header;
                (self.have, self.began) = (HEADER, at);
                bytes = rest;
                self.begin(found);
            } else if self.have < HEADER {
                if self.have == 0 {
                    self.began = at;
                }
                let count = bytes.len().min(HEADER - self.have);
                self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
                if self.have < HEADER {
                    return;
                }
                self.begin(found);
            } else {
                let count = bytes.len().min(self.frame.left);
                self.payload(&bytes[..count], found);
                bytes = &bytes[count..];
            }
            if self.frame.left == 0 {
                self.have = 0;
                self.end(found);
            }
        }
    }

    /// Since when the head of a request or a reply, or a frame's own header, has been there in part.
    pub fn half_a_head(&self) -> Option<Stamp> {
        let in_header = self.have > 0 && self.have < HEADER;
        let head = self.open_head.map(|(since, _)| since);
        head.or(in_header.then_some(self.began))
    }

    fn begin(&mut self, found: &mut impl FnMut(Found)) {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.frame = Frame {
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            left: u32::from_be_bytes([0, a, b, c]) as usize,
            ..Frame::default()
        };
        if kind == HEADERS {
            let stream = self.frame.stream;
            self.open_head = Some((self.began, flags & END_STREAM != 0));
            found(Found::Headers {
                stream,
                at: self.began,
            });
        }
    }

    /// Takes a piece of the payload that is not empty.
    fn payload(&mut self, piece: &[u8], found: &mut impl FnMut(Found)) {
        let frame = &mut self.frame;
        let before = frame.seen;
        if matches!(frame.kind, RST_STREAM | GOAWAY) {
            let wanted = piece.len().min(frame.start.len() - frame.seen);
            frame.start[frame.seen..frame.seen + wanted].copy_from_slice(&piece[..wanted]);
            frame.seen += wanted;
        } else {
            // All that matters of any other is whether it has begun.
            frame.seen = 1;
        }
        frame.left -= piece.len();
        if frame.kind != DATA {
            return;
        }
        let mut count = piece.len();
        if frame.flags & PADDED != 0 && before == 0 {
            // A padding longer than the frame is the peer's fault, which the library finds.
            frame.padding = usize::from(piece[0]).min(frame.left + count - 1);
            count -= 1;
        }
        let data = count.saturating_sub(frame.padding.saturating_sub(frame.left));
        if data > 0 {
            found(Found::Data {
                stream: frame.stream,
                bytes: data,
            });
        }
    }

    /// Says what the end of a frame means.
    fn end(&mut self, found: &mut impl FnMut(Found)) {
        let Frame {
            kind,
            flags,
            stream,
            start,
            seen,
            ..
        } = self.frame;
        let word = |at: usize| {
            let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
            u32::from_be_bytes(bytes)
        };
        let ends = match kind {
            DATA => flags & END_STREAM != 0,
            HEADERS | CONTINUATION if flags & END_HEADERS != 0 => {
                self.open_head.take().is_some_and(|(_, ends)| ends)
            }
            _ => false,
        };
        if ends {
            found(Found::End { stream });
        }
        match kind {
            RST_STREAM if seen >= 4 => found(Found::Reset {
                stream,
                code: word(0),
            }),
            GOAWAY if seen >= 8 => found(Found::GoAway { code: word(4) }),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
