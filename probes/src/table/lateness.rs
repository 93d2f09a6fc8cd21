//! Where a token's lateness goes, in the mean: the proxy, both kernels and the link, the wakeup, the runtime, the decoder.

use crate::report::{Report, RowReport, TokenLateness};

use super::Style;
use super::floor::is_shown;
use super::grid::{Cell, Grid};
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// The section, where the legs of the first token are shown too; `None` where no row has such parts.
pub(super) fn lateness(report: &Report, style: Style) -> Option<String> {
    let has_parts = |row: &&RowReport| row.token_lateness.is_some();
    let rows: Vec<&RowReport> = report.channels.iter().filter(has_parts).collect();
    if !is_shown(report, style) || rows.is_empty() {
        return None;
    }
    let found = || rows.iter().filter_map(|row| row.token_lateness.as_ref());
    let unit = TimeUnit::for_values(found().map(|it| it.mean_ns));
    let mut grid = Grid::default();
    let names = [
        "row",
        "proxy",
        "kernel, link",
        "wakeup",
        "poll",
        "decode",
        "all",
    ];
    grid.row(names.map(Cell::from));
    grid.rule();
    for (row, parts) in rows.iter().zip(found()) {
        let show = |nanos: f64| Cell::from(unit.show(nanos));
        grid.row([
            row.row.to_string().into(),
            show(parts.proxy_ns),
            show(parts.kernel_and_link_ns),
            parts.wakeup_ns.map_or("-".into(), show),
            show(parts.poll_ns),
            show(parts.decode_ns),
            show(parts.mean_ns),
        ]);
    }
    let title = format!(
        "Where the time of a later token goes, from its arrival at the proxy to its mark: means, {}",
        unit.name()
    );
    let is_merged = |it: &TokenLateness| it.wakeup_ns.is_none();
    let merged = match found().any(is_merged) {
        true => wrapped(
            "wakeup: within kernel, link; --stamp kernel shows it apart",
            style.columns(),
            "  ",
        ),
        false => String::new(),
    };
    let width = style.columns();
    let clocks = found().filter_map(|it| it.uncertainty_ns).max();
    let clocks = clocks.map_or_else(String::new, |nanos| {
        let (nanos, unit) = (unit.show(nanos as f64), unit.name());
        let known = format!("kernel, link, and all with it: over two clocks that are known to {nanos} {unit}");
        wrapped(&known, width, "  ")
    });
    Some(wrapped(&title, width, "") + &grid.print(width, style.colour) + &merged + &clocks)
}
