//! A finished exchange in few bytes, as the ledger keeps it: each stamp as its distance from the one before.

use tokenlag_probes::{FailureKind, HopExchange, Outcome, Stamp, TraceId, Usage};

/// What a record has, a bit each, in its first byte.
const TRACE: u8 = 1;
const UP_WRITTEN: u8 = 1 << 1;
const UP_END: u8 = 1 << 2;
const USAGE: u8 = 1 << 3;
const CACHED_INPUT: u8 = 1 << 4;
const CONNECTED_ANEW: u8 = 1 << 5;
const OVERLAPPED: u8 = 1 << 6;

/// Bytes of a trace id, which lies right behind the first byte.
const TRACE_BYTES: usize = size_of::<u128>();

/// Writes `record` behind what is there.
pub(crate) fn pack(record: &HopExchange, into: &mut Vec<u8>) {
    let cached = record.usage.and_then(|usage| usage.cached_input);
    let bit = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
    into.push(
        bit(TRACE, record.trace.is_some())
            | bit(UP_WRITTEN, record.up_written.is_some())
            | bit(UP_END, record.up_end.is_some())
            | bit(USAGE, record.usage.is_some())
            | bit(CACHED_INPUT, cached.is_some())
            | bit(CONNECTED_ANEW, record.up_connected_anew)
            | bit(OVERLAPPED, record.overlapped),
    );
    if let Some(trace) = record.trace {
        into.extend_from_slice(&trace.bits().to_le_bytes());
    }
    into.push(code(record.outcome));
    put(record.channel.len() as u64, into);
    into.extend_from_slice(record.channel.as_bytes());
    into.extend_from_slice(&record.in_head.as_nanos().to_le_bytes());
    put_span(record.in_head, record.in_body, into);
    for at in [record.up_written, record.up_end].into_iter().flatten() {
        put_span(record.in_body, at, into);
    }
    if let Some(usage) = record.usage {
        put(usage.input, into);
        put(usage.output, into);
        if let Some(cached) = cached {
            put(cached, into);
        }
    }
    put(record.up_token.len() as u64, into);
    put(record.out_token.len() as u64, into);
    put(record.up_coalesced.into(), into);
    let mut before = record.in_body;
    for &at in &record.up_token {
        put_span(before, at, into);
        before = at;
    }
    for (place, &at) in record.out_token.iter().enumerate() {
        put_span(read_with(record, place), at, into);
    }
}

/// The read that a write of delta `place` is told from.
fn read_with(record: &HopExchange, place: usize) -> Stamp {
    let read = record.up_token.get(place).copied();
    read.unwrap_or(record.in_body)
}

/// The record that was packed into `bytes`.
pub(crate) fn unpack(bytes: &[u8]) -> HopExchange {
    let mut rest = Rest(bytes);
    let flags = rest.byte();
    let has = |flag: u8| flags & flag != 0;
    let trace = has(TRACE).then(|| TraceId::from_bits(u128::from_le_bytes(rest.array())));
    let outcome = outcome(rest.byte());
    let length = rest.number() as usize;
    let channel = String::from_utf8_lossy(rest.take(length))
        .into_owned()
        .into();
    let in_head = Stamp::from_nanos(u64::from_le_bytes(rest.array()));
    let in_body = rest.stamp(in_head);
    let up_written = has(UP_WRITTEN).then(|| rest.stamp(in_body));
    let up_end = has(UP_END).then(|| rest.stamp(in_body));
    let usage = has(USAGE).then(|| Usage {
        input: rest.number(),
        output: rest.number(),
        cached_input: has(CACHED_INPUT).then(|| rest.number()),
    });
    let (up, out) = (rest.number(), rest.number());
    let mut record = HopExchange {
        trace,
        channel,
        in_head,
        in_body,
        up_written,
        up_token: Vec::with_capacity(up as usize),
        up_coalesced: rest.number() as u32,
        out_token: Vec::with_capacity(out as usize),
        up_end,
        usage,
        up_connected_anew: has(CONNECTED_ANEW),
        overlapped: has(OVERLAPPED),
        outcome,
    };
    let mut before = in_body;
    for _ in 0..up {
        before = rest.stamp(before);
        record.up_token.push(before);
    }
    for place in 0..out as usize {
        let at = rest.stamp(read_with(&record, place));
        record.out_token.push(at);
    }
    record
}

