//! The emulator's own part: how late its relay is, and what it takes to be so exact.

use std::io;

use hdrhistogram::Histogram;

use super::super::flood::UDP;
use super::super::own::Lateness;
use super::{Judge, ms};
use crate::LinkStats;
use crate::units::show_rate;

/// How late the slowest one of a hundred packets may be released, in nanoseconds.
const RELEASE: u64 = 200_000;
/// The relay is the bottleneck where it has so much of a core.
const BUSY: f64 = 0.9;

impl Judge<'_> {
    /// How late packets were released, and how late this machine is where there are none.
    pub(in crate::check) fn release(
        &mut self,
        rate: u64,
        stats: &LinkStats,
        own: &io::Result<Lateness>,
    ) {
        let late = &stats.release_error;
        let is_late = late.value_at_quantile(0.99) > RELEASE;
        let own = own.as_ref().ok();
        let what = format!("release error at {}", show_rate(Some(rate)));
        let asked = format!("p99 at most {}", ms(RELEASE));
        if late.is_empty() {
            let found = "not told: nothing has to wait on a link without delay and rate";
            self.add(&what, asked, found.to_owned(), None);
        } else {
            let mut found = quantiles(late);
            let cannot = own.is_some_and(|own| own.there.value_at_quantile(0.99) > RELEASE);
            if is_late && cannot {
                found.push_str("; this machine is late by itself");
            }
            self.add(&what, asked, found, Some(!is_late));
        }
        if let Some(own) = own {
            let found = format!(
                "{}; a sleep ends {} late",
                quantiles(&own.there),
                quantiles(&own.woken)
            );
            self.add(
                "this machine's own, without a packet",
                "what no link can mend".to_owned(),
                found,
                None,
            );
        }
    }

    /// Where the relay ran in a steady stream, and what of a core it took.
    pub(in crate::check) fn relay(
        &mut self,
        rate: u64,
        stats: &LinkStats,
        work: Option<(u64, u64)>,
    ) {
        let Some((before, after)) = work else { return };
        // A flood each way.
        let share = (after - before) as f64 / (2 * UDP) as f64;
        let cores: Vec<String> = stats.cores.iter().map(usize::to_string).collect();
        self.add(
            &format!("the relay's work at {}", show_rate(Some(rate))),
            format!("below {:.0} % of a core", BUSY * 100.0),
            format!(
                "{:.0} %; it ran on core {}",
                share * 100.0,
                cores.join(", ")
            ),
            Some(share < BUSY),
        );
    }

    /// What is late because of others on the same host is no fault of the relay's.
    pub(in crate::check) fn stolen(&mut self, found: Option<((u64, u64), (u64, u64))>) {
        let Some((before, after)) = found else { return };
        let all = after.0.saturating_sub(before.0).max(1);
        let stolen = after.1.saturating_sub(before.1) as f64 / all as f64;
        self.add(
            "time that the hypervisor took meanwhile",
            "none, for an exact release".to_owned(),
            format!("{:.1} %", stolen * 100.0),
            None,
        );
    }
}

fn quantiles(of: &Histogram<u64>) -> String {
    let [p50, p99] = [0.5, 0.99].map(|share| ms(of.value_at_quantile(share)));
    format!("p50 {p50}, p99 {p99}")
}
