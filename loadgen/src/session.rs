//! One session: its turns in order, each built on the reply before, over one channel.
//!
//! A channel that is new connects in the session's first turn, and that turn's time includes it (the leg `setup`), as
//! a real client's would; `http-cold` pays it at each turn.

use std::rc::Rc;

use tokenlag_channel::{Ask, Channel, Request};
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Place, Row, Stamp};

use crate::conversation::{Asking, Conversation, Said};
use crate::drive::{Driving, dispatch};
use crate::endpoint::{Endpoint, Limits};
use crate::progress::Progress;
use crate::prompt::{Phase, Prompts, nonce};
use crate::seeds::trace_id;
use crate::stop::Stop;

/// Marks that are preallocated beyond the output's tokens: a delta may hold less than a token.
const SPARE_MARKS: usize = 64;

/// What all sessions of a run share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What every request asks.
    pub asking: Asking,
    /// What it says.
    pub prompts: Prompts,
    /// How long it may take.
    pub limits: Limits,
    /// Ends it early.
    pub stop: Stop,
    /// Counts it.
    pub progress: Rc<Progress>,
}

/// A row, and where its requests go.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The row.
    pub row: Row,
    /// Its place in the run's list: part of its exchanges' names.
    pub index: u32,
    /// The other end.
    pub endpoint: Endpoint,
}

impl Lane {
    /// A channel to the other end that has not dialled yet.
    pub fn channel(&self) -> Channel {
        Channel::new(self.row.transport, self.endpoint.dial.clone())
    }
}

/// Which session this is.
#[derive(Clone, Copy, Debug)]
pub struct SessionName {
    /// Recorded or not.
    pub phase: Phase,
    /// The block.
    pub block: u32,
    /// The session within its cell.
    pub session: u32,
    /// The session's number among all of the run's, from which its nonce is made.
    pub serial: u64,
    /// The schedule's moment; `None` in a closed loop.
    pub due: Option<Stamp>,
}

/// What a session leaves.
#[derive(Debug, Default)]
pub struct SessionEnd {
    /// Its finished exchanges in order, failed ones too.
    pub exchanges: Vec<Exchange>,
    /// What went wrong, in words; a session ends at its first failure.
    pub trouble: Option<String>,
    /// Turns that were not begun because an earlier one failed.
    pub skipped: u32,
    /// The run was stopped while a turn was under way: that exchange is given up.
    pub cancelled: bool,
}

/// Runs a session of `turns` turns over `channel`.
pub async fn run(
    shared: &Shared,
    lane: &Lane,
    name: SessionName,
    turns: u32,
    channel: &Channel,
) -> SessionEnd {
    let mut end = SessionEnd {
        exchanges: Vec::with_capacity(turns as usize),
        ..SessionEnd::default()
    };
    let nonce = nonce(shared.prompts.seed, name.phase, name.serial);
    let mut conversation = Conversation::new(&shared.asking, lane.row.state);
    let mut due = name.due;
    for turn in 0..turns {
        let place = Place {
            block: name.block,
            session: name.session,
            turn,
        };
        let input = shared.prompts.input(place, &nonce);
        let body = conversation.body(&input);
        let last = turn + 1 == turns;
        let work = one_turn(shared, lane, place, due, &body, channel, !last);
        let Some((exchange, ending)) = shared.stop.or(work).await else {
            end.cancelled = true;
            break;
        };
        let complete = exchange.outcome == Outcome::Complete;
        shared.progress.finished(complete);
        // An open loop's later turns are due at the end of the one before.
        due = due.and(exchange.end);
        end.exchanges.push(exchange);
        if !complete {
            end.trouble = ending.trouble;
            end.skipped = turns - turn - 1;
            break;
        }
        if !last {
            let said = Said {
                terminal: &ending.terminal,
                bytes: &ending.bytes,
            };
            conversation.advance(&input, &said);
        }
    }
    end
}

async fn one_turn(
    shared: &Shared,
    lane: &Lane,
    place: Place,
    due: Option<Stamp>,
    body: &[u8],
    channel: &Channel,
    keep: bool,
) -> (Exchange, crate::drive::Ending) {
    let clock = MonoClock;
    let trace = trace_id(shared.prompts.seed, lane.index, place);
    let ask = Ask {
        path: &lane.endpoint.path,
        authority: &lane.endpoint.authority,
        headers: &lane.endpoint.dial.headers,
        body,
        trace,
        encoding: lane.row.encoding,
    };
    let marks = shared.asking.output as usize + SPARE_MARKS;
    let now = clock.now();
    let mut exchange = Exchange::begin(trace, place, due.unwrap_or(now), now, marks);
    let driving = Driving {
        dialect: shared.asking.dialect,
        limit: shared.limits.exchange,
        keep,
    };
    let ending = match Request::render(lane.row.transport, &ask) {
        Ok(request) => {
            let closed_loop = due.is_none();
            dispatch(
                &clock,
                channel,
                &request,
                driving,
                &mut exchange,
                closed_loop,
            )
            .await
        }
        Err(error) => {
            exchange.outcome = Outcome::Failed(error.kind());
            crate::drive::Ending {
                trouble: Some(error.to_string()),
                ..Default::default()
            }
        }
    };
    (exchange, ending)
}
