//! Where the messages begin in what is read of a WebSocket: the library below tells only where they end.

use std::collections::VecDeque;

use tokenlag_probes::Stamp;

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
}

impl Frames {
    /// Takes what a read brought.
    pub(super) fn read(&mut self, mut bytes: &[u8], at: Stamp) {
        loop {
            if let Some(left) = self.payload {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = &bytes[taken..];
                self.payload = Some(left - taken as u64).filter(|&left| left > 0);
                if self.payload.is_some() {
                    return;
                }
                self.inside = None;
                self.message = self.message.filter(|_| !self.last);
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
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
                self.last = byte & 0x80 != 0 && opcode <= 2;
            }
            self.head.push(byte);
            if let Some(length) = payload_length(&self.head) {
                self.head.clear();
                self.payload = Some(length);
            }
        }
    }

    /// The read with the first byte of the message that was just taken.
    pub(super) fn take(&mut self) -> Option<Stamp> {
        self.begun.pop_front()
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
            frames.read(read, Stamp::from_nanos(number as u64));
        }
        let begun = std::iter::from_fn(|| frames.take()).map(Stamp::as_nanos);
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
