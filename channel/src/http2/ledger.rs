//! What passed of each stream, and when: the stamps that the library below cannot give.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use tokenlag_probes::Stamp;

use super::frames::Found;
use crate::Counters;

/// Reads of one stream whose bytes nobody took yet. Beyond it they share the stamp of the latest: an upper bound.
const MARKS: usize = 16 * 1024;

/// Streams of a peer that are remembered. More than it may have at once, so that only those that nobody will ask for
/// are forgotten.
const STREAMS: usize = 1024;

/// Streams for which there is memory while none is open.
const KEPT: usize = 8;

/// REFUSED_STREAM (RFC 9113, section 7).
const REFUSED_STREAM: u32 = 0x7;

/// The streams of one connection, as their frames pass.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    streams: Streams,
    /// Whether the peer is the one who opens streams.
    accepts: bool,
    newest: u32,
    last_read: Stamp,
    closed: bool,
    refused_streams: u64,
    farewell: Option<u32>,
    /// The peer said goodbye.
    heard_farewell: bool,
    pub(crate) counters: Counters,
}

/// Streams by their number, the oldest first. A peer numbers them as they begin, so that a new one comes last and is
/// looked for there; and what has held a stream once holds the next one without asking for memory.
#[derive(Debug, Default)]
struct Streams(VecDeque<(u32, Stream)>);

impl Streams {
    #[inline]
    fn place(&self, stream: u32) -> Result<usize, usize> {
        match self.0.back() {
            Some(&(last, _)) if last == stream => Ok(self.0.len() - 1),
            Some(&(last, _)) if last > stream => self.older(stream),
            _ => Err(self.0.len()),
        }
    }

    /// The place of one that is not the last.
    #[inline(never)]
    fn older(&self, stream: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&stream, |&(number, _)| number)
    }

    fn get(&self, stream: u32) -> Option<&Stream> {
        match self.0.back() {
            Some((last, known)) if *last == stream => Some(known),
            Some((last, _)) if *last > stream => {
                let place = self.older(stream).ok()?;
                self.0.get(place).map(|(_, known)| known)
            }
            _ => None,
        }
    }

    fn get_mut(&mut self, stream: u32) -> Option<&mut Stream> {
        let last = self.0.back().map_or(0, |&(last, _)| last);
        let place = match last {
            _ if last == stream => self.0.len().checked_sub(1)?,
            _ if last > stream => self.older(stream).ok()?,
            _ => return None,
        };
        self.0.get_mut(place).map(|(_, known)| known)
    }

    fn get_or_enter(&mut self, stream: u32) -> &mut Stream {
        let place = match self.place(stream) {
            Ok(place) => place,
            Err(place) if place == self.0.len() => {
                self.0.push_back((stream, Stream::default()));
                place
            }
            Err(place) => {
                self.0.insert(place, (stream, Stream::default()));
                place
            }
        };
        &mut self.0[place].1
    }

    fn remove(&mut self, stream: u32) {
        match self.place(stream) {
            Ok(0) => drop(self.0.pop_front()),
            Ok(place) => drop(self.0.remove(place)),
            Err(_) => {}
        }
        if self.0.is_empty() && self.0.capacity() > KEPT {
            self.0 = VecDeque::new();
        }
    }
}

#[derive(Debug, Default)]
struct Stream {
    /// Somebody serves it.
    claimed: bool,
    head_at: Option<Stamp>,
    received: u64,
    taken: u64,
    marks: Marks,
    /// Ordinal of the last mark.
    ordinal: Option<u32>,
    ended_at: Option<Stamp>,
    sent: u64,
    end_sent: Option<Stamp>,
    written_at: Option<Stamp>,
    reset: bool,
    waiting: Option<Waker>,
}

/// Marks, the oldest first. Most bodies are read as they come, and have one at a time: it needs no memory of its own.
#[derive(Debug, Default)]
struct Marks {
    oldest: Option<Mark>,
    newer: VecDeque<Mark>,
}

impl Marks {
    fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.newer.len()
    }

    fn last_mut(&mut self) -> Option<&mut Mark> {
        self.newer.back_mut().or(self.oldest.as_mut())
    }

    fn push(&mut self, mark: Mark) {
        match self.oldest {
            None => self.oldest = Some(mark),
            Some(_) => self.newer.push_back(mark),
        }
    }

    fn drop_oldest(&mut self) {
        self.oldest = self.newer.pop_front();
    }
}

