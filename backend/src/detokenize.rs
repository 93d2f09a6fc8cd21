//! A stream of tokens to valid text.

use crate::tokenizer::Tokenizer;

/// Turns a stream of tokens into valid text, holding back characters that are not complete yet.
#[derive(Debug, Default)]
pub struct TokenDecoder {
    /// Bytes of a character that is not complete: three at most.
    held: Vec<u8>,
    piece: String,
}

impl TokenDecoder {
    /// The text that this token completes; may be empty. Bytes that can never be text become U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        self.push_bytes(tokenizer.token_bytes(id))
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> &str {
        self.piece.clear();
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            self.piece.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let ends = done + invalid.len() == self.held.len();
            if ends && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
            {
                break;
            }
            if !invalid.is_empty() {
                self.piece.push(char::REPLACEMENT_CHARACTER);
            }
            done += invalid.len();
        }
        self.held.drain(..done);
        &self.piece
    }

    /// What was held back at the end of the stream: U+FFFD for an incomplete character, else nothing.
    pub fn finish(&mut self) -> &str {
        self.piece.clear();
        if !self.held.is_empty() {
            self.held.clear();
            self.piece.push(char::REPLACEMENT_CHARACTER);
        }
        &self.piece
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_join_to_what_the_whole_would_be(bytes: Vec<u8>, text in "\\PC*", cut in 1usize..5) {
            for bytes in [bytes, text.into_bytes()] {
                let mut decoder = TokenDecoder::default();
                let mut joined = String::new();
                for part in bytes.chunks(cut) {
                    joined.push_str(decoder.push_bytes(part));
                    prop_assert!(decoder.held.len() < 4);
                }
                joined.push_str(decoder.finish());
                prop_assert_eq!(joined, String::from_utf8_lossy(&bytes));
            }
        }
    }
}
