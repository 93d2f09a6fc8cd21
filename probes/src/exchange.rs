//! One exchange as each end saw it: the stamps from which every figure is derived.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::lateness::Handling;

/// The W3C trace id by which the two ends of an exchange find each other: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(u128);

impl TraceId {
    /// A trace id from random bits; zero, which W3C Trace Context forbids, becomes one.
    pub fn from_bits(bits: u128) -> Self {
        Self(bits.max(1))
    }

    /// The bits; never zero.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The `traceparent` value (<https://www.w3.org/TR/trace-context/>, version 00) that carries this id.
    pub fn traceparent(self) -> String {
        text(&self.traceparent_bytes()).to_owned()
    }

    /// The same as it goes onto the wire; in ASCII.
    pub fn traceparent_bytes(self) -> [u8; 55] {
        // The parent id only has to be non-zero: the exchange is its own root.
        let parent = (self.0 as u64).max(1);
        let mut value = *b"00-________________________________-________________-01";
        value[3..35].copy_from_slice(&self.digits());
        value[36..52].copy_from_slice(hex(parent).as_flattened());
        value
    }

    /// The id's 32 digits, in ASCII.
    pub(crate) fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        let (upper, lower) = digits.split_at_mut(16);
        upper.copy_from_slice(hex((self.0 >> 64) as u64).as_flattened());
        lower.copy_from_slice(hex(self.0 as u64).as_flattened());
        digits
    }

    /// Reads the trace id out of a `traceparent` value. `None` where it is not one that W3C Trace Context allows.
    pub fn from_traceparent(value: impl AsRef<[u8]>) -> Option<Self> {
        // Every request's is read: each field has its place and its length.
        let (fields, rest) = value.as_ref().trim_ascii().split_first_chunk::<52>()?;
        let (trace, parent) = (&fields[3..35], &fields[36..]);
        let dashes = fields[2] == b'-' && fields[35] == b'-';
        if !dashes || rest.first().is_some_and(|&next| next != b'-') {
            return None;
        }
        let version = lower_hex(&[[b'0', b'0', b'0', b'0', b'0', b'0', fields[0], fields[1]]])?;
        if version == 0xff || lower_hex(parent.as_chunks().0)? == 0 {
            return None;
        }
        Self::of_digits(trace)
    }

    fn of_digits(digits: &[u8]) -> Option<Self> {
        let (words @ [_, _, _, _], []) = digits.as_chunks() else {
            return None;
        };
        let bits = lower_hex(words)?;
        (bits != 0).then_some(Self(bits))
    }
}

/// The lower-case hexadecimal digits of a number, eight in a piece: every request's are written, and formatting takes many times
/// as long.
fn hex(number: u64) -> [[u8; 8]; 2] {
    [(number >> 32) as u32, number as u32].map(eight_digits)
}

/// One in each byte.
const EACH: u64 = u64::from_ne_bytes([1; 8]);

/// The digits of a number, all eight at once: each half byte is moved into a byte of its own.
fn eight_digits(number: u32) -> [u8; 8] {
    let number = u64::from(number);
    let pairs = (number | number << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | bytes << 4) & (EACH * 0x0f);
    // Those of ten and more reach the bit above: their letters begin so much later.
    let letters = (halves + EACH * 6) >> 4 & EACH;
    let digits = halves + EACH * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1);
    digits.to_be_bytes()
}

fn text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&self.digits()))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not 32 lower-case hexadecimal digits with a digit other than zero among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace id is 32 lower-case hexadecimal digits, not all zero")]
pub struct NotATraceId;

impl FromStr for TraceId {
    type Err = NotATraceId;

    fn from_str(text: &str) -> Result<Self, NotATraceId> {
        Self::of_digits(text.as_bytes()).ok_or(NotATraceId)
    }
}

/// The number that lower-case hexadecimal digits make, of which the last 32 count. Every request's are read.
fn lower_hex(words: &[[u8; 8]]) -> Option<u128> {
    let add = |number: u128, &word: &[u8; 8]| Some(number << 32 | u128::from(of_eight(word)?));
    words.iter().try_fold(0, add)
}