/// Bytes of a stream that one read carried.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// They end here, counted from the body's first.
    upto: u64,
    at: Stamp,
    ordinal: u32,
}

/// Bytes at the front of a body that came together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: Stamp,
    pub(crate) ordinal: u32,
    pub(crate) bytes: usize,
}

/// What is known of a stream as it is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// Read with its first byte.
    pub(crate) head_at: Stamp,
    /// The peer has begun no other after it.
    pub(crate) newest: bool,
}

/// What a stream has behind it on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Bytes of its body.
    pub(crate) bytes: u64,
    /// Its last frame too.
    pub(crate) ended: bool,
    /// Before the last write that carried some of it; `None` where not even its head left.
    pub(crate) at: Option<Stamp>,
}

impl Ledger {
    /// The ledger of a connection whose peer opens the streams.
    pub(crate) fn accepting() -> Self {
        Self {
            accepts: true,
            ..Self::default()
        }
    }

    /// Enters a stream of our own.
    pub(crate) fn open(&mut self, stream: u32) {
        let entry = self.streams.get_or_enter(stream);
        entry.claimed = true;
    }

    /// Somebody serves this stream of the peer.
    pub(crate) fn claim(&mut self, stream: u32) -> Claimed {
        self.open(stream);
        Claimed {
            head_at: self.head_at(stream),
            newest: self.newest <= stream,
        }
    }

    /// Nobody will ask for this stream any more.
    pub(crate) fn forget(&mut self, stream: u32) {
        self.streams.remove(stream);
    }

    /// Notes what a read found; `at` is when it returned.
    pub(crate) fn read(&mut self, found: Found, at: Stamp, woken: &mut Vec<Waker>) {
        match found {
            Found::Headers { stream, at } => self.head(stream, at),
            Found::Data { stream, bytes } => {
                let marked = !self.accepts;
                if let Some(stream) = self.streams.get_mut(stream) {
                    stream.receive(bytes, at, marked);
                }
            }
            Found::End { stream } => {
                if let Some(stream) = self.streams.get_mut(stream) {
                    stream.ended_at = Some(at);
                }
            }
            Found::Reset { stream, .. } => self.reset(stream, woken),
            Found::GoAway { .. } => self.heard_farewell = true,
        }
    }

    /// Notes what a write found; `at` is just before it.
    pub(crate) fn wrote(&mut self, found: Found, at: Stamp, woken: &mut Vec<Waker>) {
        let on = match found {
            Found::Headers { stream, .. }
            | Found::Data { stream, .. }
            | Found::End { stream }
            | Found::Reset { stream, .. } => stream,
            Found::GoAway { code } => {
                self.farewell = Some(code);
                return;
            }
        };
        if let Found::Reset { code, .. } = found {
            self.refused_streams += u64::from(code == REFUSED_STREAM);
            return self.reset(on, woken);
        }
        if let Some(stream) = self.streams.get_mut(on) {
            stream.written_at = Some(at);
            match found {
                Found::Data { bytes, .. } => stream.sent += bytes as u64,
                Found::End { .. } => stream.end_sent = Some(at),
                _ => {}
            }
            stream.wake(woken);
        }
    }

    /// Notes a read.
    pub(crate) fn note_read(&mut self, at: Stamp) {
        self.last_read = at;
    }

    /// Notes that nothing will pass any more.
    pub(crate) fn close(&mut self, woken: &mut Vec<Waker>) {
        self.closed = true;
        for stream in self.streams.0.iter_mut().map(|(_, stream)| stream) {
            stream.wake(woken);
        }
    }

    fn head(&mut self, stream: u32, at: Stamp) {
        if let Some(known) = self.streams.get_mut(stream) {
            known.head_at.get_or_insert(at);
        } else if self.accepts && stream > self.newest {
            self.newest = stream;
            if self.streams.0.len() >= STREAMS {
                self.streams.0.pop_front();
            }
            let entry = self.streams.get_or_enter(stream);
            entry.head_at = Some(at);
        }
    }

