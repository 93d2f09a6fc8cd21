//! Playing a script: the writes of one streamed reply, each at its moment, with the stamp taken immediately before it.

use std::io::{self, Write};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp, Usage};

use crate::http;
use crate::reply::Reply;
use crate::script::{Early, Ending, Script};
use crate::wait;

/// What is to become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
    Reset,
}

/// One streamed reply on its way out.
pub(crate) struct Player<'a, W> {
    pub(crate) out: W,
    pub(crate) script: &'a Script,
    pub(crate) tokens: u32,
    /// When the request's last byte was read: what times count from.
    pub(crate) start: Stamp,
    pub(crate) stopping: &'a AtomicBool,
    pub(crate) close: bool,
    /// Takes the stamps before the end is written, so that who saw the end finds them.
    pub(crate) note: &'a dyn Fn(&[Stamp]),
}

impl<W: Write> Player<'_, W> {
    /// Writes the reply, from its head to its end.
    pub(crate) fn play(mut self, reply: &mut Reply, usage: Option<Usage>) -> io::Result<After> {
        let mut stamps = Vec::with_capacity(self.tokens as usize);
        let ended = self.deltas(reply, &mut stamps);
        (self.note)(&stamps);
        ended?;
        let mut last = Vec::new();
        match self.script.ending {
            Ending::Close(_) => return Ok(After::Close),
            Ending::Reset(_) => return Ok(After::Reset),
            Ending::Truncate(_) => {}
            Ending::Complete => {
                let mut events = Vec::new();
                reply.finish(usage, &mut events);
                http::chunk(&mut last, &events);
            }
        }
        last.extend_from_slice(http::LAST_CHUNK);
        self.out.write_all(&last)?;
        Ok(match self.close {
            true => After::Close,
            false => After::KeepAlive,
        })
    }

    /// Head, pings and deltas, up to where the script ends them.
    fn deltas(&mut self, reply: &mut Reply, stamps: &mut Vec<Stamp>) -> io::Result<()> {
        let mut pending = Vec::new();
        self.head(reply, &mut pending)?;
        let last = match self.script.ending {
            Ending::Complete => self.tokens,
            Ending::Truncate(k) | Ending::Close(k) | Ending::Reset(k) => {
                self.tokens.min(k.saturating_sub(1))
            }
        };
        let mut held = 0;
        let mut first = 1;
        while first <= last {
            let event_last = last.min(first + self.script.tokens_per_event - 1);
            match self.script.malformed {
                Some(broken) if (first..=event_last).contains(&broken) => {
                    reply.malformed(&mut pending);
                }
                _ => {
                    reply.delta(&text(first, event_last), &mut pending);
                    held += 1;
                }
            }
            let events = (event_last - 1) / self.script.tokens_per_event + 1;
            if events.is_multiple_of(self.script.events_per_write) || event_last == last {
                self.wait(self.script.due(event_last))?;
                let written = self.write_events(&pending)?;
                stamps.extend(std::iter::repeat_n(written, held));
                pending.clear();
                held = 0;
            }
            first = event_last + 1;
        }
        if last < self.tokens {
            // The ending takes place at the moment of the token in whose stead it stands.
            self.wait(self.script.due(last + 1))?;
        }
        // A reply without deltas still has what stands before them.
        self.write_events(&pending).map(|_| ())
    }

    /// The head, with or without the events before the first delta, and the pings.
    fn head(&mut self, reply: &mut Reply, pending: &mut Vec<u8>) -> io::Result<()> {
        self.wait(self.script.head)?;
        let mut first = http::stream_head(self.close);
        match self.script.early {
            Early::WithFirstToken => reply.preamble(pending),
            Early::WithHead => {
                let mut events = Vec::new();
                reply.preamble(&mut events);
                http::chunk(&mut first, &events);
            }
        }
        self.out.write_all(&first)?;
        let idle = self.script.ttft.saturating_sub(self.script.head);
        for ping in 1..=self.script.pings {
            self.wait(self.script.head + idle * ping / (self.script.pings + 1))?;
            let mut comment = Vec::new();
            http::chunk(&mut comment, b": ping\n\n");
            self.out.write_all(&comment)?;
        }
        Ok(())
    }

    /// Writes events in as many pieces as the script says; the stamp is that before the last piece, which completes them.
    fn write_events(&mut self, events: &[u8]) -> io::Result<Stamp> {
        let size = events
            .len()
            .div_ceil(self.script.writes_per_event as usize)
            .max(1);
        let mut before = MonoClock.now();
        let mut framed = Vec::with_capacity(size + 16);
        for (at, piece) in events.chunks(size).enumerate() {
            if at > 0 {
                let next = before + self.script.piece_pause;
                self.wait_until(next)?;
            }
            framed.clear();
            http::chunk(&mut framed, piece);
            before = MonoClock.now();
            self.out.write_all(&framed)?;
        }
        Ok(before)
    }

    fn wait(&self, since_start: Duration) -> io::Result<()> {
        self.wait_until(self.start + since_start)
    }

    fn wait_until(&self, moment: Stamp) -> io::Result<()> {
        match wait::until(moment, self.stopping) {
            true => Ok(()),
            false => Err(io::Error::other("the backend was told to stop")),
        }
    }
}

/// The text of tokens `first` to `last`: ` t1 t2`.
pub(crate) fn text(first: u32, last: u32) -> String {
    (first..=last).map(|token| format!(" t{token}")).collect()
}