/// The number that eight digits make, all at once as they are written; those that are not written so are none.
fn of_eight(digits: [u8; 8]) -> Option<u32> {
    let text = u64::from_be_bytes(digits);
    // Of a letter bit 6 is set, and its lower half is nine too low.
    let halves = (text & (EACH * 0x0f)) + (text >> 6 & EACH) * 9;
    let bytes = (halves | halves >> 4) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    let number = (pairs | pairs >> 16) as u32;
    (eight_digits(number) == digits).then_some(number)
}

impl Serialize for TraceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text(&self.digits()))
    }
}

impl<'de> Deserialize<'de> for TraceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a delta carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeltaKind {
    /// Text that the user sees.
    Content,
    /// Reasoning: model output that is not shown as the answer.
    Reasoning,
    /// Arguments of a tool or function call.
    Tool,
}

/// One delta: its stamp, which chunk (from 0) of the exchange carried it, and its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMark {
    /// When the read returned that completed the delta's event.
    pub at: Stamp,
    /// Ordinal of that read's chunk within the exchange.
    pub chunk: u32,
    /// What the delta carries.
    pub kind: DeltaKind,
}

/// Tokens as the reply's `usage` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Prompt tokens that the backend had in its cache; `None` where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Tokens of the output, reasoning included.
    pub output: u64,
}

/// Why an exchange failed, by kind and not by text, so that failures can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection could be made.
    Connect,
    /// The connection was made, and then closed or reset before the reply's terminal event.
    ConnectionLost,
    /// Nothing came within the time allowed.
    Timeout,
    /// An HTTP status of 400 to 499, or an error event with such a status.
    ClientError,
    /// An HTTP status of 500 to 599, or an error event with such a status.
    ServerError,
    /// Bytes that the protocol or the dialect does not allow.
    Protocol,
    /// The model's own failure: `response.failed`, or an `error` event without a status.
    Model,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [FailureKind; 7] = [
        Self::Connect,
        Self::ConnectionLost,
        Self::Timeout,
        Self::ClientError,
        Self::ServerError,
        Self::Protocol,
        Self::Model,
    ];

    /// The name in JSON, tables and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectionLost => "connection_lost",
            Self::Timeout => "timeout",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Protocol => "protocol",
            Self::Model => "model",
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The dialect's terminal event came.
    Complete,
    /// The stream ended cleanly, yet without its terminal event.
    Truncated,
    /// It failed; see the kind.
    Failed(FailureKind),
    /// The client gave up.
    Cancelled,
}

/// Which exchange of a run this is: pairs across rows share `(block, session, turn)`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Place {
    /// Block of the campaign, from 0. Blocks are what intervals are computed over.
    pub block: u32,
    /// Session within the block, from 0.
    pub session: u32,
    /// Turn within the session, from 0.
    pub turn: u32,
}