    #[cold]
    fn reset(&mut self, stream: u32, woken: &mut Vec<Waker>) {
        let Some(known) = self.streams.get_mut(stream) else {
            return;
        };
        known.reset = true;
        known.wake(woken);
        if !known.claimed && self.accepts {
            // Refused before anybody saw it.
            self.streams.remove(stream);
        }
    }

    /// Read with the first byte of a stream.
    pub(crate) fn head_at(&self, stream: u32) -> Stamp {
        let known = self.streams.get(stream);
        known
            .and_then(|stream| stream.head_at)
            .unwrap_or(self.last_read)
    }

    /// Read with the last byte of a stream.
    pub(crate) fn ended_at(&self, stream: u32) -> Stamp {
        let known = self.streams.get(stream);
        known
            .and_then(|stream| stream.ended_at)
            .unwrap_or(self.last_read)
    }

    /// Takes at most `most` bytes off the front of a stream's body: those that one read carried.
    pub(crate) fn take(&mut self, stream: u32, most: usize) -> Piece {
        let whole = Piece {
            at: self.last_read,
            ordinal: 0,
            bytes: most,
        };
        let Some(stream) = self.streams.get_mut(stream) else {
            return whole;
        };
        let Some(mark) = stream.marks.oldest else {
            return whole;
        };
        let bytes = most.min((mark.upto - stream.taken) as usize);
        stream.taken += bytes as u64;
        if stream.taken == mark.upto {
            stream.marks.drop_oldest();
        }
        Piece {
            at: mark.at,
            ordinal: mark.ordinal,
            bytes,
        }
    }

    /// What left of a stream. A stream that is not known here is given up.
    pub(crate) fn sent(&self, stream: u32) -> Option<Sent> {
        let stream = self.streams.get(stream)?;
        Some(Sent {
            bytes: stream.sent,
            ended: stream.end_sent.is_some(),
            at: stream.written_at,
        })
    }

    /// Returns once more of a stream left than `before`, or `Err` where the peer gave it up or the connection is gone.
    pub(crate) fn poll_progress(
        &mut self,
        stream: u32,
        before: Sent,
        context: &Context<'_>,
    ) -> Poll<Result<Sent, ()>> {
        let Some(sent) = self.sent(stream) else {
            return Poll::Ready(Err(()));
        };
        if sent != before {
            return Poll::Ready(Ok(sent));
        }
        match self.poll_gone(stream, context) {
            Poll::Ready(()) => Poll::Ready(Err(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Returns once the stream is given up or the connection gone.
    pub(crate) fn poll_gone(&mut self, stream: u32, context: &Context<'_>) -> Poll<()> {
        let closed = self.closed;
        match self.streams.get_mut(stream) {
            Some(stream) if !stream.reset && !closed => {
                stream.waiting = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether nothing else goes on than this stream, on which both have said all that they had to say, and neither said
    /// goodbye. Then there is nothing to be done on the connection until another stream begins or the peer says something.
    pub(crate) fn is_last(&self, stream: u32) -> bool {
        let parting = self.closed || self.heard_farewell || self.farewell.is_some();
        let over = |stream: &Stream| {
            !stream.reset && stream.ended_at.is_some() && stream.end_sent.is_some()
        };
        !parting && self.streams.0.len() == 1 && self.streams.get(stream).is_some_and(over)
    }

    /// Streams that were refused: the peer had as many as it may.
    pub(crate) fn refused_streams(&self) -> u64 {
        self.refused_streams
    }

    /// The error code of the GOAWAY that was sent.
    pub(crate) fn farewell(&self) -> Option<u32> {
        self.farewell
    }
}

impl Stream {
    /// Adds who waits for this stream, where somebody does, to those who are to be `woken`.
    #[inline]
    fn wake(&mut self, woken: &mut Vec<Waker>) {
        if let Some(waiting) = self.waiting.take() {
            woken.push(waiting);
        }
    }

    fn receive(&mut self, bytes: usize, at: Stamp, marked: bool) {
        self.received += bytes as u64;
        if !marked {
            return;
        }
        let full = self.marks.len() >= MARKS;
        match self.marks.last_mut() {
            Some(last) if last.at == at || full => {
                last.upto = self.received;
                last.at = at;
            }
            _ => {
                let ordinal = self.ordinal.map_or(0, |last| last + 1);
                self.ordinal = Some(ordinal);
                self.marks.push(Mark {
                    upto: self.received,
                    at,
                    ordinal,
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
