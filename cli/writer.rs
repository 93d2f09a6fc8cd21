//! The thread that keeps a run's ledger, so that nothing is computed or written on the one that measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use tokenlag_probes::{
    Clock, Exchange, Handling, JoinedExchange, MonoClock, Precision, Row, RunRecord, Stamp,
    TokenMark, Until,
};
use tokio::sync::oneshot;

use crate::ledger::{Closing, Ledger};

/// Entries that may wait: more than come while a manifest is replaced slowly, at any rate. Many of them are one session each: those of
/// an open loop, and those whose connection is closed with them. Where the disk is slower than the load, the load waits for it, and
/// its lateness shows.
const WAITING: usize = 4_096;
/// Bytes that may wait in them, beyond which none is added: as many exchanges with room for a thousand deltas each.
const WAITING_BYTES: u64 = 160 << 20;
/// How long the disk may take none of what waits, until the run ends for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether there is room.
const PAUSE: Duration = Duration::from_millis(1);
/// The same while nothing else is waited for.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks for entries: the thread that measures wakes nobody.
const NAP: Duration = Duration::from_millis(20);
/// Entries between two looks at the clock, whether a checkpoint is due.
const ROUND: u64 = 256;

/// Lists of exchanges that were written and may wait to be used anew: about as many as come between two looks.
const SPENT: usize = 16;
/// Exchanges of such a list at most. Each begins another session, and seldom do more sessions come home together.
const SPENT_EXCHANGES: usize = 1_024;
/// Marks that they have room for at most, all together: twice what the replies have that come home together.
const SPENT_MARKS: usize = 1 << 14;
/// Marks that one of them has room for at most.
const SPENT_MARKS_OF_ONE: usize = 1_024;

/// The writing thread.
pub struct Writer {
    entries: SyncSender<Entry>,
    /// Exchanges that were written: memory that comes from the thread that measures goes back to it.
    spent: Receiver<Vec<Exchange>>,
    thread: JoinHandle<(Ledger, anyhow::Result<()>)>,
    waiting: Arc<Waiting>,
    patience: Duration,
}

/// What was handed over, and what of it is done.
#[derive(Debug, Default)]
struct Waiting {
    /// Bytes that wait.
    bytes: AtomicU64,
    /// Entries that are done.
    done: AtomicU64,
}

/// What it is given.
pub enum Entry {
    /// A cell starts.
    CellStarts {
        row: Row,
        block: u32,
        order: u32,
        at: Stamp,
    },
    /// Exchanges of the cell that goes on, on their own.
    Finished(Vec<Exchange>),
    /// The same, with the proxy's records of them.
    Joined(Vec<JoinedExchange>),
    /// The cell is over.
    CellEnded(Box<Closing>, oneshot::Sender<bool>),
}

impl Entry {
    /// What its exchanges take in memory: an exchange that failed has all the room that its reply was to need.
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Finished(exchanges) => exchanges.iter().map(bytes).sum(),
            Self::Joined(exchanges) => exchanges.iter().map(|it| bytes(&it.exchange)).sum(),
            Self::CellStarts { .. } | Self::CellEnded(..) => 0usize,
        };
        bytes as u64
    }
}

/// What an exchange takes in memory, without the proxy's records of it.
fn bytes(exchange: &Exchange) -> usize {
    let marks = exchange.tokens.capacity() * size_of::<TokenMark>();
    size_of::<Exchange>() + marks + exchange.handling.capacity() * size_of::<Handling>()
}

/// The ledger could not be written; [`Writer::finish`] says why.
#[derive(Debug)]
pub struct Failed;

impl Writer {
    /// Starts the thread.
    pub fn start(ledger: Ledger) -> anyhow::Result<Self> {
        Self::with_patience(ledger, PATIENCE)
    }

