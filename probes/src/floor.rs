//! What physics leaves on the link of a run: one value for all rows, and the overheads less that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bootstrap::estimate;
use crate::metric::Metric;
use crate::record::RunRecord;
use crate::row::{Row, names};
use crate::stats::{Blocks, Change, Statistic, Withheld};

/// What physics leaves on the link of a run: one value for all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// One round trip, in nanoseconds: no warm channel answers sooner.
    pub round_trip_ns: u64,
    /// One way down, in nanoseconds: no delta arrives sooner.
    pub downlink_ns: u64,
    /// Where the values come from.
    pub source: FloorSource,
}

/// Where a floor's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloorSource {
    /// The emulated link's settings.
    Link,
    /// The shortest of many TCP connections that were made to the proxy before the run, from SYN to SYN-ACK; half of it is
    /// taken for the way down.
    Connect,
}

names!(
    FloorSource, "source of a floor", "link, connect",
    FloorSource::Link => "link",
    FloorSource::Connect => "connect",
);

impl Floor {
    /// The floor of an emulated link with so long a round trip, and so long a way down.
    pub fn of_link(round_trip: Duration, down: Duration) -> Self {
        Self {
            round_trip_ns: nanos(round_trip),
            downlink_ns: nanos(down),
            source: FloorSource::Link,
        }
    }

    /// The floor where connecting took so long at the least.
    pub fn of_connect(shortest: Duration) -> Self {
        Self {
            round_trip_ns: nanos(shortest),
            downlink_ns: nanos(shortest) / 2,
            source: FloorSource::Connect,
        }
    }

    /// The floor under an overhead, or under a leg other than the model's, on a warm channel; `None` for other figures.
    pub fn under(&self, metric: Metric) -> Option<u64> {
        match metric {
            Metric::FirstTokenOverhead | Metric::RoundtripOverhead => Some(self.round_trip_ns),
            Metric::TokenOverhead | Metric::Delivery => Some(self.downlink_ns),
            Metric::RequestTransfer => Some(self.round_trip_ns.saturating_sub(self.downlink_ns)),
            Metric::Setup | Metric::ProxyRequest | Metric::ProxyToken => Some(0),
            _ => None,
        }
    }

    /// The link is emulated: its settings are known, and it is as long as somebody wanted it.
    pub fn is_of_a_link(&self) -> bool {
        self.source == FloorSource::Link
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl RunRecord {
    /// How a row's overhead less its floor differs from a baseline's; `None` where there is no floor under it.
    ///
    /// There is no ratio where the 95 % interval of the baseline's own net figure, over the blocks that both have, reaches zero,
    /// or the figure itself does where one block has no interval: a share of nothing says nothing.
    pub fn net_change_of(
        &self,
        row: Row,
        baseline: Row,
        metric: Metric,
        statistic: Statistic,
    ) -> Option<Change> {
        let floor = self.floor.as_ref()?.under(metric)?;
        let net = |row: Row| less(self.blocks_of(row, metric), floor);
        let (ours, theirs) = (net(row), net(baseline));
        let change = self.compared(&ours, &theirs, metric, statistic);
        let compared = theirs.iter().filter(|(block, _)| ours.contains_key(block));
        let values: Vec<f64> = compared
            .map(|(_, figure)| figure.statistic(statistic))
            .collect();
        let theirs = estimate(&values, self.seeds.bootstrap);
        let reaches_zero = theirs.is_some_and(|net| net.low.unwrap_or(net.mean) <= 0.0);
        Some(match change.withheld {
            None if reaches_zero => change.without_ratio(Withheld::Floor),
            _ => change,
        })
    }
}

/// The same figures, each less `floor` nanoseconds.
fn less(mut blocks: Blocks, floor: u64) -> Blocks {
    let whole = i64::try_from(floor).unwrap_or(i64::MAX);
    for figure in blocks.values_mut() {
        figure.mean -= floor as f64;
        for value in [
            &mut figure.p50,
            &mut figure.p99,
            &mut figure.min,
            &mut figure.max,
        ] {
            *value = value.saturating_sub(whole);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{State, Transport};
    use crate::samples::{RowSketch, run};

    const WS: Row = Row::events(Transport::Ws, State::Incremental);

    #[test]
    fn the_floor_lies_under_overheads_and_the_legs_of_the_wire() {
        let floor = Floor::of_link(Duration::from_nanos(40), Duration::from_nanos(15));
        for (metric, under) in [
            (Metric::RoundtripOverhead, Some(40)),
            (Metric::FirstTokenOverhead, Some(40)),
            (Metric::TokenOverhead, Some(15)),
            (Metric::RequestTransfer, Some(25)),
            (Metric::Delivery, Some(15)),
            (Metric::Setup, Some(0)),
            (Metric::ModelTtft, None),
            (Metric::Ttft, None),
        ] {
            assert_eq!(floor.under(metric), under, "{metric}");
        }
        let measured = Floor::of_connect(Duration::from_nanos(41));
        assert_eq!((measured.round_trip_ns, measured.downlink_ns), (41, 20));
        assert!(floor.is_of_a_link() && !measured.is_of_a_link());
    }

    #[test]
    fn a_floors_source_has_one_name_in_json_and_in_text() {
        for source in [FloorSource::Link, FloorSource::Connect] {
            let json = serde_json::to_value(source).unwrap();
            assert_eq!(json, source.to_string());
            assert_eq!(source.to_string().parse(), Ok(source));
        }
    }

    /// Two rows whose deltas are 60 and 30 us late in each of so many blocks, over a link whose way down takes `down` us.
    #[track_caller]
    fn check(down: u64, blocks: u32, share: Option<f64>, withheld: Option<Withheld>) {
        let sketch = |row, delta| RowSketch {
            row,
            request: 100,
            delta,
            model: (5_000, 1_000),
        };
        let (mut record, _) = run(&[sketch(Row::HTTP_FULL, 60), sketch(WS, 30)], blocks);
        let net = |record: &RunRecord| {
            record.net_change_of(WS, Row::HTTP_FULL, Metric::TokenOverhead, Statistic::P50)
        };
        assert_eq!(net(&record), None);
        let down = Duration::from_micros(down);
        record.floor = Some(Floor::of_link(down * 2, down));
        let change = net(&record).unwrap();
        assert_eq!(change.withheld, withheld, "{change:?}");
        match share {
            Some(share) => assert!((change.change.unwrap() - share).abs() < 0.03, "{change:?}"),
            None => assert_eq!(change.change, None),
        }
        // What is subtracted from both is not in the difference.
        let difference = change.difference.unwrap().mean_ns;
        assert!((difference + 30_000.0).abs() < 2_000.0, "{change:?}");
        let ttft = record.net_change_of(WS, Row::HTTP_FULL, Metric::Ttft, Statistic::P50);
        assert_eq!(ttft, None);
    }

    #[test]
    fn a_net_change_has_a_ratio_where_the_baseline_stands_above_its_floor() {
        check(20, 24, Some(-0.75), None);
        // Of the row itself nothing is left: its logarithm is missing, and nothing is withheld.
        check(40, 24, None, None);
        check(70, 24, None, Some(Withheld::Floor));
    }

    #[test]
    fn in_a_single_block_the_baselines_own_figure_decides() {
        check(20, 1, Some(-0.75), None);
        check(70, 1, None, Some(Withheld::Floor));
    }
}
