//! What was asked beside what was found, in words, and whether the one fits the other.

use std::io;

use super::Finding;
use super::echo::Connects;
use super::flood::Flood;
use crate::units::{show_rate, show_span};
use crate::{Link, LinkSpec, LinkStats, Way};

/// What the kernel and two sockets may add to a link's own time at the median, in nanoseconds.
const SOCKETS: u64 = 500_000;
/// How late the slowest one of a hundred packets may be released, in nanoseconds.
const RELEASE: u64 = 200_000;
/// What an unshaped link carries at least, in bits per second.
const UNSHAPED: f64 = 1e9;
/// Standard deviations within which the losses must lie: one run in a thousand is outside by chance.
const DEVIATIONS: f64 = 3.29;
/// The relay is the bottleneck where it has so much of a core.
const BUSY: f64 = 0.9;
/// Headers of IPv4 and TCP with timestamps, in bytes.
const HEADERS: u16 = 52;

/// Puts findings together.
pub(super) struct Judge<'a> {
    spec: &'a LinkSpec,
    findings: Vec<Finding>,
    overflow: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn of(link: &'a Link) -> Self {
        Self {
            spec: link.spec(),
            findings: Vec::new(),
            overflow: 0,
        }
    }

    fn add(&mut self, what: &str, asked: String, found: String, good: Option<bool>) {
        self.findings.push(Finding {
            what: what.to_owned(),
            asked,
            found,
            good,
        });
    }

    fn failed(&mut self, what: &str, error: &io::Error) {
        self.add(what, String::new(), format!("failed: {error}"), Some(false));
    }

    pub(super) fn connects(&mut self, what: &str, found: &io::Result<Connects>) {
        match found {
            Err(error) => self.failed(what, error),
            Ok(Connects { took, control }) => {
                self.spans(what, took);
                let [client, server] = control;
                let asked = self.spec.cc.clone();
                let good = asked.as_ref().map(|it| it == client && it == server);
                self.add(
                    &format!("{what}: congestion control"),
                    asked.unwrap_or_else(|| "the system's".to_owned()),
                    format!("client {client}, server {server}"),
                    good,
                );
            }
        }
    }

    pub(super) fn echoes(&mut self, what: &str, took: &io::Result<Vec<u64>>) {
        match took {
            Err(error) => self.failed(what, error),
            Ok(took) => self.spans(what, took),
        }
    }

    fn spans(&mut self, what: &str, took: &[u64]) {
        let (least, most) = self.round_trip();
        let asked = match self.spec.up.jitter + self.spec.down.jitter {
            jitter if jitter.is_zero() => show_span(self.spec.rtt()),
            jitter => format!(
                "{} to {}",
                show_span(self.spec.rtt()),
                show_span(self.spec.rtt() + jitter)
            ),
        };
        let (Some(p50), Some(p99)) = (quantile(took, 0.5), quantile(took, 0.99)) else {
            return self.add(what, asked, "nothing came back".to_owned(), Some(false));
        };
        let good = (least..=most + SOCKETS).contains(&p50);
        let found = format!("p50 {}, p99 {} ({})", ms(p50), ms(p99), took.len());
        self.add(what, asked, found, Some(good));
    }

    /// The least and the most that a small packet's round trip takes on the idle link, in nanoseconds.
    fn round_trip(&self) -> (u64, u64) {
        let least = self.spec.rtt().as_nanos() as u64;
        // 60 bytes: a SYN, or a segment of one byte with timestamps.
        let slow = |way: &Way| way.rate.map_or(0, |rate| 60 * 8_000_000_000 / rate);
        let jitter = self.spec.up.jitter + self.spec.down.jitter;
        let more = jitter.as_nanos() as u64 + slow(&self.spec.up) + slow(&self.spec.down);
        (least, least + more)
    }

    pub(super) fn tcp(
        &mut self,
        name: &str,
        way: &Way,
        found: &io::Result<f64>,
        work: Option<(u64, u64)>,
    ) {
        let what = format!("TCP throughput {name}");
        let rate = match found {
            Ok(rate) => *rate,
            Err(error) => return self.failed(&what, error),
        };
        // What loss leaves is the congestion control's doing, not the link's.
        let loses = self.spec.up.loss.mean() + self.spec.down.loss.mean() > 0.0;
        let (asked, good) = match way.rate {
            Some(most) => {
                let share = f64::from(self.spec.mtu - HEADERS) / f64::from(self.spec.mtu);
                let most = most as f64 * share;
                let asked = format!("up to {}", mbit(most));
                (
                    asked,
                    (!loses).then_some(rate > 0.85 * most && rate < 1.02 * most),
                )
            }
            None => {
                let is_bare = self.spec.rtt().is_zero() && !loses;
                ("unlimited".to_owned(), is_bare.then_some(rate >= UNSHAPED))
            }
        };
        // The sending took a second longer than what is counted.
        let busy = work.map(|(before, after)| (after - before) as f64 / 3e9);
        let beside = busy.map_or(String::new(), |busy| {
            format!("; the relay worked for {:.0} % of a core", busy * 100.0)
        });
        self.add(&what, asked, mbit(rate) + &beside, good);
    }

    pub(super) fn udp(&mut self, name: &str, rate: u64, found: &io::Result<Flood>) {
        let what = format!("UDP throughput {name}");
        let loss = match name {
            "down" => self.spec.down.loss,
            _ => self.spec.up.loss,
        };
        let most = rate as f64 * (1.0 - loss.mean());
        match found {
            Err(error) => self.failed(&what, error),
            Ok(flood) => {
                let asked = format!("{} (at most {})", mbit(most), show_rate(Some(rate)));
                let good = (flood.rate / most - 1.0).abs() < 0.02 + 3.0 * loss.mean().min(0.01);
                self.add(&what, asked, mbit(flood.rate), Some(good));
            }
        }
    }

    /// The emulator's own count of what it lost, of either protocol.
    pub(super) fn loss(&mut self, protocol: &str, stats: &LinkStats) {
        self.overflow += stats.overflow();
        let (mut packets, mut lost, mut expected, mut variance) = (0, 0, 0.0, 0.0);
        for (way, count) in [(&self.spec.up, &stats.up), (&self.spec.down, &stats.down)] {
            let (came, gone) = match protocol {
                "TCP" => (count.packets.tcp, count.lost.tcp),
                _ => (count.packets.udp, count.lost.udp),
            };
            // What the queue dropped never reached the line.
            let reached = came.saturating_sub(count.queue_full);
            packets += reached;
            lost += gone;
            expected += reached as f64 * way.loss.mean();
            variance += reached as f64 * way.loss.variance();
        }
        let spread = DEVIATIONS * variance.sqrt();
        let good = (lost as f64 - expected).abs() <= spread + f64::from(u8::from(spread > 0.0));
        let asked = format!("{expected:.0} +- {spread:.0} of {packets} packets");
        self.add(
            &format!("{protocol} loss"),
            asked,
            lost.to_string(),
            Some(good),
        );
    }

    pub(super) fn steady(
        &mut self,
        rate: u64,
        stats: &LinkStats,
        floods: &[io::Result<Flood>],
        work: Option<(u64, u64)>,
    ) {
        let (mut sent, mut received) = (0, 0);
        for flood in floods {
            match flood {
                Ok(flood) => {
                    sent += flood.sent;
                    received += flood.received;
                }
                Err(error) => self.failed("a steady stream", error),
            }
        }
        let gone = stats.up.lost.udp + stats.down.lost.udp;
        let gone = gone + stats.up.queue_full + stats.down.queue_full + stats.overflow();
        let missing = sent - received;
        self.add(
            "UDP datagrams that did not come",
            format!("{gone}, as the relay counts"),
            format!("{missing} of {sent}"),
            Some(missing == gone),
        );
        let p99 = stats.release_error_p99();
        let p50 = stats.release_error.value_at_quantile(0.5);
        self.add(
            &format!("release error at {}", show_rate(Some(rate))),
            format!("p99 at most {}", ms(RELEASE)),
            format!("p50 {}, p99 {}", ms(p50), ms(p99)),
            Some(p99 <= RELEASE),
        );
        if let Some((before, after)) = work {
            // Two floods of two seconds.
            let share = (after - before) as f64 / 4e9;
            self.add(
                &format!("the relay's work at {}", show_rate(Some(rate))),
                format!("below {:.0} % of a core", BUSY * 100.0),
                format!("{:.0} %", share * 100.0),
                Some(share < BUSY),
            );
        }
    }

    /// What is late because of others on the same host is no fault of the relay's.
    pub(super) fn stolen(&mut self, found: Option<((u64, u64), (u64, u64))>) {
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

    pub(super) fn finish(mut self, unread: Option<u64>) -> Vec<Finding> {
        let dropped = self.overflow + unread.unwrap_or(0);
        self.add(
            "packets that the emulator dropped",
            "0".to_owned(),
            dropped.to_string(),
            Some(dropped == 0),
        );
        self.findings
    }
}

fn quantile(values: &[u64], share: f64) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied()
}

fn ms(nanos: u64) -> String {
    format!("{:.3} ms", nanos as f64 / 1e6)
}

fn mbit(rate: f64) -> String {
    format!("{:.1} Mbit/s", rate / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3, 1, 2], 0.5), Some(2));
        assert_eq!(quantile(&[3, 1, 2], 0.99), Some(3));
    }
}
