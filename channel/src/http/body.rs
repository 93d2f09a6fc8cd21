//! Bodies: from bytes of the connection to pieces of the body, whatever delimits it.

use bytes::{Buf, Bytes, BytesMut};

use super::Framing;

/// The longest chunk-size line, extensions included.
const MAX_SIZE_LINE: usize = 4 * 1024;

/// The longest trailer section.
const MAX_TRAILERS: usize = 16 * 1024;

/// Takes a body off the front of what was read.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left.
    Length(u64),
    /// All until the connection's end.
    UntilClose,
    /// A chunk-size line is next.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Trailer fields, so many bytes of them so far.
    Trailers(usize),
    /// The body is over.
    Done,
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body; call again, there may be more.
    Data(Bytes),
    /// Nothing more without another read.
    NeedsMore,
    /// The body is over.
    End,
}

/// The same, of data how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    Data(usize),
    NeedsMore,
    End,
}

/// A body that breaks the chunked coding (RFC 9112, section 7.1), or ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// No hexadecimal chunk size, or one beyond 63 bits.
    #[error("a chunk's size is not a hexadecimal number")]
    Size,
    /// A chunk is not followed by a line end.
    #[error("a chunk is longer than its size says")]
    ChunkEnd,
    /// A size line or the trailers are too long.
    #[error("a chunk's size line or the trailers are too long")]
    TooLong,
    /// The connection ended first.
    #[error("the connection ended inside the body")]
    Truncated,
}

impl BodyDecoder {
    /// A decoder for a body so framed.
    pub fn new(framing: Framing) -> Self {
        Self {
            state: match framing {
                Framing::Empty | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Size,
                Framing::UntilClose => State::UntilClose,
            },
        }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The next piece at the front of `inbox`.
    ///
    /// # Errors
    /// A body that breaks the chunked coding.
    pub fn take(&mut self, inbox: &mut BytesMut) -> Result<Piece, BodyError> {
        Ok(match self.front(inbox)? {
            Front::Data(length) => Piece::Data(inbox.split_to(length).freeze()),
            Front::NeedsMore => Piece::NeedsMore,
            Front::End => Piece::End,
        })
    }

    /// Looks what is at the front of `inbox`, and takes off what is no part of the body. Data that was found is to be taken off next.
    ///
    /// # Errors
    /// A body that breaks the chunked coding.
    pub(super) fn front(&mut self, inbox: &mut BytesMut) -> Result<Front, BodyError> {
        // What is no part of the body is taken off at once, in the end.
        let mut passed = 0;
        let found = loop {
            let rest = &inbox[passed..];
            match self.state {
                State::Done => break Front::End,
                _ if rest.is_empty() => break Front::NeedsMore,
                State::Length(left) => {
                    let data = up_to(rest, left);
                    self.state = match left - data as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                    break Front::Data(data);
                }
                State::UntilClose => break Front::Data(rest.len()),
                State::Chunk(left) => {
                    let data = up_to(rest, left);
                    self.state = match left - data as u64 {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                    break Front::Data(data);
                }
                State::ChunkEnd => {
                    if rest[0] != b'\r' || rest.get(1).is_some_and(|&b| b != b'\n') {
                        return Err(BodyError::ChunkEnd);
                    }
                    if rest.len() < 2 {
                        break Front::NeedsMore;
                    }
                    passed += 2;
                    self.state = State::Size;
                }
                State::Size => {
                    let Some((size, line)) = size_line(rest)? else {
                        break Front::NeedsMore;
                    };
                    self.state = match size {
                        0 => State::Trailers(0),
                        size => State::Chunk(size),
                    };
                    passed += line;
                }
                State::Trailers(seen) => {
                    let Some(end) = line_end(rest, MAX_TRAILERS - seen)? else {
                        break Front::NeedsMore;
                    };
                    self.state = match end {
                        0 => State::Done,
                        end => State::Trailers(seen + end + 2),
                    };
                    passed += end + 2;
                }
            }
        };
        if passed > 0 {
            inbox.advance(passed);
        }
        Ok(found)
    }

    /// Tells the decoder that the connection ended.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] where the body had not.
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }
}

/// How many bytes there are, and no more than so many.
fn up_to(inbox: &[u8], limit: u64) -> usize {
    usize::try_from(limit).map_or(inbox.len(), |limit| limit.min(inbox.len()))
}

/// Where the line at the front ends, which CRLF ends; a bare LF is refused, since peers that disagree on it can be played off.
fn line_end(inbox: &[u8], limit: usize) -> Result<Option<usize>, BodyError> {
    match inbox.iter().position(|&b| b == b'\n') {
        Some(end) if end == 0 || inbox[end - 1] != b'\r' => Err(BodyError::Size),
        Some(end) if end > limit => Err(BodyError::TooLong),
        Some(end) => Ok(Some(end - 1)),
        None if inbox.len() > limit => Err(BodyError::TooLong),
        None => Ok(None),
    }
}

/// The size that the line at the front tells, and how long it is with its end.
fn size_line(bytes: &[u8]) -> Result<Option<(u64, usize)>, BodyError> {
    if let Some(plain) = plain_size_line(bytes) {
        return Ok(Some(plain));
    }
    let Some(end) = line_end(bytes, MAX_SIZE_LINE)? else {
        return Ok(None);
    };
    Ok(Some((chunk_size(&bytes[..end])?, end + 2)))
}

/// The same of a few digits and nothing else, as nearly every chunk has it.
fn plain_size_line(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (place, &byte) in bytes.iter().take(8).enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'\r' if place > 0 => {
                let ends = bytes.get(place + 1) == Some(&b'\n');
                return ends.then_some((size, place + 2));
            }
            _ => return None,
        };
        size = size << 4 | u64::from(digit);
    }
    None
}

fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.split(|&b| b == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    if digits.is_empty() {
        return Err(BodyError::Size);
    }
    digits.iter().try_fold(0, |size: u64, &digit| {
        let digit = char::from(digit).to_digit(16).ok_or(BodyError::Size)?;
        // One more digit must leave room for the 63 bits that a size may have.
        match size >> 59 {
            0 => Ok(size << 4 | u64::from(digit)),
            _ => Err(BodyError::Size),
        }
    })
}

/// Writes `data` as one chunk of the chunked coding. Nothing for no bytes: an empty chunk would end the body.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    // As many digits as the longest size has, and the end of its line.
    let mut line = [0; 2 * size_of::<usize>() + 2];
    let (mut start, mut left) = (line.len() - 2, data.len());
    line[start..].copy_from_slice(b"\r\n");
    while left > 0 {
        start -= 1;
        line[start] = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    let line = &line[start..];
    out.reserve(line.len() + data.len() + 2);
    out.extend_from_slice(line);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces of the given sizes; gives the body, and what was left.
    fn decode(
        framing: Framing,
        bytes: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, bool, usize), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut inbox = BytesMut::new();
        let mut body = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        loop {
            match decoder.take(&mut inbox)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End => return Ok((body, true, inbox.len() + rest.len())),
                Piece::NeedsMore if rest.is_empty() => return Ok((body, false, 0)),
                Piece::NeedsMore => {
                    let count = cuts.next().map_or(1, |&cut| cut.clamp(1, rest.len()));
                    inbox.extend_from_slice(&rest[..count]);
                    rest = &rest[count..];
                }
            }
        }
    }

    #[test]
    fn chunked_bodies_that_the_rfc_forbids() {
        for (bytes, error) in [
            (&b"x\r\n"[..], BodyError::Size),
            (b"\r\n", BodyError::Size),
            (b"-1\r\n", BodyError::Size),
            (b"1\nab", BodyError::Size),
            (b"ffffffffffffffff\r\n", BodyError::Size),
            (b"1\r\nab", BodyError::ChunkEnd),
            (b"1\r\na\rb", BodyError::ChunkEnd),
        ] {
            let got = decode(Framing::Chunked, bytes, &[1]);
            assert_eq!(got, Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_are_passed_over() {
        let bytes = b"5;a=b\r\nhello\r\n0\r\nx-sum: 1\r\n\r\nnext";
        let got = decode(Framing::Chunked, bytes, &[3]).unwrap();
        assert_eq!(got, (b"hello".to_vec(), true, 4));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_body(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                push_chunk(&mut wire, chunk);
            }
            wire.extend_from_slice(LAST_CHUNK);
            let got = decode(Framing::Chunked, &wire, &cuts).unwrap();
            prop_assert_eq!(got, (chunks.concat(), true, 0));
        }

        #[test]
        fn a_plain_size_is_what_any_size_is(line in "[0-9a-fA-F;\r\n ]{0,10}(\r\n)?") {
            let line = line.as_bytes();
            let whole = line_end(line, MAX_SIZE_LINE).ok().flatten();
            let any = whole.and_then(|end| Some((chunk_size(&line[..end]).ok()?, end + 2)));
            if let Some(plain) = plain_size_line(line) {
                prop_assert_eq!(Some(plain), any);
            }
            prop_assert_eq!(size_line(line).ok().flatten(), any);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(1usize..9, 1..9)) {
            let _ = decode(Framing::Chunked, &bytes, &cuts);
            let _ = decode(Framing::Length(17), &bytes, &cuts);
        }
    }
}
