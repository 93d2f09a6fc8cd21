//! What a proxy says it carried between itself and its upstream, over any channel.

mod pair;
mod stack;

use std::cell::Cell;

use pair::{LEGS, Leg, Pair};
use stack::{Stack, create, get, run, trace};
use tokenlag_channel::Stamping;
use tokenlag_probes::{Encoding, Outcome, ProxyUsage, StampSource, Transport};
use tokenlag_proxy::ProxyOptions;
use tokenlag_scripted::{Script, ScriptedBackend};

/// A figure of the way upstream; `None` where there is none of that channel.
async fn carried(stack: &Stack, channel: Transport, name: &str) -> Option<u64> {
    let series = format!("tokenlag_upstream_{name}_total{{channel=\"{channel}\"}} ");
    let metrics = get(stack.addresses.admin, "/metrics").await.1;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(&series))?;
    Some(value.parse().unwrap())
}

/// Bytes on the wire and inside the channel, both ways: sent, received, sent, received.
async fn bytes(stack: &Stack, channel: Transport) -> [u64; 4] {
    let mut bytes = [0; 4];
    let names = [
        "wire_bytes_sent",
        "wire_bytes_received",
        "channel_bytes_sent",
        "channel_bytes_received",
    ];
    for (bytes, name) in bytes.iter_mut().zip(names) {
        *bytes = carried(stack, channel, name).await.expect(name);
    }
    bytes
}

async fn ask(pair: &Pair, number: u128, tokens: u32, headers: &[(String, String)]) {
    let trace = trace(number);
    let body = create("hello", tokens);
    let seen = pair.ask_with(trace, &body, headers).await.unwrap();
    assert_eq!(seen.outcome, Some(Outcome::Complete));
    // From then on the connection has been laid by.
    pair.near.record(trace).await;
}

fn check(leg: Leg, tls: bool) {
    let label = format!("{} {} {tls}", leg.0, leg.1);
    let pair = Pair::between(leg, Stack::start("ttft=2ms,gap=1ms"), tls, |options| {
        options
    });
    let encrypted = tls || leg.0.is_encrypted_always();
    run(async {
        let mut before = bytes(&pair.near, leg.0).await;
        assert_eq!(before, [0; 4], "{label}: known before anything was asked");
        for number in 1..=3 {
            ask(&pair, number, 5, &[]).await;
            let after = bytes(&pair.near, leg.0).await;
            for (after, before) in after.iter().zip(before) {
                assert!(*after > before, "{label}: {after} after {before}");
            }
            before = after;
        }
        let [sent, received, inside_sent, inside_received] = before;
        match encrypted {
            true => assert!(sent > inside_sent && received > inside_received, "{label}"),
            false => assert_eq!((sent, received), (inside_sent, inside_received), "{label}"),
        }
        let opened = carried(&pair.near, leg.0, "connections_opened").await;
        let expected = if leg.0 == Transport::HttpCold { 3 } else { 1 };
        assert_eq!(opened, Some(expected), "{label}");
        let made = carried(&pair.near, leg.0, "handshakes_made").await;
        assert_eq!(
            made,
            opened.map(|opened| opened * u64::from(encrypted)),
            "{label}"
        );
    });
}

#[test]
fn every_channel_tells_what_went_over_it() {
    for leg in LEGS {
        check(leg, false);
    }
}

#[test]
fn encryption_is_on_the_wire_and_not_in_the_channel() {
    for leg in LEGS {
        check(leg, true);
    }
}

#[test]
fn an_encoding_that_is_smaller_shows() {
    let received = [Encoding::Events, Encoding::Compact].map(|encoding| {
        let leg = (Transport::Quic, encoding);
        let pair = Pair::start(leg, "ttft=2ms,gap=1ms");
        run(async {
            ask(&pair, 1, 200, &[]).await;
            bytes(&pair.near, leg.0).await[3]
        })
    });
    assert!(3 * received[1] < received[0], "{received:?}");
}

#[test]
fn clients_whose_connections_are_not_kept_any_more_still_count() {
    // One more than the openings that a thread keeps apart.
    const CLIENTS: u128 = 65;
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "ttft=0ms,gap=0ms");
    run(async {
        let mut last = 0;
        for client in 0..CLIENTS {
            let whose = ("authorization".to_owned(), format!("Bearer {client}"));
            ask(&pair, client + 1, 2, &[whose]).await;
            let [.., received] = bytes(&pair.near, leg.0).await;
            assert!(received > last, "{client}: {received} after {last}");
            last = received;
        }
        let opened = carried(&pair.near, leg.0, "connections_opened").await;
        assert_eq!(opened, Some(CLIENTS as u64));
    });
}

