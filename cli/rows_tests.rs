//! Which rows are chosen, and which refused.

use super::*;

const NOTHING: Wanted<'_> = Wanted {
    channels: &[],
    states: &[],
    encodings: &[],
    baselines: &[],
    direct: false,
    quick: false,
    state_at: None,
};

fn names(wanted: Wanted<'_>) -> String {
    let rows = select(&wanted).unwrap();
    let names: Vec<String> = rows.iter().map(Row::to_string).collect();
    names.join(" ")
}

#[test]
fn what_is_named_is_what_runs() {
    use State::{Full, Incremental};
    use Transport::{Http, Ws};
    assert_eq!(
        names(Wanted {
            direct: true,
            ..NOTHING
        }),
        "direct/full http-cold/full http/full http/incremental http2/full http2/incremental http3/full \
         http3/incremental ws/full ws/incremental quic/full quic/incremental"
    );
    assert_eq!(
        names(Wanted {
            channels: &[Ws, Http],
            direct: true,
            ..NOTHING
        }),
        "direct/full http/full http/incremental ws/full ws/incremental"
    );
    assert_eq!(
        names(Wanted {
            states: &[Incremental],
            ..NOTHING
        }),
        "http/incremental http2/incremental http3/incremental ws/incremental quic/incremental"
    );
    assert_eq!(
        names(Wanted {
            channels: &[Transport::HttpCold],
            states: &[Incremental],
            ..NOTHING
        }),
        "http-cold/incremental"
    );
    let cold = ["http-cold/full".parse().unwrap()];
    assert_eq!(
        names(Wanted {
            channels: &[Ws],
            states: &[Full],
            baselines: &cold,
            ..NOTHING
        }),
        "http-cold/full ws/full"
    );
}

#[test]
fn a_quick_comparison_has_fewer_rows_unless_some_are_named() {
    let quick = Wanted {
        quick: true,
        ..NOTHING
    };
    assert_eq!(
        names(quick),
        "http-cold/full http/full ws/full ws/incremental quic/full quic/incremental"
    );
    assert_eq!(
        names(Wanted {
            channels: &[Transport::Http2],
            ..quick
        }),
        "http2/full http2/incremental"
    );
}

#[test]
fn encodings_are_crossed_where_the_channel_has_them() {
    use Encoding::{Compact, Events};
    use Transport::{Http, PairQuic, Quic};
    let full = Wanted {
        states: &[State::Full],
        ..NOTHING
    };
    assert_eq!(
        names(Wanted {
            channels: &[Http, Quic, PairQuic],
            encodings: &[Events, Compact],
            ..full
        }),
        "http/full quic/full quic/full/compact pair-quic/full pair-quic/full/compact"
    );
    assert_eq!(
        names(Wanted {
            channels: &[Http, Quic],
            encodings: &[Compact],
            ..full
        }),
        "http/full quic/full/compact"
    );
    let none = select(&Wanted {
        channels: &[Http],
        encodings: &[Compact],
        ..full
    });
    assert!(none.unwrap_err().contains("only quic"));
    let baselines = ["http/full/compact".parse().unwrap()];
    let none = select(&Wanted {
        baselines: &baselines,
        ..full
    });
    assert!(
        none.unwrap_err()
            .starts_with("http/full/compact: only quic")
    );
}

#[test]
fn the_control_has_a_state_only_where_the_backend_keeps_it() {
    let named = Wanted {
        channels: &[Transport::Direct],
        states: &[State::Full, State::Incremental],
        direct: true,
        ..NOTHING
    };
    let refused = select(&named).unwrap_err();
    assert!(refused.starts_with("direct/incremental: "), "{refused}");
    assert!(refused.contains("--state-at upstream"), "{refused}");
    assert_eq!(
        names(Wanted {
            state_at: Some(StateAt::Upstream),
            ..named
        }),
        "direct/full direct/incremental"
    );
    assert_eq!(
        names(Wanted {
            states: &[],
            ..named
        }),
        "direct/full"
    );
    assert!(
        select(&Wanted {
            direct: false,
            states: &[],
            ..named
        })
        .is_err()
    );
}

#[test]
fn row_names_read_back() {
    for name in ["http/full", "quic/incremental/compact"] {
        assert_eq!(name.parse::<RowName>().unwrap().0.to_string(), name);
    }
    let error = "http/fulll".parse::<RowName>().unwrap_err();
    assert_eq!(error, "unknown state 'fulll'; known: full, incremental");
    assert!("http".parse::<RowName>().is_err());
}

#[test]
fn the_first_row_is_the_baseline_where_neither_of_the_usual_ones_runs() {
    let check = |rows: &[&str], named: &[&str], expected: &[&str]| {
        let read = |names: &[&str]| -> Vec<RowName> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        let rows: Vec<Row> = read(rows).iter().map(|name| name.0).collect();
        let found = baselines(&read(named), &rows);
        let found: Vec<String> = found.iter().map(Row::to_string).collect();
        assert_eq!(found, expected, "{rows:?}");
    };
    let usual = ["http-cold/full", "http/full"];
    check(
        &["direct/full", "quic/full", "quic/full/compact"],
        &[],
        &["quic/full"],
    );
    check(&["http/full", "ws/full"], &[], &usual);
    check(&["http/incremental", "ws/full"], &[], &["http/incremental"]);
    check(&["direct/full"], &[], &usual);
    check(&["http/full", "ws/full"], &["ws/full"], &["ws/full"]);
}
