//! Where a token's lateness goes, in the mean: the proxy, both kernels and the link, the wakeup, the runtime, the decoder.

use crate::report::{Merged, Report, RowReport, TokenLateness};

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
        "sidecar",
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
            parts.sidecar_ns.map_or("-".into(), show),
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
    let width = style.columns();
    let mut notes = String::new();
    let mut note = |text: &str| notes.push_str(&wrapped(text, width, "  "));
    if found().any(|it| it.wakeup_ns.is_none()) {
        note("wakeup: within kernel, link; --stamp kernel shows it apart");
    }
    let of_sidecar = |it: &TokenLateness| it.merged.contains(&Merged::SidecarInKernelAndLink);
    if found().any(of_sidecar) {
        note(
            "sidecar: of some tokens its records are missing, and their time there is within kernel, link",
        );
    }
    let left_out: u64 = found().map(|it| it.left_out).fold(0, u64::saturating_add);
    if left_out > 0 {
        note(&format!(
            "{left_out} tokens are not in it: how they were handled once they had come was not recorded"
        ));
    }
    let clocks = found().filter_map(|it| it.uncertainty_ns).max();
    let clocks = clocks.map_or_else(String::new, |nanos| {
        let (nanos, unit) = (unit.show(nanos as f64), unit.name());
        let known = format!(
            "kernel, link, and all with it: over two clocks that are known to {nanos} {unit}"
        );
        wrapped(&known, width, "  ")
    });
    Some(wrapped(&title, width, "") + &grid.print(width, style.colour) + &notes + &clocks)
}
