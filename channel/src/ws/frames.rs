//! Where the messages begin in what is read of a WebSocket: the library below tells only where they end.

use std::collections::VecDeque;

use tokenlag_probes::Stamp;

/// From which length of a frame on the library's buffer is worth being made small again after its message.
pub(super) const LARGE: u64 = 256 * 1024;

/// Follows the frames of one direction (RFC 6455, section 5.2). What is not as it has to be, the library finds out.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The reads with the first byte of each text or binary message that was not taken yet.
    begun: VecDeque<Stamp>,
    /// The read with the first byte of the message that is not whole.
    message: Option<Stamp>,
    /// That message ends with this frame.
    last: bool,
    /// The read with the first byte of the frame that is not whole.
    inside: Option<Stamp>,
    /// Its head so far.
    head: Vec<u8>,
    /// What is still to come of its payload, once the head is whole.
    payload: Option<u64>,
    /// That payload is part of a message.
    data: bool,
    /// A frame of the message that is not whole is large.
    large: bool,
    /// The last that was read is the end of a message with a large frame.
    after_large: bool,
    /// Bytes of messages that were not taken yet, whole or not.
    held: usize,
}

impl Frames {
    /// Takes what a read brought, or the first part of it: so many bytes, as far as the end of a message with a large frame.
    pub(super) fn read(&mut self, all: &[u8], at: Stamp) -> usize {
        let mut bytes = all;
        if !all.is_empty() {
            self.after_large = false;
        }
        loop {
            if let Some(left) = self.payload {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = &bytes[taken..];
                if self.data {
                    self.held += taken;
                }
                self.payload = Some(left - taken as u64).filter(|&left| left > 0);
                if self.payload.is_some() {
                    return all.len();
                }
                self.inside = None;
                if self.last {
                    self.message = None;
                    if std::mem::take(&mut self.large) {
                        self.after_large = true;
                        return all.len() - bytes.len();
                    }
                }
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return all.len();
            };
            bytes = rest;
            if self.head.is_empty() {
                self.inside = Some(at);
                // Text or binary; what continues a message begins none, and the rest are no messages.
                let opcode = byte & 0x0f;
                if matches!(opcode, 1 | 2) {
                    self.begun.push_back(at);
                    self.message = Some(at);
                }
                self.data = opcode <= 2;
                self.last = byte & 0x80 != 0 && self.data;
            }
            self.head.push(byte);
            if let Some(length) = payload_length(&self.head) {
                self.head.clear();
                self.payload = Some(length);
                self.large |= self.data && length >= LARGE;
            }
        }
    }

    /// The read with the first byte of the message that was just taken, of so many bytes.
    pub(super) fn take(&mut self, length: usize) -> Option<Stamp> {
        self.held = self.held.saturating_sub(length);
        self.begun.pop_front()
    }

    /// Bytes of messages that came and were not taken, whole or not.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether the last that was read is the end of a message with a large frame, and nothing after it.
    pub(super) fn are_after_large(&self) -> bool {
        self.after_large
    }

    /// Messages that came and were not taken.
    #[cfg(test)]
    pub(super) fn untaken(&self) -> usize {
        self.begun.len()
    }

    /// The read with which something began that is not whole.
    pub(super) fn begun_at(&self) -> Option<Stamp> {
        self.message.or(self.inside)
    }
}

