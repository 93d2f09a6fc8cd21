//! One thread that writes all streamed replies over HTTP/1.1, each step at its moment: no other thread of the backend has a
//! hand in when a token leaves.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use tokenlag_probes::{Clock, MonoClock, Stamp, TraceId};

use crate::backend::Shared;
use crate::http;
use crate::pace::{self, Pace};
use crate::play::{After, PING, Playback, What};
use crate::script::Ending;

/// How long it sleeps before it looks whether it should stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// When it tries again with a client whose socket is full: others are served meanwhile.
const FULL: Duration = Duration::from_micros(500);

/// A reply to be played on a connection.
pub(crate) struct Play {
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) playback: Playback,
    pub(crate) trace: Option<TraceId>,
    pub(crate) close: bool,
    /// Told how it ended.
    pub(crate) done: SyncSender<io::Result<After>>,
}

/// A reply under way, with the bytes of its next write.
struct Running {
    play: Play,
    bytes: Vec<u8>,
    /// Bytes of them that the socket took already.
    taken: usize,
    due: Stamp,
    deltas: u32,
    ending: Option<Ending>,
    /// Stamps of the deltas that have left.
    stamps: Vec<Stamp>,
}

/// A place in the queue.
struct Entry {
    at: Stamp,
    number: u64,
    running: Box<Running>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: that is whom a heap gives first.
    fn cmp(&self, other: &Self) -> Order {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Plays what comes until the backend stops. Replies that have long to go are dropped then.
pub(crate) fn conduct(inbox: &Receiver<Play>, shared: &Shared, wanted: Pace) {
    let pace = pace::take(wanted);
    shared.set_pace(pace);
    let clock = MonoClock;
    let mut queue = BinaryHeap::new();
    let mut number = 0;
    while !shared.stopping.load(Ordering::Relaxed) {
        let left = queue
            .peek()
            .map(|entry: &Entry| entry.at.since(clock.now()));
        let sleep = match left {
            Some(left) if left <= 0 => Duration::ZERO,
            Some(left) => pace.sleep(left).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        };
        // A new reply may be due before all others.
        let arrived = match sleep {
            Duration::ZERO => inbox.try_recv().ok(),
            _ => match inbox.recv_timeout(sleep) {
                Ok(play) => Some(play),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            },
        };
        if let Some(play) = arrived {
            if let Some(running) = Running::begin(play) {
                number += 1;
                queue.push(Entry {
                    at: running.due,
                    number,
                    running: Box::new(running),
                });
            }
            continue;
        }
        if left.is_some_and(|left| left <= 0)
            && let Some(mut entry) = queue.peek_mut()
        {
            match entry.running.write(shared) {
                Some(at) => {
                    number += 1;
                    entry.number = number;
                    entry.at = at;
                }
                None => drop(PeekMut::pop(entry)),
            }
            continue;
        }
        std::hint::spin_loop();
    }
}

impl Running {
    fn begin(play: Play) -> Option<Self> {
        let stamps = Vec::with_capacity(play.playback.deltas());
        let mut running = Self {
            play,
            bytes: Vec::new(),
            taken: 0,
            due: Stamp::default(),
            deltas: 0,
            ending: None,
            stamps,
        };
        running.prepare().then_some(running)
    }

    /// Makes the bytes of the next step; false after the last.
    fn prepare(&mut self) -> bool {
        let Some(step) = self.play.playback.next_step() else {
            return false;
        };
        self.bytes.clear();
        self.taken = 0;
        self.due = step.due;
        self.deltas = 0;
        match step.what {
            What::Head(events) => {
                self.bytes = http::stream_head(self.play.close);
                http::chunk(&mut self.bytes, &events);
            }
            What::Ping => http::chunk(&mut self.bytes, PING),
            What::Events { bytes, deltas } => {
                http::chunk(&mut self.bytes, &bytes);
                self.deltas = deltas;
                self.play.playback.reuse(bytes);
            }
            What::End { bytes, ending } => {
                self.ending = Some(ending);
                if matches!(ending, Ending::Complete | Ending::Truncate(_)) {
                    http::chunk(&mut self.bytes, &bytes);
                    self.bytes.extend_from_slice(http::LAST_CHUNK);
                }
            }
        }
        true
    }

    /// Writes what is due; when it goes on, or `None` where the reply is over.
    fn write(&mut self, shared: &Shared) -> Option<Stamp> {
        if self.ending.is_some() {
            // Before the end is written, so that who saw the end finds them.
            self.note(shared);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let before = MonoClock.now();
        let sent = match &self.bytes[self.taken..] {
            [] => Ok(0),
            rest => send(self.play.socket.as_raw_fd(), rest, flags),
        };
        match sent {
            Ok(count) => self.taken += count,
            Err(Errno::EAGAIN) => return Some(before + FULL),
            Err(Errno::EINTR) => return Some(before),
            Err(error) => {
                self.note(shared);
                return self.over(Err(error.into()));
            }
        }
        if self.taken < self.bytes.len() {
            return Some(before + FULL);
        }
        if self.deltas > 0 {
            shared.note_lateness(before.since(self.due));
            self.stamps
                .extend(std::iter::repeat_n(before, self.deltas as usize));
        }
        match self.ending {
            Some(Ending::Close(_)) => return self.over(Ok(After::Close)),
            Some(Ending::Reset(_)) => return self.over(Ok(After::Reset)),
            Some(Ending::Complete | Ending::Truncate(_)) if self.play.close => {
                return self.over(Ok(After::Close));
            }
            Some(Ending::Complete | Ending::Truncate(_)) => {
                return self.over(Ok(After::KeepAlive));
            }
            None => {}
        }
        if !self.prepare() {
            return self.over(Ok(After::Close));
        }
        // A reply that is late queues behind the others that are: it does not keep them from their turn.
        Some(self.due.max(before))
    }

    fn note(&mut self, shared: &Shared) {
        // Once: an end that the socket did not take is written again.
        if let Some(trace) = self.play.trace.take() {
            let stamps = std::mem::take(&mut self.stamps);
            shared.journal.note_emissions(trace, stamps);
        }
    }

    fn over(&mut self, how: io::Result<After>) -> Option<Stamp> {
        // A connection that is gone need not be told.
        let _ = self.play.done.try_send(how);
        None
    }
}
