//! A link that proves itself: what real connections and datagrams across it find, beside what was asked.

mod echo;
mod flood;
mod judge;

use serde::Serialize;

use crate::{Clock, Link, Way, stats};
use judge::Judge;

/// A rate at which the emulator's own exactness is told, in bits per second.
const STEADY: u64 = 100_000_000;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was measured.
    pub what: String,
    /// What the link's parameters ask for.
    pub asked: String,
    /// What was found.
    pub found: String,
    /// Whether the one fits the other; `None`: nothing was asked.
    pub good: Option<bool>,
}

/// Measures `link`, which nobody else uses meanwhile, for some 15 seconds; `says` is told what is being done.
pub fn check(link: &Link, clock: Clock, says: &mut dyn FnMut(&str)) -> Vec<Finding> {
    let mut judge = Judge::of(link);
    says("connecting and echoing");
    let [v4, v6] = [
        link.server.addresses.v4.into(),
        link.server.addresses.v6.into(),
    ];
    judge.connects("TCP connect", &echo::connects(link, v4, clock));
    if link.server.has_v6 {
        judge.connects("TCP connect, IPv6", &echo::connects(link, v6, clock));
    }
    judge.echoes("TCP echo", &echo::tcp(link, clock));
    judge.echoes("UDP echo", &echo::udp(link, clock));
    link.take_stats();
    for (name, down) in [("down", true), ("up", false)] {
        let way = way(link, down);
        says(&format!("TCP {name}"));
        let work = link.work_ns();
        let got = flood::tcp(link, down, clock);
        judge.tcp(name, way, &got, work.zip(link.work_ns()));
    }
    judge.loss("TCP", &link.take_stats());
    for (name, down) in [("down", true), ("up", false)] {
        says(&format!("UDP {name}"));
        let way = way(link, down);
        if let Some(rate) = way.rate {
            // A quarter more than the line takes: its queue is full, and what comes through is its rate.
            let got = flood::udp(link, down, rate + rate / 4, clock);
            judge.udp(name, rate, &got);
        }
    }
    says("a steady stream");
    link.take_stats();
    let work = link.work_ns();
    let stolen = stats::stolen();
    let mut accounted = Vec::new();
    let mut steady = STEADY;
    for down in [true, false] {
        // Below the line's own rate, where its queue drops nothing.
        let most = way(link, down).rate.map_or(STEADY, |rate| rate / 20 * 19);
        steady = steady.min(most);
        accounted.push(flood::udp(link, down, STEADY.min(most), clock));
    }
    let work = work.zip(link.work_ns());
    let stats = link.take_stats();
    judge.loss("UDP", &stats);
    judge.steady(steady, &stats, &accounted, work);
    judge.stolen(stolen.zip(stats::stolen()));
    judge.finish(link.unread().ok())
}

fn way(link: &Link, down: bool) -> &Way {
    match down {
        true => &link.spec().down,
        false => &link.spec().up,
    }
}
