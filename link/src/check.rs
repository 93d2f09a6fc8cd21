//! A link that proves itself: what real connections and datagrams across it find, beside what was asked, and beside what the
//! machine does without a link.

mod chance;
mod echo;
mod flood;
mod judge;
mod own;
mod throughput;

use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::{Clock, Link, Way, stats};
use echo::Ends;
use judge::Judge;
use own::{Echoes, Lateness};

/// A rate at which the emulator's own exactness is told, in bits per second.
const STEADY: u64 = 100_000_000;
/// How long what is left on the link is waited for, and how often is looked.
const LEFT: u64 = 60_000_000_000;
const LOOK: Duration = Duration::from_millis(5);

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was measured.
    pub what: String,
    /// What the link's parameters ask for.
    pub asked: String,
    /// What was found.
    pub found: String,
    /// Whether the one fits the other; `None`: nothing was asked, or this machine cannot tell.
    pub good: Option<bool>,
}

/// Measures `link`, which nobody else uses meanwhile, for some 20 seconds, a slow one for longer; `says` is told what is being
/// done.
pub fn check(link: &Link, clock: Clock, says: &mut dyn FnMut(&str)) -> Vec<Finding> {
    let mut judge = Judge::of(link);
    says("the machine by itself");
    let echoes = Echoes::measure(link, clock);
    let late = Lateness::measure(clock);
    says("connecting and echoing");
    let v4 = Ends::of(link, link.server.addresses.v4.into());
    judge.connects("TCP connect", &v4.connects(clock));
    if link.server.has_v6 {
        let v6 = Ends::of(link, link.server.addresses.v6.into());
        judge.connects("TCP connect, IPv6", &v6.connects(clock));
    }
    judge.echoes("TCP echo", &v4.tcp(clock), &echoes.tcp);
    judge.echoes("UDP echo", &v4.udp(clock), &echoes.udp);
    settle(link, clock);
    judge.dropped(&link.take_stats());
    for (name, down) in [("down", true), ("up", false)] {
        says(&format!("TCP {name}"));
        let way = way(link, down);
        if !throughput::can_be_told(link.spec(), way) {
            judge.too_slow(name, way);
            continue;
        }
        let work = link.work_ns();
        let got = flood::tcp(link, down, clock);
        let window = throughput::window(link, down);
        judge.tcp(name, way, window, &got, work.zip(link.work_ns()));
        judge.settled(settle(link, clock));
    }
    judge.loss("TCP", &link.take_stats());
    for (name, down) in [("down", true), ("up", false)] {
        says(&format!("UDP {name}"));
        let way = way(link, down);
        if let Some(rate) = way.rate {
            // A quarter more than the line takes: its queue is full, and what comes through is its rate.
            let got = flood::udp(link, down, rate + rate / 4, clock);
            judge.udp(name, way, rate, &got);
            judge.settled(settle(link, clock));
        }
    }
    says("a steady stream");
    judge.dropped(&link.take_stats());
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
    let stolen = stolen.zip(stats::stolen());
    judge.settled(settle(link, clock));
    let stats = link.take_stats();
    says("the machine by itself");
    // Before and after, since what it does changes.
    let late = late.and_then(|before| Ok(before.and(&Lateness::measure(clock)?)));
    judge.loss("UDP", &stats);
    judge.datagrams(&stats, &accounted);
    judge.release(steady, &stats, &late);
    judge.relay(steady, &stats, work);
    judge.stolen(stolen);
    judge.finish(link.unread().ok())
}

/// Waits until nothing is on its way any more; `false`: something is all the same.
fn settle(link: &Link, clock: Clock) -> bool {
    let begun = clock();
    while link.under_way() > 0 {
        if clock() - begun > LEFT {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

fn way(link: &Link, down: bool) -> &Way {
    match down {
        true => &link.spec().down,
        false => &link.spec().up,
    }
}
