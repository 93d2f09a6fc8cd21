//! The byte order mark that may lead a stream of text, and is no part of its first line.

/// U+FEFF in UTF-8.
const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// How far into the mark a stream is.
#[derive(Debug)]
pub(crate) struct Bom {
    /// How many of its bytes have matched; `None` once the stream's start is behind.
    matched: Option<usize>,
}

impl Default for Bom {
    fn default() -> Self {
        Self { matched: Some(0) }
    }
}

impl Bom {
    /// The bytes without the mark, which may come in pieces. Where it only looked like one, what earlier calls kept
    /// back is given to `line`, the stream's first.
    pub(crate) fn skip<'a>(&mut self, bytes: &'a [u8], line: &mut Vec<u8>) -> &'a [u8] {
        let Some(mut matched) = self.matched else {
            return bytes;
        };
        for (index, &byte) in bytes.iter().enumerate() {
            if byte != MARK[matched] {
                self.matched = None;
                line.extend_from_slice(&MARK[..matched - index]);
                return bytes;
            }
            matched += 1;
            if matched == MARK.len() {
                self.matched = None;
                return &bytes[index + 1..];
            }
        }
        self.matched = Some(matched);
        &[]
    }
}
