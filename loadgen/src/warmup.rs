//! Before anything is recorded: learning how words become tokens, and warming every path that will be measured.

use std::collections::BTreeMap;
use std::rc::Rc;

use tokenlag_channel::{Ask, Request};
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Place, Row, State};

use crate::arrivals::Arrivals;
use crate::cell::{self, CellName, CellPlan};
use crate::conversation::Conversation;
use crate::drive::{Driving, Kit, drive};
use crate::prompt::{Phase, WordCount, nonce};
use crate::seeds::trace_id;
use crate::session::{Lane, Shared};
use crate::workload::Workload;

/// Blocks of warm-ups are numbered from here, so that no exchange of theirs shares a name with a measured one.
const WARMUP_BLOCK: u32 = u32::MAX - 1;

/// Bounds of the longer of the two prompts that the calibration sends, in words: long enough for a slope, and no longer
/// than it takes to know it. Texts of 2,000 words still differ by 2.4 % in tokens a word.
const LONG_PROBE: std::ops::RangeInclusive<usize> = 24..=8_192;
/// A session that ends so many times as long as it begins has a longer one than its first turn.
const GROWTH: u64 = 8;
/// The shorter one has at most so many words.
const SHORT_PROBE: usize = 24;

/// Turns of a warm-up, at most: a way that carried that many is warm, however long the sessions are that come.
pub const WARMUP_TURNS: u32 = 4;

/// What the calibration found.
#[derive(Clone, Debug, PartialEq)]
pub enum Calibrated {
    /// From the replies' usage.
    Learned(WordCount),
    /// The backend tells no usage: prompt lengths are guesses.
    Guessed,
    /// An exchange failed.
    Failed {
        /// Words of its prompt.
        words: usize,
        /// What went wrong, in words.
        reason: String,
    },
}

/// Sends two prompts of different length over `lane` and compares their `usage`. `serial` numbers the first of their
/// sessions among the warm-ups; two are used.
pub async fn calibrate(shared: &Shared, lane: &Lane, serial: u64) -> Calibrated {
    let channel = lane.channel();
    let mut kit = Kit::new(&shared.stop, shared.limits.exchange);
    let mut points = Vec::new();
    for (at, words) in probes(&shared.prompts.workload).into_iter().enumerate() {
        let failed = |reason: String| Calibrated::Failed { words, reason };
        let serial = serial + at as u64;
        let nonce = nonce(shared.prompts.seed, Phase::Warmup, serial);
        let body = Conversation::new(&shared.form, State::Full)
            .body(&shared.prompts.probe(words, &nonce), 1);
        let place = Place {
            block: u32::MAX,
            session: at as u32,
            turn: 0,
        };
        let trace = trace_id(shared.prompts.seed, lane.index, place);
        let ask = Ask {
            path: &lane.endpoint.path,
            authority: &lane.endpoint.authority,
            headers: &lane.endpoint.dial.headers,
            body: &body,
            trace,
            encoding: lane.row.encoding,
        };
        let request = match Request::render(lane.row.transport, &ask) {
            Ok(request) => request,
            Err(error) => return failed(error.to_string()),
        };
        let driving = Driving {
            dialect: shared.form.asking().dialect,
            keep: false,
            stamping: &lane.endpoint.dial.stamping,
        };
        let now = MonoClock.now();
        let mut exchange = Exchange::begin(trace, place, now, now, 8);
        let ending = drive(&channel, &request, driving, &mut exchange, &mut kit);
        let Some(ending) = ending.await else {
            return failed("stopped".to_owned());
        };
        if exchange.outcome != Outcome::Complete {
            let silent = || "it did not complete".to_owned();
            return failed(ending.trouble.unwrap_or_else(silent));
        }
        points.extend(exchange.usage.map(|usage| (words, usage.input)));
    }
    channel.close().await;
    match points[..] {
        [short, long] => {
            WordCount::fit(short, long).map_or(Calibrated::Guessed, Calibrated::Learned)
        }
        _ => Calibrated::Guessed,
    }
}

/// Words of the two prompts: the longer one is about as long as a session's first, or as an eighth of its last, since that is
/// where the line has to fit, and what the server has room for.
fn probes(workload: &Workload) -> [usize; 2] {
    let grown = u32::try_from(workload.input() / GROWTH).unwrap_or(u32::MAX);
    let long = WordCount::GUESS.first(workload.first_input.max(grown));
    let long = long.clamp(*LONG_PROBE.start(), *LONG_PROBE.end());
    [SHORT_PROBE.min(long / 8), long]
}

/// What a row's warm-up found.
#[derive(Clone, Debug)]
pub struct Warmed {
    /// The row.
    pub row: Row,
    /// Exchanges that completed.
    pub completed: usize,
    /// Connections that they opened.
    pub connections: u64,
    /// What went wrong, in words, and how often.
    pub troubles: BTreeMap<String, u64>,
}

/// Runs `sessions` unrecorded sessions on each row, as many side by side as the measured cells will, and over such connections
/// as theirs: a path that none of them took is not warm.
pub async fn warm(
    shared: &Rc<Shared>,
    lanes: &[Rc<Lane>],
    plan: &CellPlan,
    sessions: u64,
    mut serial: u64,
) -> Vec<Warmed> {
    let cell = CellPlan {
        arrivals: Arrivals::Closed,
        concurrency: plan.concurrency.min(sessions.max(1) as usize),
        sessions: Some(sessions),
        duration: None,
        turns: plan.turns.min(WARMUP_TURNS),
        connections: plan.connections,
    };
    let mut warmed = Vec::with_capacity(lanes.len());
    for (order, lane) in lanes.iter().enumerate() {
        if sessions == 0 || shared.stop.is_raised() {
            break;
        }
        let name = CellName {
            phase: Phase::Warmup,
            block: WARMUP_BLOCK,
            order: order as u32,
            first_serial: serial,
        };
        let end = cell::run(shared.clone(), lane.clone(), cell, name).await;
        serial += end.sessions;
        warmed.push(Warmed {
            row: lane.row,
            completed: end.completed(),
            connections: end.counters.connections_opened,
            troubles: end.troubles,
        });
    }
    warmed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Preset;

    #[test]
    fn the_probe_is_no_longer_than_what_will_be_measured() {
        let probes = |first_input, later_input| {
            probes(&Workload {
                turns: 24,
                first_input,
                later_input,
                ..Preset::Chat.workload()
            })
        };
        assert_eq!(probes(192, 24), [8, 67]);
        assert_eq!(probes(768, 24), [24, 298]);
        assert_eq!(probes(1_000_000, 24), [24, 8_192]);
        assert_eq!(probes(1, 1), [3, 24]);
        // 2,048 and 23 times 5,440 tokens, of which an eighth.
        assert_eq!(probes(2_048, 5_440), [24, 6_349]);
    }
}
