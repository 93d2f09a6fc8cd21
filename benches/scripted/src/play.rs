//! Playing a script: what of one streamed reply leaves when, step by step, whatever carries it.

use std::collections::VecDeque;
use std::fmt::Write;

use tokenlag_probes::{Stamp, Usage};

use crate::reply::Reply;
use crate::script::{Early, Ending, Script};

/// What is to become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
    Reset,
}

/// One write of a reply, and its moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) due: Stamp,
    pub(crate) what: What,
}

/// What a step writes. Events are framed as SSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The head, and events that go with it.
    Head(Vec<u8>),
    /// A sign of life that is no event.
    Ping,
    /// Events, or a piece of them; with it so many deltas are whole.
    Events { bytes: Vec<u8>, deltas: u32 },
    /// The end, with the events that lead to it.
    End { bytes: Vec<u8>, ending: Ending },
}

/// A comment of SSE.
pub(crate) const PING: &[u8] = b": ping\n\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Deltas,
    Over,
}

/// One streamed reply: its steps in order, each made only when the one before has left, so that a long reply takes no memory.
#[derive(Debug)]
pub(crate) struct Playback {
    reply: Reply,
    script: Script,
    tokens: u32,
    /// When the request's last byte was read: what times count from.
    start: Stamp,
    usage: Option<Usage>,
    stage: Stage,
    /// The token that comes next, from 1, and the last one before the end.
    next: u32,
    last: u32,
    /// Events that wait for the next write.
    pending: Vec<u8>,
    /// How long the last write was: the next is about as long.
    length: usize,
    /// The text of one event: kept, since what is allocated for each token is paid between tokens that are due.
    text: String,
    queue: VecDeque<Step>,
}

impl Playback {
    pub(crate) fn new(
        reply: Reply,
        script: Script,
        tokens: u32,
        start: Stamp,
        usage: Option<Usage>,
    ) -> Self {
        let last = match script.ending {
            Ending::Complete => tokens,
            Ending::Truncate(k) | Ending::Close(k) | Ending::Reset(k) => {
                tokens.min(k.saturating_sub(1))
            }
        };
        Self {
            reply,
            script,
            tokens,
            start,
            usage,
            stage: Stage::Head,
            next: 1,
            last,
            pending: Vec::new(),
            length: 0,
            text: String::new(),
            queue: VecDeque::new(),
        }
    }

    /// Deltas that the reply has at most.
    pub(crate) fn deltas(&self) -> usize {
        self.last.div_ceil(self.script.tokens_per_event) as usize
    }

    /// The next step; `None` after the end.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        if self.queue.is_empty() {
            match self.stage {
                Stage::Head => self.head(),
                Stage::Deltas if self.next <= self.last => self.deltas_of_one_write(),
                Stage::Deltas => self.end(),
                Stage::Over => {}
            }
        }
        self.queue.pop_front()
    }

    /// Takes the memory of a write that has left, for one that comes.
    pub(crate) fn reuse(&mut self, mut bytes: Vec<u8>) {
        if self.pending.capacity() == 0 {
            bytes.clear();
            self.pending = bytes;
        }
    }

    /// The head, with or without the events before the first delta, and the pings.
    fn head(&mut self) {
        self.stage = Stage::Deltas;
        let mut events = Vec::new();
        match self.script.early {
            Early::WithFirstToken => self.reply.preamble(&mut self.pending),
            Early::WithHead => self.reply.preamble(&mut events),
        }
        let head = self.script.head;
        self.push(self.start + head, What::Head(events));
        let idle = self.script.ttft.saturating_sub(head);
        for ping in 1..=self.script.pings {
            let due = head + idle * ping / (self.script.pings + 1);
            self.push(self.start + due, What::Ping);
        }
    }

    fn deltas_of_one_write(&mut self) {
        let mut deltas = 0;
        self.pending.reserve(self.length);
        loop {
            let event_last = self.last.min(self.next + self.script.tokens_per_event - 1);
            match self.script.malformed {
                Some(broken) if (self.next..=event_last).contains(&broken) => {
                    self.reply.malformed(&mut self.pending);
                }
                _ => {
                    self.text.clear();
                    write_text(&mut self.text, self.next, event_last);
                    self.reply.delta(&self.text, &mut self.pending);
                    deltas += 1;
                }
            }
            self.next = event_last + 1;
            let events = (event_last - 1) / self.script.tokens_per_event + 1;
            if events.is_multiple_of(self.script.events_per_write) || event_last == self.last {
                let due = self.start + self.script.due(event_last);
                self.pieces(due, deltas);
                return;
            }
        }
    }

    /// Cuts what is pending into as many pieces as the script says; deltas are whole with the last of them.
    fn pieces(&mut self, due: Stamp, deltas: u32) {
        let events = std::mem::take(&mut self.pending);
        let writes = self.script.writes_per_event as usize;
        self.length = events.len();
        if writes <= 1 && !events.is_empty() {
            let what = What::Events {
                bytes: events,
                deltas,
            };
            return self.push(due, what);
        }
        let size = events.len().div_ceil(writes).max(1);
        let count = events.len().div_ceil(size);
        for (at, piece) in events.chunks(size).enumerate() {
            let what = What::Events {
                bytes: piece.to_vec(),
                deltas: if at + 1 == count { deltas } else { 0 },
            };
            self.push(due + self.script.piece_pause * at as u32, what);
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Over;
        // The ending takes place at the moment of the token in whose stead it stands; a whole reply's follows at once.
        let due = match self.last < self.tokens {
            true => self.start + self.script.due(self.last + 1),
            false => self.start,
        };
        // A reply without deltas still has what stands before them.
        self.pieces(due, 0);
        let mut bytes = Vec::new();
        if self.script.ending == Ending::Complete {
            self.reply.finish(self.usage, &mut bytes);
        }
        let ending = self.script.ending;
        self.push(due, What::End { bytes, ending });
    }

    fn push(&mut self, due: Stamp, what: What) {
        self.queue.push_back(Step { due, what });
    }
}

/// The text of tokens `first` to `last`: ` t1 t2`.
pub(crate) fn text(first: u32, last: u32) -> String {
    let mut text = String::with_capacity(8 * (last + 1).saturating_sub(first) as usize);
    write_text(&mut text, first, last);
    text
}

fn write_text(text: &mut String, first: u32, last: u32) {
    for token in first..=last {
        write!(text, " t{token}").expect("a String takes all that is written");
    }
}