#[test]
fn a_proxy_without_a_leg_tells_of_its_pool() {
    let stack = Stack::start("ttft=2ms,gap=1ms");
    run(async {
        let channel = stack.channel(Transport::Http);
        let body = create("hello", 5);
        let asked = (Transport::Http, Encoding::Events);
        let trace = trace(1);
        let seen = stack::exchange(&channel, asked, trace, &body, &[]).await;
        assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete));
        stack.record(trace).await;
        let [sent, received, ..] = bytes(&stack, Transport::Http).await;
        assert!(sent > 0 && received > 0);
        assert_eq!(carried(&stack, Transport::Quic, "reads").await, None);
    });
}

/// Reads of the upstream of which it is known how long their bytes lay in the kernel, and those of which it is not.
async fn wakeups(stack: &Stack) -> [u64; 2] {
    let metrics = get(stack.addresses.admin, "/metrics").await.1;
    ["wakeup_seconds_count", "unstamped_reads_total"].map(|name| {
        let series = format!("tokenlag_upstream_{name} ");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series));
        value.expect(name).parse().unwrap()
    })
}

#[test]
fn a_proxy_whose_upstream_the_kernel_stamps_tells_how_long_each_read_was_waited_for() {
    for source in [StampSource::User, StampSource::Kernel] {
        let script = Script::default().with("ttft=2ms,gap=5ms").unwrap();
        let backend = ScriptedBackend::start(script).unwrap();
        let upstream = backend.url().parse().unwrap();
        let stack = Stack::in_front_of(backend, upstream, |options| ProxyOptions {
            stamping: Stamping::new(source),
            ..options
        });
        run(async {
            let channel = stack.channel(Transport::Http);
            let asked = (Transport::Http, Encoding::Events);
            let mut before = 0;
            for number in 1..=2 {
                let (trace, body) = (trace(number), create("hello", 5));
                let seen = stack::exchange(&channel, asked, trace, &body, &[]).await;
                assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete));
                stack.record(trace).await;
                let [known, unknown] = wakeups(&stack).await;
                match source {
                    StampSource::User => assert_eq!([known, unknown], [0, 0]),
                    // A kernel that gives no stamps has them counted as missing.
                    StampSource::Kernel => assert!(known + unknown > before, "{known} {unknown}"),
                }
                before = known + unknown;
            }
        });
    }
}

#[test]
fn deltas_that_share_an_upstream_read_are_counted() {
    for (script, least) in [
        ("ttft=2ms,gap=2ms,events_per_write=3", 6),
        ("ttft=2ms,gap=10ms", 0),
    ] {
        let stack = Stack::start(script);
        run(async {
            let channel = stack.channel(Transport::Http);
            let asked = (Transport::Http, Encoding::Events);
            let (trace, body) = (trace(1), create("hello", 9));
            let seen = stack::exchange(&channel, asked, trace, &body, &[]).await;
            assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete));
            let record = stack.record(trace).await;
            // Each read has a stamp of its own.
            let mut reads = record.up_token.clone();
            reads.dedup();
            assert_eq!(record.up_token.len(), 9);
            assert_eq!(record.up_coalesced as usize, 9 - reads.len(), "{script}");
            assert!(record.up_coalesced >= least, "{script}: {record:?}");
        });
    }
}

/// Whether an exchange is under way.
async fn is_busy(stack: &Stack) -> bool {
    let metrics = get(stack.addresses.admin, "/metrics").await.1;
    let busy = "tokenlag_active_exchanges{channel=\"http\"} 1";
    metrics.lines().any(|line| line == busy)
}

#[test]
fn websockets_that_are_busy_hide_nothing_of_what_they_did_before() {
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "ttft=2ms,gap=20ms");
    run(async {
        ask(&pair, 1, 20, &[]).await;
        let before = bytes(&pair.near, leg.0).await;
        let is_over = Cell::new(false);
        let long = async {
            ask(&pair, 2, 60, &[]).await;
            is_over.set(true);
        };
        let short = async {
            while !is_busy(&pair.near).await {}
            // The long one has the first one's socket: this one opens another, which carries less.
            ask(&pair, 3, 2, &[]).await;
            let after = bytes(&pair.near, leg.0).await;
            assert!(!is_over.get(), "the long one is still under way");
            for (after, before) in after.iter().zip(before) {
                assert!(*after > before, "{after} after {before}");
            }
        };
        tokio::join!(long, short);
    });
}

/// What the proxy says of its sockets.
async fn usage(stack: &Stack) -> ProxyUsage {
    let (_, usage) = get(stack.addresses.admin, "/usage").await;
    serde_json::from_str(&usage).unwrap()
}

