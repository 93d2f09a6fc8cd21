//! Replies of a proxy's `/clock`: a time or a reason, and an estimate of whatever times there are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_probes::{ClockBatch, ClockRecord, ClockReply, RoundTrip, Stamp};

fuzz_target!(|input: (Vec<(u64, u64, Vec<u8>)>, u64)| {
    let (replies, at) = input;
    let trips = replies.iter().filter_map(|(sent, waited, body)| {
        let reply = ClockReply::parse(body).ok()?;
        assert!(reply.received <= reply.replied);
        Some(RoundTrip {
            sent: Stamp::from_nanos(*sent),
            received: reply.received,
            replied: reply.replied,
            arrived: Stamp::from_nanos(sent.saturating_add(*waited)),
        })
    });
    let batches: Vec<ClockBatch> = trips.filter_map(|trip| ClockBatch::of([trip])).collect();
    let clocks = ClockRecord {
        ours: None,
        theirs: None,
        started: Stamp::default(),
        batches,
    };
    assert_eq!(clocks.estimate().is_none(), clocks.batches.is_empty());
    let at = Stamp::from_nanos(at);
    assert_eq!(
        clocks.offset_ns(at).is_none(),
        clocks.uncertainty_ns(at, at).is_none()
    );
});
