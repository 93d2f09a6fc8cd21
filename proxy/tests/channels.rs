//! Every channel through one and the same test, against a backend that knows when each token left.

mod stack;

use stack::{CHANNELS, Stack, create, exchange, run, trace};
use tokenlag_probes::{Encoding, Outcome, Transport};

/// Runs an exchange of 20 tokens over every channel, under the script, and holds each stamp against the truth.
/// `deltas` is how many deltas the script makes of them.
fn check(script: &str, deltas: usize) {
    let stack = Stack::start(script);
    for (number, way) in CHANNELS.into_iter().enumerate() {
        run(async {
            let channel = stack.channel(way.0);
            for turn in 0..3 {
                let trace = trace(number as u128 * 100 + turn);
                let seen = exchange(&channel, way, trace, &create("hello", 20), &[])
                    .await
                    .unwrap();
                let hop = stack.record(trace).await;
                let emitted = stack.backend.emissions(trace).unwrap();
                let label = format!("{} {}, turn {turn}, script '{script}'", way.0, way.1);

                assert_eq!(seen.status, 200, "{label}");
                assert_eq!(seen.outcome, Some(Outcome::Complete), "{label}");
                assert_eq!(hop.outcome, Outcome::Complete, "{label}");
                assert_eq!(hop.trace, Some(trace), "{label}");
                assert_eq!(seen.marks.len(), deltas, "{label}");
                assert_eq!(hop.up_token.len(), deltas, "{label}");
                assert_eq!(hop.out_token.len(), deltas, "{label}");
                assert_eq!(emitted.len(), deltas, "{label}");
                assert_eq!(hop.usage.map(|usage| usage.output), Some(20), "{label}");
                let ends = hop.up_token.iter().zip(&hop.out_token);
                let stamps = emitted.iter().zip(ends).zip(&seen.marks).enumerate();
                for (k, ((left, (up, out)), mark)) in stamps {
                    assert!(left <= up, "{label}: token {k} was read before it left");
                    assert!(up <= out, "{label}: token {k}");
                    assert!(*out <= mark.at, "{label}: token {k}");
                }
                let up_written = hop.up_written.unwrap();
                assert!(
                    hop.in_head <= hop.in_body && hop.in_body <= up_written,
                    "{label}"
                );
                assert!(seen.written <= hop.in_body, "{label}");
                assert!(hop.up_end.unwrap() <= seen.end.unwrap(), "{label}");
                assert!(seen.head.unwrap() <= seen.marks[0].at, "{label}");
                assert!(!hop.overlapped, "{label}");
            }
            let opened = channel.counters().connections_opened;
            let expected = if way.0 == Transport::HttpCold { 3 } else { 1 };
            assert_eq!(opened, expected, "{} {}", way.0, way.1);
            channel.close().await;
        });
    }
}

#[test]
fn token_by_token() {
    check("ttft=5ms,gap=1ms", 20);
}

#[test]
fn several_tokens_in_an_event() {
    check("ttft=5ms,gap=500us,tokens_per_event=4", 5);
}

#[test]
fn several_events_in_a_write() {
    check("ttft=5ms,gap=500us,events_per_write=5", 20);
}

#[test]
fn an_event_in_many_writes() {
    check("ttft=5ms,gap=2ms,writes_per_event=4", 20);
}

#[test]
fn pings_and_a_late_head_are_no_tokens() {
    check("ttft=20ms,gap=200us,head=10ms,pings=3,early=token", 20);
}

#[test]
fn as_fast_as_it_can() {
    check("ttft=0ms,gap=0ms", 20);
}

#[test]
fn the_same_text_over_every_channel() {
    let stack = Stack::start("gap=100us");
    let texts: Vec<_> = CHANNELS
        .into_iter()
        .map(|way| {
            run(async {
                let channel = stack.channel(way.0);
                let seen = exchange(&channel, way, trace(9), &create("x", 50), &[]).await;
                seen.unwrap().text
            })
        })
        .collect();
    assert!(!texts[0].is_empty());
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

/// Bytes inside the stream and on the wire that 95 tokens cost beside what every reply costs.
fn cost_of_tokens(stack: &Stack, encoding: Encoding) -> (u64, u64) {
    run(async {
        let way = (Transport::Quic, encoding);
        let channel = stack.channel(way.0);
        let mut received = Vec::new();
        for tokens in [5, 5, 100] {
            let before = channel.counters();
            let body = create("x", tokens);
            exchange(&channel, way, trace(u128::from(tokens)), &body, &[])
                .await
                .unwrap();
            let after = channel.counters();
            received.push((
                after.channel_bytes_received - before.channel_bytes_received,
                after.bytes_received - before.bytes_received,
            ));
        }
        // The first exchange made the connection.
        let (few, many) = (received[1], received[2]);
        (many.0 - few.0, many.1 - few.1)
    })
}

#[test]
fn compact_tokens_cost_less_inside_the_stream_and_on_the_wire() {
    let stack = Stack::start("gap=2ms");
    let events = cost_of_tokens(&stack, Encoding::Events);
    let compact = cost_of_tokens(&stack, Encoding::Compact);
    // Both carry the same text: what differs is what is around it, over 100 bytes against 16 at most.
    let saved = (events.0 - compact.0) / 95;
    assert!(saved > 100 - 16, "{saved} bytes a token");
    assert!(
        compact.1 + 95 * 84 < events.1,
        "{compact:?} against {events:?}"
    );
}

#[test]
fn the_upstream_pool_is_warm_for_every_channel() {
    let stack = Stack::start("gap=0ms");
    for (number, way) in CHANNELS.into_iter().enumerate() {
        run(async {
            let channel = stack.channel(way.0);
            let trace = trace(number as u128);
            exchange(&channel, way, trace, &create("x", 3), &[])
                .await
                .unwrap();
            let hop = stack.record(trace).await;
            assert_eq!(hop.up_connected_anew, number == 0, "{}", way.0);
        });
    }
    assert_eq!(stack.backend.connections(), 1);
}