/// The payload's length; `None` while the head is not whole.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let masked = if second & 0x80 == 0 { 0 } else { 4 };
    if head.len() < 2 + extended + masked {
        return None;
    }
    let long = head[2..2 + extended].iter();
    Some(match extended {
        0 => u64::from(second & 0x7f),
        _ => long.fold(0, |length, &byte| length << 8 | u64::from(byte)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(
            1,
            if masked { length + 4 } else { length },
        ));
        frame
    }

    /// In reads of `step` bytes, with the number of the read for its stamp.
    fn begun(bytes: &[u8], step: usize) -> (Vec<u64>, Option<Stamp>) {
        let mut frames = Frames::default();
        for (number, read) in bytes.chunks(step).enumerate() {
            let at = Stamp::from_nanos(number as u64);
            assert_eq!(frames.read(read, at), read.len());
        }
        let begun = std::iter::from_fn(|| frames.take(0)).map(Stamp::as_nanos);
        (begun.collect(), frames.begun_at())
    }

    #[test]
    fn a_message_begins_with_the_read_that_brings_its_first_byte() {
        for masked in [false, true] {
            for length in [0, 5, 125, 126, 70_000] {
                let message = frame(0x81, length, masked);
                let whole = message.len();
                let mut bytes = message;
                // A ping is no message, and what continues one is no other.
                bytes.extend(frame(0x89, 3, masked));
                bytes.extend(frame(0x02, length, masked));
                bytes.extend(frame(0x80, 9, masked));
                let second = bytes.len() - frame(0x80, 9, masked).len() - whole;
                for step in [1, 2, 7, whole + 6, bytes.len()] {
                    let expected = vec![0, (second / step) as u64];
                    let label = format!("{masked} {length} {step}");
                    assert_eq!(begun(&bytes, step), (expected, None), "{label}");
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_large_message_is_kept_apart_from_what_follows() {
        let large = frame(0x81, LARGE as usize, true);
        let small = frame(0x82, 7, true);
        let bytes = [&large[..], &small, &small[..3]].concat();
        for step in [1000, large.len() - 1, large.len(), bytes.len()] {
            let mut frames = Frames::default();
            let at = Stamp::from_nanos(1);
            let mut read = 0;
            while read < large.len() {
                let end = bytes.len().min(read + step);
                read += frames.read(&bytes[read..end], at);
            }
            assert_eq!(read, large.len(), "{step}");
            assert!(frames.are_after_large());
            assert_eq!(frames.held(), LARGE as usize);
            frames.take(LARGE as usize);
            assert_eq!(frames.held(), 0);
            // What is small is not.
            assert_eq!(frames.read(&bytes[read..], at), small.len() + 3);
            assert!(!frames.are_after_large());
            assert_eq!(frames.held(), 7);
        }
    }

    /// What is known after all was read in pieces of these lengths, the last again and again.
    fn known(bytes: &[u8], pieces: &[usize]) -> (usize, usize, bool, bool) {
        let mut frames = Frames::default();
        let mut read = 0;
        for number in 0.. {
            if read == bytes.len() {
                break;
            }
            let piece = pieces[number.min(pieces.len() - 1)];
            let end = bytes.len().min(read + piece);
            read += frames.read(&bytes[read..end], Stamp::from_nanos(1));
        }
        let (held, untaken) = (frames.held(), frames.untaken());
        let under_way = frames.begun_at().is_some();
        (held, untaken, under_way, frames.are_after_large())
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_the_same_in_whatever_pieces(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            pieces in proptest::collection::vec(1_usize..50, 1..20),
        ) {
            let whole = known(&bytes, &[bytes.len().max(1)]);
            proptest::prop_assert_eq!(known(&bytes, &pieces), whole);
            proptest::prop_assert!(whole.0 <= bytes.len());
        }
    }

    #[test]
    fn what_is_not_whole_is_under_way() {
        let ping = frame(0x89, 3, true);
        assert_eq!(begun(&ping[..4], 2).1, Some(Stamp::from_nanos(0)));
        let mut frames = Frames::default();
        frames.read(&frame(0x81, 3, true)[..1], Stamp::from_nanos(7));
        assert_eq!(frames.begun_at(), Some(Stamp::from_nanos(7)));
        // Its rest; then a message in two frames, and a ping between them.
        frames.read(&frame(0x81, 3, true)[1..], Stamp::from_nanos(8));
        assert_eq!(frames.begun_at(), None, "whole, and not taken");
        frames.read(&frame(0x01, 3, true), Stamp::from_nanos(9));
        frames.read(&frame(0x89, 3, true), Stamp::from_nanos(10));
        assert_eq!(frames.begun_at(), Some(Stamp::from_nanos(9)));
        frames.read(&frame(0x80, 3, true), Stamp::from_nanos(11));
        assert_eq!(frames.begun_at(), None);
    }
}
