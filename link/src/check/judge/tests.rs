//! What is good, what is not, and what cannot be told.

use super::super::own::Lateness;
use super::*;

#[test]
fn quantiles_are_values_that_were_there() {
    assert_eq!(quantile(&[], 0.5), None);
    assert_eq!(quantile(&[3, 1, 2], 0.5), Some(2));
    assert_eq!(quantile(&[3, 1, 2], 0.99), Some(3));
    assert_eq!(middle_and_slow(&[5; 20]), Some((5, "p90", 5)));
    assert_eq!(middle_and_slow(&[5; 100]), Some((5, "p99", 5)));
}

fn judged(spec: &str, judge: impl FnOnce(&mut Judge<'_>)) -> Vec<Finding> {
    let spec = LinkSpec::parse(spec).unwrap();
    let mut of_spec = Judge {
        spec: &spec,
        findings: Vec::new(),
        overflow: 0,
        alike: Alike::default(),
    };
    judge(&mut of_spec);
    of_spec.findings
}

#[test]
fn one_slow_echo_is_borne_and_many_are_not() {
    let took = |slow: usize| Ok([vec![40_100_000; 200 - slow], vec![49_000_000; slow]].concat());
    for (slow, good) in [(2, true), (3, false)] {
        let found = judged("rtt=40ms", |judge| {
            judge.echoes("TCP echo", &took(slow), &Ok(vec![30_000; 100]));
        });
        assert_eq!(found[0].good, Some(good), "{found:?}");
        assert!(
            found[0].found.contains("without the link 0.030 ms"),
            "{found:?}"
        );
    }
    let busy = judged("rtt=40ms", |judge| {
        judge.echoes("TCP echo", &took(9), &Ok(vec![9_000_000; 100]));
    });
    assert!(busy[0].found.contains("late by itself"), "{busy:?}");
    // What was lost comes a timeout later.
    let lossy = judged("rtt=40ms,loss=1%", |judge| {
        judge.echoes("TCP echo", &took(5), &Err(io::ErrorKind::TimedOut.into()));
    });
    assert_eq!(lossy[0].good, Some(true), "{lossy:?}");
}

#[test]
fn a_full_receive_buffer_is_no_fault_of_the_link() {
    let flood = Flood {
        sent: 10_000,
        offered: 125e6,
        received: 7_000,
        no_room: 1_000,
        rate: 100e6,
    };
    let spec = LinkSpec::parse("rate=100mbit").unwrap();
    let full = judged("rate=100mbit", |judge| {
        judge.udp("up", &spec.up, 100_000_000, &Ok(flood));
    });
    assert_eq!(full[0].good, Some(true));
    assert!(
        full[0].found.contains("1000 came to a full receive buffer"),
        "{full:?}"
    );
    // A sender that sends less than the line takes shows nothing of it.
    let weak = Flood {
        offered: 90e6,
        rate: 80e6,
        ..flood
    };
    let found = judged("rate=100mbit", |judge| {
        judge.udp("up", &spec.up, 100_000_000, &Ok(weak));
    });
    assert_eq!(found[0].good, None, "{found:?}");
    assert!(
        found[0].found.contains("only 90.0 Mbit/s could be sent"),
        "{found:?}"
    );
}

#[test]
fn a_release_that_nothing_waited_for_is_not_judged() {
    let found = judged("rtt=0", |judge| {
        judge.release(
            100,
            &LinkStats::default(),
            &Err(io::ErrorKind::Other.into()),
        );
    });
    assert_eq!(found[0].good, None);
    let mut late = LinkStats::default();
    late.released(300_000);
    let own = |nanos: u64| {
        let mut there = LinkStats::default().release_error;
        there.saturating_record(nanos);
        Ok(Lateness {
            woken: there.clone(),
            there,
        })
    };
    for (nanos, is_told) in [(1_000, false), (250_000, true)] {
        let found = judged("rtt=1ms", |judge| judge.release(100, &late, &own(nanos)));
        assert_eq!(found[0].good, Some(false));
        assert_eq!(
            found[0].found.contains("late by itself"),
            is_told,
            "{found:?}"
        );
        assert!(found[1].what.contains("this machine's own"));
    }
}

#[test]
fn tcp_and_udp_are_to_be_treated_alike() {
    let check = |tcp: u64, udp: u64, lost: [u64; 2], good| {
        let found = judged("rtt=40ms,loss=1%", |judge| {
            judge.alike.echoes("TCP echo", &[tcp; 50]);
            judge.alike.echoes("UDP echo", &[udp; 50]);
            for (protocol, lost) in ["TCP", "UDP"].into_iter().zip(lost) {
                let mut stats = LinkStats::default();
                (stats.up.packets.tcp, stats.up.packets.udp) = (1_000, 1_000);
                (stats.up.lost.tcp, stats.up.lost.udp) = (lost, lost);
                judge.loss(protocol, &stats);
            }
            judge.alike();
        });
        let alike = found.last().unwrap();
        assert_eq!(alike.good, good, "{found:?}");
        assert!(
            alike
                .found
                .contains(&format!("lost {} of 1000 and {} of 1000", lost[0], lost[1])),
            "{found:?}"
        );
    };
    check(40_100_000, 40_050_000, [9, 12], Some(true));
    check(41_000_000, 40_050_000, [9, 12], Some(false));
    check(40_100_000, 40_050_000, [9, 90], Some(false));
}

#[test]
fn what_the_emulator_dropped_counts_whenever_that_was() {
    let spec = LinkSpec::parse("rtt=1ms").unwrap();
    let mut judge = Judge {
        spec: &spec,
        findings: Vec::new(),
        overflow: 0,
        alike: Alike::default(),
    };
    let mut stats = LinkStats::default();
    stats.down.overflow = 3;
    judge.dropped(&stats);
    judge.loss("TCP", &stats);
    let findings = judge.finish(Some(1));
    let dropped = findings.last().unwrap();
    assert_eq!((&*dropped.found, dropped.good), ("7", Some(false)));
}
