//! The table: one line a cell, way and channel, in milliseconds.

use std::time::Duration;

use tokenlag_probes::{StampSource, TakenWakeups, Transport};
use tokenlag_scripted::Pace;

use crate::aiperf::Reported;
use crate::cell::{Cell, Way};
use crate::cpu::Cores;
use crate::goals;
use crate::tally::Found;
use crate::truth::Spread;
use crate::wanted::Wanted;

/// Minutes of a run without arguments, as measured on two cores.
const WHOLE: u32 = 8;

pub struct Table {
    cores: Cores,
    stamp: StampSource,
    proxied: Vec<String>,
    verdicts: Vec<String>,
    left_out: Vec<String>,
    failed: usize,
}

impl Table {
    pub fn begin(wanted: &Wanted, cores: Cores, pace: Pace) -> Self {
        let stamps = match wanted.stamp {
            StampSource::User => "stamps by the reader",
            StampSource::Kernel => "stamps by the kernel",
        };
        println!(
            "errors against the emission log, in ms; {} cores: generator on {}, proxy on {}, instrument on {}, with {pace}; the proxy dials by {}; {}",
            cores.count, cores.generator, cores.proxy, cores.instrument, wanted.upstream, stamps
        );
        let rows = wanted.rows();
        let spans = rows
            .iter()
            .map(|(way, cell, channel)| cell.span(way.has_raw(*channel)));
        let span: Duration = spans.sum();
        println!(
            "{} cells, {:.1} minutes by their schedules; overloaded ones take longer: a run of everything takes {WHOLE} minutes or so on two \
             cores. Rows come as they are measured; 'raw' is the raw-socket client, in turns with the row above",
            rows.len(),
            span.as_secs_f64() / 60.0
        );
        println!(
            "{:<10} {:<6} {:<9} | {:^31} | {:^23} | {:^15} | {:^23} | {:^14} | {:^14} |",
            "",
            "",
            "",
            "ttft error",
            "gap error",
            "gap p99",
            "instrument late",
            "cores busy",
            "stolen %"
        );
        println!(
            "{:<10} {:<6} {:<9} | {:>7} {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>4} {:>4} {:>4} | {:>4} {:>4} {:>4} | lost",
            "cell",
            "way",
            "channel",
            "mean",
            "p50",
            "p99",
            "max",
            "mean",
            "p99",
            "max",
            "told",
            "true",
            "mean",
            "p99",
            "max",
            "inst",
            "gen",
            "prox",
            "inst",
            "gen",
            "prox"
        );
        Self {
            cores,
            stamp: wanted.stamp,
            proxied: Vec::new(),
            verdicts: Vec::new(),
            left_out: Vec::new(),
            failed: 0,
        }
    }

    /// What tokenlag measured, and beside it the raw-socket client where it took turns.
    pub fn rows(
        &mut self,
        cell: Cell,
        way: Way,
        channel: Transport,
        ours: &Found,
        raw: Option<&Found>,
    ) {
        self.row(cell, way.name(), channel, ours);
        if let Some(raw) = raw {
            self.row(cell, "raw", channel, raw);
            self.verdicts
                .extend(goals::said_of(cell, self.stamp, ours, raw));
        }
    }

    fn row(&mut self, cell: Cell, client: &str, channel: Transport, found: &Found) {
        let errors = &found.errors;
        let name = cell.name();
        let late = found.late;
        print!("{name:<10} {client:<6} {:<9} | ", channel.to_string());
        print!("{} | ", spread(errors.ttft, true));
        print!("{} | ", spread(errors.gap, false));
        print!(
            "{} {} | ",
            ms(errors.gap_measured.p99),
            ms(errors.gap_true.p99)
        );
        print!("{} {} {} | ", ms(late.mean), ms(late.p99), ms(late.max));
        print!(
            "{:>4.2} {:>4.2} {:>4.2} | ",
            found.instrument, found.client, found.proxy
        );
        let Cores {
            instrument,
            generator,
            proxy,
            ..
        } = self.cores;
        let [instrument, generator, proxy] =
            [instrument, generator, proxy].map(|core| found.stolen.percent(core));
        print!("{instrument:>4.1} {generator:>4.1} {proxy:>4.1} | ");
        let overload = if found.overload { " overload" } else { "" };
        let wakeup = wakeup(&found.wakeups);
        let trouble = found.trouble.as_deref().unwrap_or_default();
        let unanswered = match errors.unanswered {
            0 => String::new(),
            count => format!(" {count} unanswered"),
        };
        println!("{}{unanswered}{overload}{wakeup} {trouble}", errors.lost);
        if let Some(proxied) = &errors.proxied {
            self.proxied.push(format!(
                "{name:<10} {:<9} | {} | {} | {} {} | {} {} | {} {} | {}{overload}",
                channel.to_string(),
                spread(proxied.tap, true),
                spread(proxied.late, true),
                ms(proxied.overhead_mean),
                ms(proxied.overhead_p99),
                ms(proxied.model.mean),
                ms(proxied.model.p99),
                ms(proxied.legs),
                "",
                proxied.unjoined,
            ));
        }
    }

