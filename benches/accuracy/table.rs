//! The table: one line a cell, way and channel, in milliseconds.

use std::time::Duration;

use tokenlag_probes::{StampSource, TakenWakeups, Transport};

use crate::aiperf::Reported;
use crate::cell::{Cell, Found, Way};
use crate::cpu::Cores;
use crate::truth::Spread;
use crate::wanted::Wanted;

/// The goals on two cores, direct over HTTP/1.1: mean error of ttft, and 99th percentile of the gaps, in milliseconds.
const GOALS: [(u32, Duration, f64, f64); 2] = [
    (64, Duration::from_millis(1), 0.25, 1.8),
    (1_000, Duration::from_millis(20), 3.0, 22.0),
];

#[derive(Default)]
pub struct Table {
    proxied: Vec<String>,
    verdicts: Vec<String>,
    left_out: Vec<String>,
}

impl Table {
    pub fn begin(wanted: &Wanted, cores: Cores) -> Self {
        let stamps = match wanted.stamp {
            StampSource::User => "stamps by the reader",
            StampSource::Kernel => "stamps by the kernel",
        };
        println!(
            "errors against the emission log, in ms; {} cores: generator on {}, proxy on {}, instrument on {}; the proxy dials by {}; {}",
            cores.count, cores.generator, cores.proxy, cores.instrument, wanted.upstream, stamps
        );
        println!(
            "{:<10} {:<6} {:<9} | {:^31} | {:^23} | {:^15} | {:^23} | {:^14} |",
            "", "", "", "ttft error", "gap error", "gap p99", "instrument late", "cores busy"
        );
        println!(
            "{:<10} {:<6} {:<9} | {:>7} {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>4} {:>4} {:>4} | lost",
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
            "prox"
        );
        Self::default()
    }

    pub fn row(&mut self, cell: Cell, way: Way, channel: Transport, found: &Found) {
        let errors = &found.errors;
        let name = name(cell);
        let late = found.late;
        print!("{name:<10} {:<6} {:<9} | ", way.name(), channel.to_string());
        print!("{} | ", spread(errors.ttft, true));
        print!("{} | ", spread(errors.gap, false));
        print!(
            "{} {} | ",
            ms(errors.gap_measured.p99),
            ms(errors.gap_true.p99)
        );
        print!(
            "{} {} {} | ",
            ms(late.mean),
            ms(late.p99 as f64),
            ms(late.max as f64)
        );
        print!(
            "{:>4.2} {:>4.2} {:>4.2} | ",
            found.instrument, found.generator, found.proxy
        );
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
        for (streams, gap, ttft, most) in GOALS {
            let is_it = cell.streams == streams && cell.gap == gap;
            if is_it && way == Way::Direct && channel == Transport::Http {
                let (mean, p99) = (errors.ttft.mean / 1e6, errors.gap_measured.p99 / 1e6);
                let lost = errors.lost + errors.unanswered;
                let met = mean <= ttft && p99 <= most && lost == 0;
                let emitted = errors.gap_true.p99 / 1e6;
                self.verdicts.push(format!(
                    "{name}, direct, http: ttft error {mean:.3} ms (at most {ttft}), gap p99 {p99:.3} ms (at most {most}; emitted \
                     with {emitted:.3}), {lost} lost: {}",
                    if met { "met" } else { "missed" }
                ));
            }
        }
    }

    /// A cell for which there is no time left.
    pub fn leave_out(&mut self, cell: Cell, way: Way, channel: Transport) {
        let cell = name(cell);
        self.left_out
            .push(format!("{cell} {} {channel}", way.name()));
    }

    pub fn aiperf(&mut self, cell: Cell, reported: &Reported) {
        println!(
            "{:<10} AIPerf, direct, http: ttft error mean {:.3}, p99 {:.3}; gap p99 {:.3}; instrument {}",
            name(cell),
            reported.ttft_error,
            reported.ttft_error_p99,
            reported.gap_p99,
            reported.late
        );
    }

    /// What only the proxy has, and the goals.
    pub fn end(&self) {
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
    }
}

fn name(cell: Cell) -> String {
    format!("{}@{}ms", cell.streams, cell.gap.as_millis())
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
