//! A change as a cell: its share or its time with the 95 % interval, marked and coloured by what it says.

use crate::stats::Change;

use super::grid::Cell;
use super::quantity::{TimeUnit, percent};

const BETTER: &str = "\x1b[32m";
const WORSE: &str = "\x1b[31m";
const FAINT: &str = "\x1b[2m";

/// What stands under a table of such cells.
pub(super) const UNCERTAIN: &str = "~ not distinguishable from zero\n";

/// The share in percent; or the difference as a time, where that is asked for or there is no share.
pub(super) fn change_cell(change: &Change, as_time: bool) -> Cell {
    let towards = match (as_time, change.change, change.difference) {
        (false, Some(share), _) => share,
        (_, _, difference) => difference.map_or(0.0, |difference| difference.mean_ns),
    };
    let (text, distinguishable) = match change.change.filter(|_| !as_time) {
        Some(share) => (share_text(share, change), change.is_distinguishable()),
        None => time_text(change),
    };
    let mark = if distinguishable { "" } else { "~" };
    let colour = match distinguishable {
        false => FAINT,
        true if towards > 0.0 => WORSE,
        true => BETTER,
    };
    Cell::from(text + mark).coloured(colour)
}

fn share_text(share: f64, change: &Change) -> String {
    match change.low.zip(change.high) {
        Some((low, high)) => format!("{} [{} {}]", percent(share), percent(low), percent(high)),
        None => format!("{} (1 block)", percent(share)),
    }
}

/// The difference as a time, and whether its interval excludes zero.
fn time_text(change: &Change) -> (String, bool) {
    let Some(difference) = change.difference else {
        return ("-".to_owned(), false);
    };
    let unit = TimeUnit::for_values([difference.mean_ns]);
    let mean = unit.show_signed(difference.mean_ns);
    match difference.low_ns.zip(difference.high_ns) {
        Some((low, high)) => (
            format!(
                "{mean} [{} {}] {}",
                unit.show_signed(low),
                unit.show_signed(high),
                unit.name()
            ),
            low > 0.0 || high < 0.0,
        ),
        None => (format!("{mean} {} (1 block)", unit.name()), false),
    }
}