/// One exchange as the load generator saw it. Stamps that were not reached are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The name that both ends know.
    pub trace: TraceId,
    /// Where in the run it belongs.
    pub place: Place,
    /// The schedule's moment.
    pub intended: Stamp,
    /// The exchange really started: before it asked for a connection, stream or lane.
    pub dispatched: Stamp,
    /// The name was resolved, where a connection was made.
    pub resolved: Option<Stamp>,
    /// TCP (or QUIC) was connected, where a connection was made.
    pub transport_connected: Option<Stamp>,
    /// The channel could take the request's first byte.
    pub connected: Option<Stamp>,
    /// Before the write with the request's last byte.
    pub written: Option<Stamp>,
    /// Read with the reply's first byte.
    pub head: Option<Stamp>,
    /// One mark a delta, in order.
    pub tokens: Vec<TokenMark>,
    /// What became of each delta once it had come; empty, or one a delta.
    pub handling: Vec<Handling>,
    /// In a pair: how long each delta was in the sidecar beside the load generator, in nanoseconds, as far as that is known;
    /// `None` elsewhere.
    pub sidecar: Option<Vec<u32>>,
    /// Read with the terminal event.
    pub end: Option<Stamp>,
    /// Reads that carried bytes of this exchange.
    pub chunks: u32,
    /// The reply's `usage`; `None` where it had none, and then figures are per delta.
    pub usage: Option<Usage>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Exchange {
    /// An exchange that is about to start, with room for `deltas` marks.
    pub fn begin(
        trace: TraceId,
        place: Place,
        intended: Stamp,
        dispatched: Stamp,
        deltas: usize,
    ) -> Self {
        Self {
            trace,
            place,
            intended,
            dispatched,
            resolved: None,
            transport_connected: None,
            connected: None,
            written: None,
            head: None,
            tokens: Vec::with_capacity(deltas),
            handling: Vec::with_capacity(deltas),
            sidecar: None,
            end: None,
            chunks: 0,
            usage: None,
            outcome: Outcome::Cancelled,
        }
    }

    /// The same in the memory of one that is `spent`.
    pub fn begin_in(
        spent: Exchange,
        trace: TraceId,
        place: Place,
        intended: Stamp,
        dispatched: Stamp,
        deltas: usize,
    ) -> Self {
        let (mut tokens, mut handling) = (spent.tokens, spent.handling);
        tokens.clear();
        tokens.reserve(deltas);
        handling.clear();
        handling.reserve(deltas);
        Self {
            tokens,
            handling,
            ..Self::begin(trace, place, intended, dispatched, 0)
        }
    }
}

/// One exchange as the proxy saw it: a line of `/exchanges`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HopExchange {
    /// The name that the client gave it; `None` where the client gave none.
    pub trace: Option<TraceId>,
    /// The channel that it came in on, by name.
    pub channel: Cow<'static, str>,
    /// Read with the request's first byte.
    pub in_head: Stamp,
    /// Read with the request's last byte.
    pub in_body: Stamp,
    /// Before the upstream write with the request's last byte; `None` where the proxy answered itself.
    pub up_written: Option<Stamp>,
    /// Upstream read with delta k.
    pub up_token: Vec<Stamp>,
    /// Deltas that share their upstream read with a later one: their stamp is that read's, and may be later than they were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub up_coalesced: u32,
    /// Before the client-facing write with delta k; shorter than `up_token` where the client left early.
    pub out_token: Vec<Stamp>,
    /// Upstream read with the terminal event.
    pub up_end: Option<Stamp>,
    /// The reply's usage, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The upstream connection was made for this exchange (the pool was cold).
    pub up_connected_anew: bool,
    /// The reply began before the request had ended, so overheads do not exist.
    pub overlapped: bool,
    /// How it ended.
    pub outcome: Outcome,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_round_trip() {
        let id = TraceId::from_bits(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let value = id.traceparent();
        assert_eq!(
            value,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01"
        );
        assert_eq!(TraceId::from_traceparent(&value), Some(id));
    }

    #[test]
    fn traceparents_that_w3c_forbids() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-a3ce929d0e0e4736-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-a3ce929d0e0e4736-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-a3ce929d0e0e4736-01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e473:-01",
        ] {
            assert_eq!(TraceId::from_traceparent(bad), None, "{bad}");
        }
    }

    #[test]
    fn digits_are_those_that_the_language_writes() {
        for shift in 0..16 {
            let id = TraceId::from_bits(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128 << shift);
            assert_eq!(id.to_string(), format!("{:032x}", id.bits()));
        }
    }

    #[test]
    fn digits_are_those_that_the_language_reads() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut digits = *b"00000000";
                digits[place] = byte;
                let text = str::from_utf8(&digits).ok();
                let known = text.and_then(|text| u32::from_str_radix(text, 16).ok());
                let lower = known.filter(|_| !byte.is_ascii_uppercase() && byte != b'+');
                assert_eq!(of_eight(digits), lower, "{digits:?}");
            }
        }
    }

    #[test]
    fn zero_bits_still_name_an_exchange() {
        let id = TraceId::from_bits(0);
        assert_eq!(TraceId::from_traceparent(id.traceparent()), Some(id));
    }
}