/// Whether `bytes` are the record of that exchange. Looks at its first bytes alone.
pub(crate) fn is_of(bytes: &[u8], trace: TraceId) -> bool {
    let named = bytes.first().is_some_and(|flags| flags & TRACE != 0);
    named && bytes.get(1..=TRACE_BYTES) == Some(&trace.bits().to_le_bytes())
}

fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Complete => 0,
        Outcome::Truncated => 1,
        Outcome::Cancelled => 2,
        Outcome::Failed(kind) => {
            let place = FailureKind::ALL.iter().position(|&known| known == kind);
            3 + place.unwrap_or_default() as u8
        }
    }
}

fn outcome(code: u8) -> Outcome {
    match code {
        0 => Outcome::Complete,
        1 => Outcome::Truncated,
        2 => Outcome::Cancelled,
        failed => {
            let kind = FailureKind::ALL.get(usize::from(failed) - 3);
            Outcome::Failed(kind.copied().unwrap_or(FailureKind::Protocol))
        }
    }
}

/// Seven bits a byte, the lowest first; the eighth says that there is another one.
fn put(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// How much later `at` is than `from`. It may be earlier: who stamps may change, and then the sign is the lowest bit.
fn put_span(from: Stamp, at: Stamp, into: &mut Vec<u8>) {
    let span = at.since(from);
    put(((span << 1) ^ (span >> 63)) as u64, into);
}

/// What of a record is to be read yet. Beyond its end there are zeros.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 || shift >= u64::BITS {
                return number;
            }
        }
    }

    fn stamp(&mut self, from: Stamp) -> Stamp {
        let number = self.number();
        from.moved_by((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> impl Strategy<Value = Stamp> {
        any::<u64>().prop_map(Stamp::from_nanos)
    }

    fn outcomes() -> impl Strategy<Value = Outcome> {
        let failed = FailureKind::ALL.map(Outcome::Failed);
        let others = [Outcome::Complete, Outcome::Truncated, Outcome::Cancelled];
        prop::sample::select([&others[..], &failed[..]].concat())
    }

    fn usages() -> impl Strategy<Value = Usage> {
        let numbers = (any::<u64>(), any::<Option<u64>>(), any::<u64>());
        numbers.prop_map(|(input, cached_input, output)| Usage {
            input,
            cached_input,
            output,
        })
    }

    prop_compose! {
        fn records()(
            trace in any::<Option<u128>>(),
            channel in "[a-z0-9-]{0,12}",
            (in_head, in_body) in (stamp(), stamp()),
            up_written in prop::option::of(stamp()),
            up_token in prop::collection::vec(stamp(), 0..9),
            out_token in prop::collection::vec(stamp(), 0..9),
            up_coalesced in any::<u32>(),
            up_end in prop::option::of(stamp()),
            usage in prop::option::of(usages()),
            (up_connected_anew, overlapped) in any::<(bool, bool)>(),
            outcome in outcomes(),
        ) -> HopExchange {
            HopExchange {
                trace: trace.map(TraceId::from_bits),
                channel: channel.into(),
                in_head,
                in_body,
                up_written,
                up_token,
                up_coalesced,
                out_token,
                up_end,
                usage,
                up_connected_anew,
                overlapped,
                outcome,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_as_it_was(record in records(), other in any::<u128>()) {
            let mut bytes = Vec::new();
            pack(&record, &mut bytes);
            prop_assert_eq!(&unpack(&bytes), &record);
            let other = TraceId::from_bits(other);
            prop_assert_eq!(is_of(&bytes, other), record.trace == Some(other));
            if let Some(trace) = record.trace {
                prop_assert!(is_of(&bytes, trace));
            }
        }
    }

    #[test]
    fn tokens_at_a_usual_pace_take_seven_bytes_each() {
        let at = |nanos: u64| Stamp::from_nanos(1_000_000_000_000 + nanos);
        let reads = |place: u64| at(place * 2_000_000);
        let record = HopExchange {
            trace: Some(TraceId::from_bits(u128::MAX)),
            channel: "http".into(),
            in_head: at(0),
            in_body: at(20_000),
            up_written: Some(at(60_000)),
            up_token: (1..=200).map(reads).collect(),
            up_coalesced: 0,
            out_token: (1..=200)
                .map(|place| reads(place) + std::time::Duration::from_micros(30))
                .collect(),
            up_end: Some(reads(201)),
            usage: None,
            up_connected_anew: false,
            overlapped: false,
            outcome: Outcome::Complete,
        };
        let mut bytes = Vec::new();
        pack(&record, &mut bytes);
        assert!(bytes.len() <= 50 + 200 * 7, "{}", bytes.len());
    }
}
