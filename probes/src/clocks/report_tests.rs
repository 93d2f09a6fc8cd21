use super::*;
use crate::lateness::Lateness;
use crate::metric::Metric;
use crate::precision::Until;
use crate::record::RunRecord;
use crate::recorder::{Recorder, Tallies};
use crate::report::{Recorders, Report};
use crate::row::{Row, State, Transport};
use crate::samples::{RowSketch, at, run};
use crate::stats::{Statistic, Withheld};
use crate::table::{self, Style};

const WS: Row = Row::events(Transport::Ws, State::Full);
const WS_INCREMENTAL: Row = Row::events(Transport::Ws, State::Incremental);

/// A run of 20 blocks, and the same with a clock at the proxy that is two seconds behind, known to 10 us.
fn on_one_and_on_two() -> [(RunRecord, Recorders); 2] {
    let sketch = |row, delta| RowSketch {
        row,
        request: 300,
        delta,
        model: (5_000, 1_000),
    };
    let rows = [
        sketch(Row::HTTP_FULL, 100),
        sketch(WS, 60),
        sketch(WS_INCREMENTAL, 50),
    ];
    let one = run(&rows, 20);
    let mut two = one.clone();
    let batch = |second: u64| {
        let sent = second * 1_000_000_000;
        let there = at(sent + 10_000).moved_by(-2_000_000_000);
        ClockBatch {
            round_trips: 16,
            fastest: RoundTrip {
                sent: at(sent),
                received: there,
                replied: there,
                arrived: at(sent + 20_000),
            },
        }
    };
    two.0.clocks = Some(ClockRecord {
        ours: None,
        theirs: None,
        started: at(5_000_000_000),
        batches: (5..9).map(batch).collect(),
    });
    [one, two]
}

#[test]
fn the_way_of_a_token_is_known_as_well_as_the_two_clocks() {
    let sums = Lateness {
        deltas: 4,
        proxy_ns: 40_000,
        way_ns: 120_000,
        handled: 4,
        ..Lateness::default()
    };
    let style = Style {
        legs: true,
        ..Style::default()
    };
    let [one, two] = on_one_and_on_two().map(|(record, mut recorders)| {
        for recorder in recorders.values_mut() {
            *recorder = Recorder::new();
            recorder.restore_tallies(&Tallies {
                lateness: sums,
                ..Tallies::default()
            });
        }
        let report = Report::build(&record, &recorders);
        let split = report.channels[0].token_lateness.clone().unwrap();
        (split.uncertainty_ns, table::compare(&report, style))
    });
    let note = "over two clocks that are known to 10.0 us";
    assert_eq!(one.0, None);
    assert!(!one.1.contains("over two clocks"), "{}", one.1);
    assert_eq!(two.0, Some(10_000));
    let told = two.1.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(note), "{}", two.1);
}

#[test]
fn two_clocks_leave_differences_and_withhold_ratios_of_one_way_figures_alone() {
    let [one, two] =
        on_one_and_on_two().map(|(record, recorders)| Report::build(&record, &recorders));
    assert_eq!(one.clocks, None);
    let clocks = two.clocks.as_ref().unwrap();
    assert_eq!(
        (clocks.offset_ns, clocks.uncertainty_ns),
        (-2_000_000_000, 10_000)
    );
    let baseline = Row::HTTP_FULL.to_string();
    for (ours, theirs) in one.channels.iter().zip(&two.channels).skip(1) {
        assert_eq!(ours.metrics, theirs.metrics, "the report moves nothing");
        assert!(ours.uncertainty_ns.is_empty());
        let with_bounds: Vec<Metric> = theirs.uncertainty_ns.keys().copied().collect();
        let one_way = Metric::ALL.into_iter().filter(|metric| metric.is_one_way());
        assert_eq!(with_bounds, one_way.collect::<Vec<_>>());
        assert!(theirs.uncertainty_ns.values().all(|nanos| *nanos == 10_000));
        for metric in [
            Metric::RoundtripOverhead,
            Metric::FirstTokenOverhead,
            Metric::Ttft,
        ] {
            let change = |row: &crate::report::RowReport| {
                row.versus(&baseline, metric, Statistic::P50)
                    .cloned()
                    .unwrap()
            };
            assert_eq!(change(ours), change(theirs), "{metric}");
        }
        let change = |row: &crate::report::RowReport| {
            let found = row.versus(&baseline, Metric::TokenOverhead, Statistic::P50);
            found.cloned().unwrap()
        };
        let (ours, theirs) = (change(ours), change(theirs));
        assert!(ours.change.is_some() && ours.withheld.is_none());
        assert_eq!((theirs.change, theirs.low, theirs.high), (None, None, None));
        assert_eq!(theirs.withheld, Some(Withheld::Clocks));
        assert_eq!(theirs.difference, ours.difference);
    }
    let split = |report: &Report, metric| {
        let found = report.savings.iter().find(|saving| saving.metric == metric);
        found.unwrap().total.change
    };
    assert!(split(&one, Metric::TokenOverhead).is_some());
    assert_eq!(split(&two, Metric::TokenOverhead), None);
    assert_eq!(split(&two, Metric::Ttft), split(&one, Metric::Ttft));

    let json = serde_json::to_string(&two).unwrap();
    assert!(json.contains(r#""withheld":"clocks""#), "{json}");
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), two);
    let shown = table::compare(&two, Style::default());
    let line = "Clocks: the proxy's is 2.000000 s behind ours";
    assert!(shown.contains(line), "{shown}");
    assert!(!table::compare(&one, Style::default()).contains("Clocks:"));
}

#[test]
fn a_run_does_not_go_on_for_a_ratio_that_is_never_given() {
    let [one, two] = on_one_and_on_two().map(|(mut record, recorders)| {
        record.until = Some(Until {
            half_width: 10.0,
            fewest_blocks: 20,
        });
        Report::build(&record, &recorders).precision.unwrap()
    });
    assert!(one.reached && two.reached, "{two:?}");
    assert!(two.widest.unwrap().half_width.is_some());
}