    fn with_patience(ledger: Ledger, patience: Duration) -> anyhow::Result<Self> {
        let (entries, given) = sync_channel(WAITING);
        let (give_back, spent) = sync_channel(SPENT);
        let waiting = Arc::new(Waiting::default());
        let shared = waiting.clone();
        let thread = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let mut ledger = ledger;
                let kept = keep(&mut ledger, &given, &give_back, &shared);
                (ledger, kept)
            })
            .context("cannot start the thread that writes")?;
        Ok(Self {
            entries,
            spent,
            thread,
            waiting,
            patience,
        })
    }

    /// Hands an entry over, once there is room for it.
    pub fn give(&self, mut entry: Entry) -> Result<(), Failed> {
        let bytes = entry.bytes();
        let mut patience = None;
        loop {
            let waiting = self.waiting.bytes.load(Ordering::Acquire);
            // One that is larger than all that may wait waits alone.
            if waiting == 0 || waiting + bytes <= WAITING_BYTES {
                self.waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
                entry = match self.entries.try_send(entry) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Full(entry)) => entry,
                    Err(TrySendError::Disconnected(_)) => return Err(Failed),
                };
                self.waiting.bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
            let patience = patience.get_or_insert_with(|| self.patience());
            if self.thread.is_finished() || patience.is_over() {
                return Err(Failed);
            }
            self.thread.thread().unpark();
            thread::park_timeout(PAUSE);
        }
    }

    /// Some exchanges that were written, for their memory; none where none are there.
    pub fn spent(&self) -> Vec<Exchange> {
        self.spent.try_recv().unwrap_or_default()
    }

    /// Ends a cell, and waits until everything that was given so far is written. Gives whether the run's intervals are as
    /// narrow now as they were to become; they are looked at seldom, at the end of a block.
    pub async fn end_cell(&self, closing: Closing) -> Result<bool, Failed> {
        let (done, mut written) = oneshot::channel();
        self.give(Entry::CellEnded(Box::new(closing), done))?;
        self.thread.thread().unpark();
        let mut patience = self.patience();
        loop {
            match tokio::time::timeout(LOOK, &mut written).await {
                Ok(written) => return written.map_err(|_| Failed),
                Err(_) if patience.is_over() => return Err(Failed),
                Err(_) => {}
            }
        }
    }

    /// Ends the thread; gives the ledger back, and what it failed of.
    ///
    /// # Errors
    /// The disk takes nothing, and the thread cannot be ended.
    pub fn finish(self) -> anyhow::Result<(Ledger, anyhow::Result<()>)> {
        let mut patience = self.patience();
        drop(self.entries);
        while !self.thread.is_finished() {
            if patience.is_over() {
                bail!(
                    "the disk has taken nothing of the run's folder for {:?}; choose a folder on another disk with --out",
                    self.patience
                );
            }
            self.thread.thread().unpark();
            thread::park_timeout(PAUSE);
        }
        match self.thread.join() {
            Ok(kept) => Ok(kept),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn patience(&self) -> Patience {
        Patience {
            waiting: self.waiting.clone(),
            limit: self.patience,
            done: self.waiting.done.load(Ordering::Acquire),
            since: MonoClock.now(),
        }
    }
}

/// How long nothing was done.
struct Patience {
    waiting: Arc<Waiting>,
    limit: Duration,
    done: u64,
    since: Stamp,
}

impl Patience {
    fn is_over(&mut self) -> bool {
        let (now, done) = (MonoClock.now(), self.waiting.done.load(Ordering::Acquire));
        if done != self.done {
            (self.done, self.since) = (done, now);
        }
        now > self.since + self.limit
    }
}

fn keep(
    ledger: &mut Ledger,
    entries: &Receiver<Entry>,
    give_back: &SyncSender<Vec<Exchange>>,
    waiting: &Waiting,
) -> anyhow::Result<()> {
    for round in 1.. {
        let entry = entries.try_recv();
        let bytes = entry.as_ref().map_or(0, Entry::bytes);
        match entry {
            Ok(Entry::CellStarts {
                row,
                block,
                order,
                at,
            }) => ledger.cell_starts(row, block, order, at),
            Ok(Entry::Finished(mut exchanges)) => {
                ledger.enter(&exchanges)?;
                leave_what_is_used_anew(&mut exchanges);
                // Where enough of them wait, their memory is freed.
                let _ = give_back.try_send(exchanges);
            }
            Ok(Entry::Joined(exchanges)) => ledger.enter(&exchanges)?,
            Ok(Entry::CellEnded(closing, done)) => {
                let block_ended = closing.checkpoint;
                ledger.cell_ended(*closing)?;
                // What waits is written now, and not while the next row is measured.
                ledger.flush()?;
                // Who no longer waits was told otherwise.
                let _ = done.send(block_ended && is_narrow(ledger.record_mut()));
                waiting.done.fetch_add(1, Ordering::AcqRel);
                continue;
            }
            Err(TryRecvError::Empty) => {
                ledger.flush()?;
                thread::park_timeout(NAP);
                ledger.checkpoint_if_due()?;
                continue;
            }
            Err(TryRecvError::Disconnected) => break,
        }
        if u64::is_multiple_of(round, ROUND) {
            ledger.checkpoint_if_due()?;
        }
        waiting.bytes.fetch_sub(bytes, Ordering::AcqRel);
        waiting.done.fetch_add(1, Ordering::AcqRel);
    }
    ledger.flush()
}

/// Leaves those of the written exchanges whose memory is worth its wait: a long session's later ones are not, nor is much room of
/// which replies need little.
fn leave_what_is_used_anew(exchanges: &mut Vec<Exchange>) {
    let (mut left, mut marks) = (0, 0);
    exchanges.retain(|it| {
        let room = it.tokens.capacity().max(it.handling.capacity());
        let fits =
            room <= SPENT_MARKS_OF_ONE && marks + room <= SPENT_MARKS && left < SPENT_EXCHANGES;
        if fits {
            (left, marks) = (left + 1, marks + room);
        }
        fits
    });
    exchanges.shrink_to(SPENT_EXCHANGES);
}

/// The run's intervals are as narrow as they were to become, and it is time to look.
fn is_narrow(record: &RunRecord) -> bool {
    let blocks = record.block_count() as u32;
    let looks = |until: Until| until.looks_at(blocks);
    record.until.is_some_and(looks) && Precision::of(record).is_some_and(|it| it.reached)
}

#[cfg(test)]
mod tests;
