//! Walks HTTP/2 frames as they pass (RFC 9113, section 4.1), without keeping them: which stream's bytes came with which
//! read, and where a stream ends. The library below decodes them; this only says when they came.

use tokenlag_probes::Stamp;

/// DATA (RFC 9113, section 6.1).
pub const DATA: u8 = 0x0;
/// HEADERS (section 6.2).
pub const HEADERS: u8 = 0x1;
/// RST_STREAM (section 6.4).
pub const RST_STREAM: u8 = 0x3;
/// SETTINGS (section 6.5).
pub const SETTINGS: u8 = 0x4;
/// GOAWAY (section 6.8).
pub const GOAWAY: u8 = 0x7;
/// WINDOW_UPDATE (section 6.9).
pub const WINDOW_UPDATE: u8 = 0x8;
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
    /// Since when a stream's HEADERS are there without their END_HEADERS, and whether the stream ends with them.
    open_head: Option<(Stamp, bool)>,
    /// SETTINGS passed since somebody last asked.
    settings: bool,
    /// The frame that is there in part, if any.
    half: Half,
}

/// A frame's header, read.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes of the payload.
    length: usize,
}

/// A frame of which the last piece did not bring the end.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    header: [u8; HEADER],
    /// Bytes of the header that are there; 0 between frames.
    have: usize,
    /// When the first byte of the frame came.
    began: Stamp,
    /// Once the header is whole.
    frame: Frame,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// Those of them that pad a DATA frame, at its end. Not known before the first byte of a padded one.
    padding: usize,
    /// The payload's first bytes, where they say something.
    start: [u8; 8],
    /// How many of them are there.
    seen: usize,
}

impl Frame {
    fn of(header: &[u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *header;
        Self {
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            length: u32::from_be_bytes([0, a, b, c]) as usize,
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
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
        if self.preface > 0 {
            let preface = self.preface.min(bytes.len());
            self.preface -= preface;
            bytes = &bytes[preface..];
        }
        while !bytes.is_empty() {
            bytes = match self.half.have {
                0 => self.begin(bytes, at, found),
                _ => self.go_on(bytes, found),
            };
        }
    }

    /// Since when the head of a request or a reply, or a frame's own header, has been there in part.
    pub fn half_a_head(&self) -> Option<Stamp> {
        let in_header = self.half.have > 0 && self.half.have < HEADER;
        let head = self.open_head.map(|(since, _)| since);
        head.or(in_header.then_some(self.half.began))
    }

    /// Whether SETTINGS passed since this was last asked.
    pub(crate) fn take_settings(&mut self) -> bool {
        std::mem::take(&mut self.settings)
    }

    /// Walks over a frame from its first byte on; gives what follows it.
    fn begin<'a>(&mut self, bytes: &'a [u8], at: Stamp, found: &mut impl FnMut(Found)) -> &'a [u8] {
        // Nearly all frames are whole, and nothing of them is to be remembered.
        if let Some((header, rest)) = bytes.split_first_chunk() {
            let frame = Frame::of(header);
            if let Some((payload, rest)) = rest.split_at_checked(frame.length) {
                let stream = frame.stream;
                let ends = match (frame.kind, frame.flags) {
                    (DATA, 0 | END_STREAM) => {
                        data(frame, payload.len(), found);
                        frame.has(END_STREAM)
                    }
                    // A head in one frame, as nearly all are.
                    (HEADERS, flags) if flags & END_HEADERS != 0 => {
                        self.open_head = None;
                        found(Found::Headers { stream, at });
                        frame.has(END_STREAM)
                    }
                    (WINDOW_UPDATE, _) => false,
                    _ => {
                        self.whole(frame, payload, at, found);
                        false
                    }
                };
                if ends {
                    found(Found::End { stream });
                }
                return rest;
            }
        }
        self.half = Half {
            began: at,
            ..Half::default()
        };
        self.go_on(bytes, found)
    }

