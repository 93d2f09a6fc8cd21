//! Where the saving comes from: what transport gave and what state gave, for each channel that ran in both states.

use crate::report::{Report, Saving};
use crate::row::{Encoding, Row, State};
use crate::stats::Change;

use super::Style;
use super::change_cell::{UNCERTAIN, change_cell};
use super::compare::COMPARED;
use super::grid::{Cell, Grid, fitting};
use super::wrap::wrapped;

/// One factor of the saving, or all of them.
#[derive(Clone, Copy)]
enum Step {
    Transport,
    Encoding,
    State,
    Total,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Encoding => "encoding",
            Self::State => "state",
            Self::Total => "total",
        }
    }

    /// `None` where the channel has no such step.
    fn of(self, saving: &Saving) -> Option<&Change> {
        match self {
            Self::Transport => Some(&saving.transport).filter(|_| !is_own_channel(saving)),
            Self::Encoding => saving.compact.as_ref(),
            Self::State => Some(&saving.state),
            Self::Total => Some(&saving.total),
        }
    }
}

/// The steps of channels with the API's own events, and of those with compact frames.
const STEPS: [(Encoding, &[Step]); 2] = [
    (
        Encoding::Events,
        &[Step::Transport, Step::State, Step::Total],
    ),
    (
        Encoding::Compact,
        &[Step::Transport, Step::Encoding, Step::State, Step::Total],
    ),
];

/// The section; `None` where no channel ran in both states.
pub(super) fn savings(report: &Report, style: Style) -> Option<String> {
    let mut baselines: Vec<&str> = report.savings.iter().map(|s| s.baseline.as_str()).collect();
    baselines.dedup();
    let width = style.columns();
    let mut tables = Vec::new();
    for (baseline, (encoding, steps)) in baselines
        .into_iter()
        .flat_map(|baseline| STEPS.map(|steps| (baseline, steps)))
    {
        let is_here = |saving: &&Saving| saving.baseline == baseline && saving.encoding == encoding;
        let savings: Vec<&Saving> = report.savings.iter().filter(is_here).collect();
        if savings.is_empty() {
            continue;
        }
        let what = match encoding {
            Encoding::Events => "Where the saving comes from",
            Encoding::Compact => "And with compact frames",
        };
        let title = format!("{what}: p50 against {baseline} in % [95 % interval]");
        let table = fitting(steps, width, style.colour, &|steps| grid(&savings, steps));
        tables.push(wrapped(&title, width, "") + &table);
    }
    if tables.is_empty() {
        return None;
    }
    let has_compact = report.savings.iter().any(|saving| saving.compact.is_some());
    let encoding = match has_compact {
        true => "; encoding: compact frames against events, both full",
        false => "",
    };
    let how = format!(
        "transport: the channel's full row against the baseline{encoding}; state: its incremental row against its full \
         one; total: all of it, the product of the ratios"
    );
    Some(tables.join("\n") + &wrapped(&how, width, "  ") + UNCERTAIN)
}

fn grid(savings: &[&Saving], steps: &[Step]) -> Grid {
    let mut grid = Grid::default();
    for (metric, name, _) in COMPARED {
        let mut of_metric = savings.iter().filter(|s| s.metric == metric).peekable();
        if of_metric.peek().is_none() {
            continue;
        }
        let mut heading: Vec<Cell> = vec![name.into()];
        heading.extend(steps.iter().map(|step| Cell::from(step.name())));
        grid.row(heading);
        grid.rule();
        for saving in of_metric {
            let mut cells: Vec<Cell> = vec![channel(saving).into()];
            let changes = steps.iter().map(|step| step.of(saving));
            cells.extend(changes.map(|change| match change {
                Some(change) => change_cell(change, false),
                None => "-".into(),
            }));
            grid.row(cells);
        }
    }
    grid
}

fn channel(saving: &Saving) -> String {
    match saving.encoding {
        Encoding::Events => saving.channel.to_string(),
        Encoding::Compact => format!("{}/{}", saving.channel, saving.encoding),
    }
}

/// The baseline itself is the channel's full row: then all that it gains is state's.
fn is_own_channel(saving: &Saving) -> bool {
    saving.baseline == Row::events(saving.channel, State::Full).to_string()
}