    /// A cell for which there is no time left.
    pub fn leave_out(&mut self, cell: Cell, way: Way, channel: Transport) {
        let cell = cell.name();
        self.left_out
            .push(format!("{cell} {} {channel}", way.name()));
    }

    pub fn leave_out_aiperf(&mut self, cell: Cell) {
        self.left_out.push(format!("{} AIPerf", cell.name()));
    }

    /// A cell that `who` could not measure.
    pub fn failed(&mut self, cell: Cell, who: &str, why: &str) {
        self.failed += 1;
        println!("{:<10} {who}: failed: {why}", cell.name());
    }

    pub fn aiperf(&mut self, cell: Cell, reported: &Reported) {
        println!(
            "{:<10} AIPerf, direct, http: ttft error mean {:.3}, p99 {:.3}; gap p99 {:.3}; instrument {}",
            cell.name(),
            reported.ttft_error,
            reported.ttft_error_p99,
            reported.gap_p99,
            reported.late
        );
    }

    /// What only the proxy has, and the goals; how many cells failed.
    pub fn end(&self) -> usize {
        if !self.proxied.is_empty() {
            println!("\nthrough the proxy, in ms");
            println!(
                "{:<20} | {:^31} | {:^31} | {:^15} | {:^15} | {:>7}  |",
                "", "tap lateness", "token - emitted", "token_overhead", "model_ttft", "legs"
            );
            println!(
                "{:<10} {:<9} | {:>7} {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7} {:>7} | {:>7} {:>7} | {:>7} {:>7} | {:>7}  | unjoined",
                "cell",
                "channel",
                "mean",
                "p50",
                "p99",
                "max",
                "mean",
                "p50",
                "p99",
                "max",
                "mean",
                "p99",
                "mean",
                "p99",
                "sum"
            );
            self.proxied.iter().for_each(|line| println!("{line}"));
        }
        if !self.left_out.is_empty() {
            println!(
                "\nleft out, since the time was over (name them to have them measured): {}",
                self.left_out.join(", ")
            );
        }
        if !self.verdicts.is_empty() {
            println!();
        }
        self.verdicts.iter().for_each(|line| println!("{line}"));
        self.failed
    }
}

fn spread(spread: Spread, with_median: bool) -> String {
    let median = match with_median {
        true => format!(" {}", ms(spread.p50)),
        false => String::new(),
    };
    format!(
        "{}{median} {} {}",
        ms(spread.mean),
        ms(spread.p99),
        ms(spread.max)
    )
}

/// Median and 99th percentile (nearest rank) of the times from receipt to read; nothing where none is known.
fn wakeup(of: &TakenWakeups) -> String {
    let stamped = of.stamped();
    let at = |percent: u64| {
        let rank = (stamped * percent).div_ceil(100);
        let mut passed = 0;
        let mut spans = of.spans.iter();
        spans.find_map(|&(nanos, reads)| {
            passed += reads;
            (passed >= rank).then(|| ms(nanos as f64))
        })
    };
    let (Some(p50), Some(p99)) = (at(50), at(99)) else {
        return String::new();
    };
    format!(
        " wakeup p50 {} p99 {} of {stamped} reads ({} unstamped)",
        p50.trim_start(),
        p99.trim_start(),
        of.unstamped
    )
}

fn ms(nanos: f64) -> String {
    format!("{:>7.3}", nanos / 1e6)
}
