//! A body as it gathers. Most come in one piece, which is passed on as it is.

use bytes::{Bytes, BytesMut};

/// Bytes that came one after the other.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    one: Bytes,
    many: BytesMut,
}

impl Pieces {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.len() == 0 {
            self.one = bytes;
        } else {
            self.many.extend_from_slice(&std::mem::take(&mut self.one));
            self.many.extend_from_slice(&bytes);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.one.len() + self.many.len()
    }

    /// All that was pushed since the last time.
    pub(crate) fn take(&mut self) -> Bytes {
        if self.many.is_empty() {
            std::mem::take(&mut self.one)
        } else {
            self.many.split().freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_not_copied_and_several_are_joined() {
        let mut pieces = Pieces::default();
        let first = Bytes::from(vec![1; 8]);
        pieces.push(Bytes::new());
        pieces.push(first.clone());
        assert_eq!(pieces.take().as_ptr(), first.as_ptr());
        assert_eq!((pieces.len(), pieces.take()), (0, Bytes::new()));
        for piece in [b"ab", b"cd", b"ef"] {
            pieces.push(Bytes::from_static(piece));
        }
        assert_eq!(pieces.len(), 6);
        assert_eq!(pieces.take(), "abcdef");
        pieces.push(first.clone());
        assert_eq!(pieces.take(), first);
    }
}