    /// Walks over a frame that is there to its end.
    #[cold]
    fn whole(&mut self, frame: Frame, payload: &[u8], at: Stamp, found: &mut impl FnMut(Found)) {
        self.head_begins(frame, at, found);
        let padding = match payload.first() {
            Some(&padding) if frame.has(PADDED) => 1 + usize::from(padding),
            _ => 0,
        };
        data(frame, payload.len().saturating_sub(padding), found);
        self.ends(frame, payload, found);
    }

    /// Walks over a further piece of a frame that is not empty; gives what follows it.
    #[cold]
    fn go_on<'a>(&mut self, mut bytes: &'a [u8], found: &mut impl FnMut(Found)) -> &'a [u8] {
        let half = &mut self.half;
        if half.have < HEADER {
            let count = bytes.len().min(HEADER - half.have);
            half.header[half.have..half.have + count].copy_from_slice(&bytes[..count]);
            half.have += count;
            bytes = &bytes[count..];
            if half.have < HEADER {
                return bytes;
            }
            half.frame = Frame::of(&half.header);
            half.left = half.frame.length;
            let (frame, began) = (half.frame, half.began);
            self.head_begins(frame, began, found);
        }
        let count = bytes.len().min(self.half.left);
        if count > 0 {
            let fresh = self.half.payload(&bytes[..count]);
            data(self.half.frame, fresh, found);
        }
        if self.half.left == 0 {
            let Half {
                frame, start, seen, ..
            } = self.half;
            self.half.have = 0;
            self.ends(frame, &start[..seen], found);
        }
        &bytes[count..]
    }

    fn head_begins(&mut self, frame: Frame, at: Stamp, found: &mut impl FnMut(Found)) {
        if frame.kind == HEADERS {
            self.open_head = Some((at, frame.has(END_STREAM)));
            let stream = frame.stream;
            found(Found::Headers { stream, at });
        }
    }

    /// Says what the end of a frame means, whose payload begins with `start`.
    fn ends(&mut self, frame: Frame, start: &[u8], found: &mut impl FnMut(Found)) {
        let stream = frame.stream;
        let word = |at: usize| {
            let bytes = start.get(at..)?.first_chunk()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let ends = match frame.kind {
            DATA => frame.has(END_STREAM),
            HEADERS | CONTINUATION if frame.has(END_HEADERS) => {
                self.open_head.take().is_some_and(|(_, ends)| ends)
            }
            RST_STREAM => {
                if let Some(code) = word(0) {
                    found(Found::Reset { stream, code });
                }
                false
            }
            GOAWAY => {
                if let Some(code) = word(4) {
                    found(Found::GoAway { code });
                }
                false
            }
            SETTINGS => {
                self.settings = true;
                false
            }
            _ => false,
        };
        if ends {
            found(Found::End { stream });
        }
    }
}

impl Half {
    /// Takes a piece of the payload that is not empty; gives how much of it is a body's, if it is one.
    fn payload(&mut self, piece: &[u8]) -> usize {
        let begins = self.left == self.frame.length;
        let wanted = piece.len().min(self.start.len() - self.seen);
        self.start[self.seen..self.seen + wanted].copy_from_slice(&piece[..wanted]);
        self.seen += wanted;
        self.left -= piece.len();
        let mut count = piece.len();
        if self.frame.has(PADDED) && begins {
            // A padding longer than the frame is the peer's fault, which the library finds.
            self.padding = usize::from(piece[0]).min(self.left + count - 1);
            count -= 1;
        }
        count.saturating_sub(self.padding.saturating_sub(self.left))
    }
}

/// Tells of so many bytes, where the frame is of a body.
fn data(frame: Frame, bytes: usize, found: &mut impl FnMut(Found)) {
    if frame.kind == DATA && bytes > 0 {
        let stream = frame.stream;
        found(Found::Data { stream, bytes });
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
