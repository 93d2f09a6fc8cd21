//! The thread that keeps a run's ledger, so that nothing is computed or written on the one that measures.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokenlag_probes::{Exchange, JoinedExchange, Row, Stamp};
use tokio::sync::oneshot;

use crate::ledger::{Closing, Ledger};

/// Entries that may wait. Where the disk is slower than the load, the load waits for it, and its lateness shows.
const WAITING: usize = 1_024;
/// Between two looks for entries: the thread that measures wakes nobody.
const NAP: Duration = Duration::from_millis(20);

/// The writing thread.
pub struct Writer {
    entries: SyncSender<Entry>,
    thread: JoinHandle<(Ledger, anyhow::Result<()>)>,
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
    CellEnded(Box<Closing>, oneshot::Sender<()>),
}

/// The ledger could not be written; [`Writer::finish`] says why.
#[derive(Debug)]
pub struct Failed;

impl Writer {
    /// Starts the thread.
    pub fn start(ledger: Ledger) -> anyhow::Result<Self> {
        let (entries, given) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let mut ledger = ledger;
                let kept = keep(&mut ledger, &given);
                (ledger, kept)
            })
            .context("cannot start the thread that writes")?;
        Ok(Self { entries, thread })
    }

    /// Hands an entry over.
    pub fn give(&self, entry: Entry) -> Result<(), Failed> {
        match self.entries.try_send(entry) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(entry)) => {
                self.thread.thread().unpark();
                self.entries.send(entry).map_err(|_| Failed)
            }
            Err(TrySendError::Disconnected(_)) => Err(Failed),
        }
    }

    /// Ends a cell, and waits until everything that was given so far is written.
    pub async fn end_cell(&self, closing: Closing) -> Result<(), Failed> {
        let (done, written) = oneshot::channel();
        self.give(Entry::CellEnded(Box::new(closing), done))?;
        self.thread.thread().unpark();
        written.await.map_err(|_| Failed)
    }

    /// Ends the thread; gives the ledger back, and what it failed of.
    pub fn finish(self) -> (Ledger, anyhow::Result<()>) {
        drop(self.entries);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(kept) => kept,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn keep(ledger: &mut Ledger, entries: &Receiver<Entry>) -> anyhow::Result<()> {
    loop {
        match entries.try_recv() {
            Ok(Entry::CellStarts {
                row,
                block,
                order,
                at,
            }) => ledger.cell_starts(row, block, order, at),
            Ok(Entry::Finished(exchanges)) => {
                let alone = |exchange| JoinedExchange {
                    exchange,
                    hop: None,
                };
                let exchanges: Vec<_> = exchanges.into_iter().map(alone).collect();
                ledger.enter(&exchanges)?;
            }
            Ok(Entry::Joined(exchanges)) => ledger.enter(&exchanges)?,
            Ok(Entry::CellEnded(closing, done)) => {
                ledger.cell_ended(*closing)?;
                // Who no longer waits was told otherwise.
                let _ = done.send(());
                continue;
            }
            Err(TryRecvError::Empty) => thread::park_timeout(NAP),
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        ledger.checkpoint_if_due()?;
    }
}
