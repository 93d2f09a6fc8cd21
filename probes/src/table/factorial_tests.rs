//! Golden files of a comparison of channels in both states, at 80 and at 100 columns; written like those beside.

use super::tests::{check, plain, sketch};
use super::*;
use crate::conditions::{CertificateSource, Conditions, StateAt};
use crate::report::Report;
use crate::row::{Encoding, Row, State, Transport};
use crate::samples::run;

/// Channels in both states, compact frames and a pair among them; the conditions are known.
fn factorial() -> Report {
    use Transport::{Http, Http3, HttpCold, PairQuic, Quic, Ws};
    let mut rows = Vec::new();
    for (at, transport) in (0..).zip([HttpCold, Http, Http3, Ws, Quic, PairQuic]) {
        let request = 700 - 80 * at;
        for (state, off) in [(State::Full, 0), (State::Incremental, 60)] {
            let row = Row::events(transport, state);
            rows.push(sketch(row, request - off, 60 - 4 * at));
            if transport.has_encoding(Encoding::Compact) {
                let encoding = Encoding::Compact;
                rows.push(sketch(Row { encoding, ..row }, request - off - 10, 28));
            }
        }
    }
    rows.sort_by_key(|sketch| sketch.row);
    let (mut record, recorders) = run(&rows, 2);
    record.conditions = Conditions {
        tls: Some(false),
        certificate: Some(CertificateSource::SelfSigned),
        resumption: Some(true),
        zero_rtt: Some(false),
        state_at: Some(StateAt::Proxy),
        multiplex: Some(false),
        tokens_per_second: None,
        nagle: None,
        stamp: None,
        link: None,
        tcp_congestion_control: Some("bbr".to_owned()),
        client_tcp_congestion_control: None,
        quic_congestion_control: Some("cubic".to_owned()),
    };
    for cell in &mut record.cells {
        let counters = &mut cell.counters;
        let transport = cell.row.transport;
        // In clear there is no handshake to count.
        let encrypted = transport.is_encrypted_always();
        counters.handshakes_made = encrypted.then_some(4);
        counters.handshakes_resumed = encrypted.then_some(3);
        if transport == HttpCold {
            (counters.channel_bytes_sent, counters.channel_bytes_received) = (None, None);
        }
    }
    let mut report = Report::build(&record, &recorders);
    report.verdict = Verdict {
        trusted: true,
        warnings: Vec::new(),
    };
    // The samples' noise hits all rows alike; these intervals are by hand.
    for saving in &mut report.savings {
        let steps = [&mut saving.transport, &mut saving.state, &mut saving.total];
        for step in steps.into_iter().chain(saving.compact.as_mut()) {
            let share = step.change.unwrap();
            (step.low, step.high) = (Some(share - 0.121), Some(share + 0.117));
        }
    }
    report
}

#[test]
fn a_factorial_says_where_its_saving_comes_from_at_100_columns() {
    check("factorial-100.txt", 100, &compare(&factorial(), plain(100)));
}

#[test]
fn a_factorial_says_where_its_saving_comes_from_at_80_columns() {
    check("factorial-80.txt", 80, &compare(&factorial(), plain(80)));
}

#[test]
fn a_channel_in_one_state_has_nothing_to_split() {
    let mut report = factorial();
    let text = compare(&report, plain(80));
    assert_eq!(text.matches("Where the saving comes from").count(), 2);
    assert_eq!(text.matches("And with compact frames").count(), 2);
    report.savings.clear();
    assert!(!compare(&report, plain(80)).contains("Where the saving comes from"));
}

#[test]
fn a_pair_whose_leg_was_not_counted_says_so() {
    let mut report = factorial();
    let mut pairs = report.channels.iter_mut().filter(|row| !row.leg.is_empty());
    let first = pairs.next().unwrap();
    first.leg.clear();
    let others = pairs.count();
    let text = compare(&report, plain(200));
    let lines = text.matches("\n  sidecar to sidecar ").count();
    assert_eq!(lines, others);
    assert!(text.contains("neither contains the other"), "{text}");
    assert!(text.contains("pairs with one line: "), "{text}");
    for row in &mut report.channels {
        row.leg.clear();
    }
    let text = compare(&report, plain(200));
    assert!(!text.contains("sidecar to sidecar"), "{text}");
    assert!(
        text.contains("what went between the sidecars was"),
        "{text}"
    );
}
