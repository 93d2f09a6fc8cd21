//! One session: its turns in order, each built on the reply before, over one channel.
//!
//! A channel that is new connects in the session's first turn, and that turn's time includes it (the leg `setup`), as
//! a real client's would; `http-cold` pays it at each turn.

use std::pin::pin;
use std::rc::Rc;

use tokenlag_channel::{Ask, Channel, ChannelError, Request};
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Place, Row, Stamp};

use crate::asking::Form;
use crate::conversation::{Conversation, Said};
use crate::drive::{Driving, Ending, Kit, drive};
use crate::endpoint::{Endpoint, Limits};
use crate::gate::Gate;
use crate::progress::Progress;
use crate::prompt::{Nonce, Phase, Prompts, nonce};
use crate::seeds::trace_id;
use crate::stop::Stop;

/// Marks that are preallocated beyond the output's tokens: a delta may hold less than a token.
const SPARE_MARKS: usize = 8;
/// Turns of a session that are given room beforehand: those of all but the longest.
const FORESEEN_TURNS: u32 = 64;

/// What all sessions of a run share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What every request asks.
    pub form: Form,
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

    /// The same for sessions that share it ([`Channel::for_session`]).
    pub fn shared_channel(&self) -> Channel {
        Channel::shared(self.row.transport, self.endpoint.dial.clone())
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

/// How a session ended.
#[derive(Debug, Default)]
pub struct SessionEnd {
    /// What went wrong, in words; a session ends at its first failure.
    pub trouble: Option<String>,
    /// Turns that were not begun because an earlier one failed.
    pub skipped: u32,
    /// The run was stopped while a turn was under way: that exchange is given up.
    pub cancelled: bool,
}

/// A session whose first turn is ready to be sent: nothing is left to compute once it is due.
pub struct Prepared {
    name: SessionName,
    turns: u32,
    nonce: Nonce,
    input: String,
    first: Turn,
}

/// A turn that is ready to be sent.
struct Turn {
    exchange: Exchange,
    /// `Err`: it cannot be, and why.
    request: Result<Request, ChannelError>,
}

/// Prepares a session of `turns` turns, whose first exchange may lie in the memory of one that is `spent`.
pub fn prepare(
    shared: &Shared,
    lane: &Lane,
    name: SessionName,
    turns: u32,
    spent: Option<Exchange>,
) -> Prepared {
    let nonce = nonce(shared.prompts.seed, name.phase, name.serial);
    let conversation = Conversation::new(&shared.form, lane.row.state);
    let input = shared.prompts.input(place(name, 0), &nonce);
    let first = ready(shared, lane, place(name, 0), &conversation, &input, spent);
    Prepared {
        name,
        turns,
        nonce,
        input,
        first,
    }
}

/// Room for the exchanges of a session of so many turns.
pub(crate) fn room(turns: u32) -> Vec<Exchange> {
    Vec::with_capacity(turns.min(FORESEEN_TURNS) as usize)
}

/// Runs a session over `channel`, from now on, and adds its finished exchanges to `exchanges` in order, failed ones too. In a
/// closed loop its later turns are made one session at a time.
pub(crate) async fn run(
    shared: &Shared,
    lane: &Lane,
    prepared: Prepared,
    channel: &Channel,
    gate: &Gate,
    kit: &mut Kit,
    exchanges: &mut Vec<Exchange>,
) -> SessionEnd {
    let Prepared {
        name,
        turns,
        nonce,
        mut input,
        first,
    } = prepared;
    let way = Way {
        shared,
        lane,
        channel,
    };
    let mut end = SessionEnd::default();
    let mut conversation = Conversation::new(&shared.form, lane.row.state);
    let mut due = name.due;
    let mut ahead = Some(first);
    for turn in 0..turns {
        let Turn { exchange, request } = ahead.take().unwrap_or_else(|| {
            input = shared.prompts.input(place(name, turn), &nonce);
            ready(shared, lane, place(name, turn), &conversation, &input, None)
        });
        let last = turn + 1 == turns;
        // It is filled in where it stays: it is large.
        exchanges.push(exchange);
        let exchange = exchanges.last_mut().expect("it was put there just now");
        let Some(ending) = way.take(request, due, exchange, !last, kit).await else {
            exchanges.pop();
            end.cancelled = true;
            break;
        };
        let complete = exchange.outcome == Outcome::Complete;
        shared.progress.finished(complete);
        // An open loop's later turns are due at the end of the one before.
        due = due.and(exchange.end);
        if !complete {
            end.trouble = ending.trouble;
            end.skipped = turns - turn - 1;
            break;
        }
        if !last {
            if due.is_none() {
                gate.pass().await;
            }
            let said = Said {
                terminal: &ending.terminal,
                bytes: &ending.bytes,
            };
            conversation.advance(&input, &said);
        }
    }
    end
}

fn place(name: SessionName, turn: u32) -> Place {
    Place {
        block: name.block,
        session: name.session,
        turn,
    }
}

fn ready(
    shared: &Shared,
    lane: &Lane,
    place: Place,
    conversation: &Conversation<'_>,
    input: &str,
    spent: Option<Exchange>,
) -> Turn {
    let output = shared.prompts.output(place);
    let trace = trace_id(shared.prompts.seed, lane.index, place);
    let ask = Ask {
        path: &lane.endpoint.path,
        authority: &lane.endpoint.authority,
        headers: &lane.endpoint.dial.headers,
        body: &conversation.body(input, output),
        trace,
        encoding: lane.row.encoding,
    };
    let marks = output as usize + SPARE_MARKS;
    // The moments are those of the dispatch, which is to come.
    let (intended, dispatched) = (Stamp::default(), Stamp::default());
    let exchange = match spent {
        Some(spent) => Exchange::begin_in(spent, trace, place, intended, dispatched, marks),
        None => Exchange::begin(trace, place, intended, dispatched, marks),
    };
    Turn {
        exchange,
        request: Request::render(lane.row.transport, &ask),
    }
}

/// Where a session's turns go.
struct Way<'a> {
    shared: &'a Shared,
    lane: &'a Lane,
    channel: &'a Channel,
}

impl Way<'_> {
    /// Sends a turn's `request` and fills in its `exchange`; what the next turn needs is kept where there is one. `None`: the run
    /// was stopped.
    async fn take(
        &self,
        request: Result<Request, ChannelError>,
        due: Option<Stamp>,
        exchange: &mut Exchange,
        keep: bool,
        kit: &mut Kit,
    ) -> Option<Ending> {
        let channel = self.channel;
        // New connections over UDP take turns: whoever waits for one was not sent yet, and is as late as the generator is.
        let ready = match request {
            Ok(mut request) => {
                let turn = kit.heed.unless_stopped(pin!(channel.turn())).await?;
                turn.and_then(|turn| channel.address(&mut request).map(|()| (request, turn)))
            }
            Err(error) => Err(error),
        };
        exchange.dispatched = MonoClock.now();
        exchange.intended = due.unwrap_or(exchange.dispatched);
        let driving = Driving {
            dialect: self.shared.form.asking().dialect,
            keep,
            stamping: &self.lane.endpoint.dial.stamping,
        };
        match ready {
            Ok((request, _turn)) => drive(channel, &request, driving, exchange, kit).await,
            Err(error) => {
                exchange.outcome = Outcome::Failed(error.kind());
                Some(Ending {
                    trouble: Some(error.to_string()),
                    ..Ending::default()
                })
            }
        }
    }
}
