//! Follows the frames of an HTTP/3 stream as its bytes arrive (RFC 9114, section 7.1).
//!
//! h3 keeps a frame whole until it is there, whatever length it says, unless it is DATA; and it takes a stream that ends
//! inside a DATA frame for one that is whole. Both are found out here, before h3 sees the bytes. It also tells how many
//! bytes of bodies each read brought, so that h3, which reads ahead, can be told when what it gives out had come.

use crate::quic::varint;

/// The longest frame other than DATA on a request's stream. h3 answers a head that is longer than allowed by itself; this
/// bounds what it keeps until it can.
const LONGEST: u64 = 256 * 1024;

/// The longest frame on a control stream: settings and numbers.
const LONGEST_CONTROL: u64 = 16 * 1024;

const DATA: u64 = 0x00;
const CONTROL_STREAM: u64 = 0x00;

/// A frame that would be kept whole is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an HTTP/3 frame of {0} bytes is longer than what is taken")]
pub(crate) struct TooLong(u64);

/// Where in its frames a stream is.
#[derive(Debug)]
pub(crate) struct Meter {
    state: State,
    /// A number that is not whole yet.
    number: [u8; 8],
    have: usize,
    longest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// What a stream of one direction is for.
    Purpose,
    /// A frame's type.
    Kind,
    /// A frame's length.
    Length { kind: u64 },
    /// So much of a frame is to come.
    Payload { data: bool, left: u64 },
    /// No frames, and nothing that is kept.
    Ignored,
}

impl Meter {
    /// For a stream that carries an exchange.
    pub(crate) fn of_exchange() -> Self {
        Self::new(State::Kind, LONGEST)
    }

    /// For a stream of one direction.
    pub(crate) fn of_one_way() -> Self {
        Self::new(State::Purpose, LONGEST_CONTROL)
    }

    fn new(state: State, longest: u64) -> Self {
        Self {
            state,
            number: [0; 8],
            have: 0,
            longest,
        }
    }

    /// Takes what was read; gives how many of its bytes are payload of DATA frames.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<usize, TooLong> {
        let mut of_bodies = 0;
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Ignored => return Ok(of_bodies),
                State::Payload { data, left } => {
                    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    of_bodies += if data { taken } else { 0 };
                    bytes = &bytes[taken..];
                    self.pass(data, left - taken as u64);
                }
                State::Purpose | State::Kind | State::Length { .. } => {
                    if self.have == 0
                        && let Some((value, width)) = varint::peek(bytes)
                    {
                        bytes = &bytes[width..];
                        self.read(value)?;
                        continue;
                    }
                    self.number[self.have] = first;
                    self.have += 1;
                    bytes = &bytes[1..];
                    if let Some((value, _)) = varint::peek(&self.number[..self.have]) {
                        self.have = 0;
                        self.read(value)?;
                    }
                }
            }
        }
        Ok(of_bodies)
    }

    /// Whether a stream that ended here would have ended inside a frame.
    pub(crate) fn is_inside(&self) -> bool {
        match self.state {
            State::Payload { .. } | State::Length { .. } => true,
            State::Kind => self.have > 0,
            State::Purpose | State::Ignored => false,
        }
    }

    fn read(&mut self, value: u64) -> Result<(), TooLong> {
        match self.state {
            State::Purpose if value == CONTROL_STREAM => self.state = State::Kind,
            State::Purpose => self.state = State::Ignored,
            State::Kind => self.state = State::Length { kind: value },
            State::Length { kind } if kind != DATA && value > self.longest => {
                return Err(TooLong(value));
            }
            State::Length { kind } => self.pass(kind == DATA, value),
            State::Payload { .. } | State::Ignored => {}
        }
        Ok(())
    }

    fn pass(&mut self, data: bool, left: u64) {
        self.state = match left {
            0 => State::Kind,
            left => State::Payload { data, left },
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint::push(&mut out, kind);
        varint::push(&mut out, payload.len() as u64);
        out.extend_from_slice(payload);
        out
    }

    fn exchange() -> Vec<u8> {
        [
            frame(0x01, &[7; 100]),
            frame(DATA, &[1; 70]),
            frame(0x2f0c, b"grease"),
            frame(DATA, &[]),
            frame(DATA, &[2; 20_000]),
        ]
        .concat()
    }

    proptest! {
        #[test]
        fn any_split_counts_the_same(cuts in prop::collection::vec(0usize..20_300, 0..12)) {
            let bytes = exchange();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut meter = Meter::of_exchange();
            let mut count = 0;
            for pair in cuts.windows(2) {
                count += meter.feed(&bytes[pair[0]..pair[1]]).unwrap();
            }
            prop_assert_eq!(count, 20_070);
            prop_assert!(!meter.is_inside());
        }

        #[test]
        fn a_stream_that_ends_inside_a_frame_is_found_out(cut in 1usize..100) {
            let bytes = frame(DATA, &[0; 98]);
            let mut meter = Meter::of_exchange();
            meter.feed(&bytes[..cut]).unwrap();
            prop_assert!(meter.is_inside());
        }

        #[test]
        fn anything_at_all_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Meter::of_exchange().feed(&bytes);
            let _ = Meter::of_one_way().feed(&bytes);
        }
    }

    #[test]
    fn what_would_be_kept_whole_is_bounded_and_data_is_not() {
        let mut long = vec![0x01];
        varint::push(&mut long, LONGEST + 1);
        let too_long = Err(TooLong(LONGEST + 1));
        assert_eq!(Meter::of_exchange().feed(&long), too_long);
        long[0] = 0x00;
        assert_eq!(Meter::of_exchange().feed(&long), Ok(0));
        let mut control = vec![CONTROL_STREAM as u8, 0x21];
        varint::push(&mut control, LONGEST_CONTROL + 1);
        let too_long = Err(TooLong(LONGEST_CONTROL + 1));
        assert_eq!(Meter::of_one_way().feed(&control), too_long);
        control[0] = 0x02;
        assert_eq!(Meter::of_one_way().feed(&control), Ok(0));
    }
}