#[test]
fn right_after_an_exchange_every_read_and_write_is_told_of_below_the_bytes_too() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=2ms,gap=1ms");
        run(async {
            for number in 1..=3 {
                ask(&pair, number, 20, &[]).await;
                let label = format!("{} {}, turn {number}", leg.0, leg.1);
                let reads = carried(&pair.near, leg.0, "reads").await;
                let writes = carried(&pair.near, leg.0, "writes").await;
                let below = usage(&pair.near).await.upstream.expect("a side");
                for (above, below) in [(reads, below.reads), (writes, below.writes)] {
                    let above = above.expect("it is counted");
                    match leg.0 {
                        // It acknowledges what comes later.
                        Transport::Http3 | Transport::Quic => assert!(below >= above, "{label}"),
                        _ => assert_eq!(below, above, "{label}"),
                    }
                }
            }
        });
    }
}

#[test]
fn connections_over_quic_that_last_are_told_of_at_both_ends() {
    for channel in [Transport::Http3, Transport::Quic] {
        let pair = Pair::start((channel, Encoding::Events), "ttft=2ms,gap=1ms");
        run(async {
            let mut before = 0;
            for number in 1..=3 {
                ask(&pair, number, 20, &[]).await;
                // What came was sent before: who sent it is asked last.
                let came = usage(&pair.near).await.upstream.expect("a side");
                let far = usage(&pair.far).await.door.expect("a side");
                assert!(
                    far.packets_sent >= came.packets_received,
                    "{far:?} {came:?}"
                );
                let near = usage(&pair.near).await.upstream.expect("a side");
                assert!(
                    near.packets_sent >= far.packets_received,
                    "{near:?} {far:?}"
                );
                assert!(
                    came.packets_received > before && far.reads > 0,
                    "{far:?} {came:?}"
                );
                before = came.packets_received;
            }
        });
    }
}

#[test]
fn clients_that_have_left_are_in_the_figures_as_soon_as_somebody_asks() {
    for way in [Transport::Http, Transport::Http2, Transport::Ws] {
        let stack = Stack::start("ttft=2ms,gap=1ms");
        run(async {
            let mut before = 0;
            for number in 1..=3 {
                let channel = stack.channel(way);
                let (trace, body) = (trace(number), create("hello", 20));
                let asked = (way, Encoding::Events);
                let seen = stack::exchange(&channel, asked, trace, &body, &[]).await;
                assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete));
                let mut writes = stack.record(trace).await.out_token;
                writes.dedup();
                drop(channel);
                let first = usage(&stack).await.door.expect("a side");
                let told = first.writes - before;
                assert!(
                    told >= writes.len() as u64,
                    "{way}: {told} of {}",
                    writes.len()
                );
                let second = usage(&stack).await.door.expect("a side");
                assert_eq!(first, second, "{way}: nothing was left to be told");
                before = second.writes;
            }
        });
    }
}

/// A figure of the sockets on one side.
async fn of_sockets(stack: &Stack, side: &str, name: &str) -> u64 {
    let series = format!("tokenlag_socket_{name}{{side=\"{side}\"}} ");
    let metrics = get(stack.addresses.admin, "/metrics").await.1;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(&series));
    value.expect(name).parse().unwrap()
}

#[test]
fn what_sockets_did_below_their_bytes_is_told_alike_in_metrics_and_usage() {
    let stack = Stack::start("ttft=2ms,gap=1ms");
    run(async {
        assert_eq!(of_sockets(&stack, "door", "writes_total").await, 0);
        let channel = stack.channel(Transport::Http);
        let (trace, body) = (trace(1), create("hello", 50));
        let asked = (Transport::Http, Encoding::Events);
        let seen = stack::exchange(&channel, asked, trace, &body, &[]).await;
        assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete));
        stack.record(trace).await;
        drop(channel);
        let usage = usage(&stack).await;
        let (door, upstream) = (usage.door.expect("a side"), usage.upstream.expect("a side"));
        for (side, counts) in [("door", door), ("upstream", upstream)] {
            for (name, count) in [
                ("reads_total", counts.reads),
                ("writes_total", counts.writes),
                ("packets_sent_total", counts.packets_sent),
                ("packets_received_total", counts.packets_received),
                ("packets_retransmitted_total", counts.packets_retransmitted),
                ("packets_lost_total", 0),
                ("congestion_events_total", 0),
                ("unsent_bytes_count", counts.unsent.samples()),
                ("queued_bytes_count", counts.queued.samples()),
                ("congestion_window_bytes_count", counts.windows.samples()),
            ] {
                assert_eq!(of_sockets(&stack, side, name).await, count, "{side} {name}");
            }
            assert!(counts.packets_sent > 0 && counts.packets_received > 0);
            assert!(counts.windows.samples() > 0, "{side}");
        }
    });
}
