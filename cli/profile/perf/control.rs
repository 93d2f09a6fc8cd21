//! Telling a perf that runs what to do: words into one pipe, and an answer out of another (perf-record(1), `--control`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::folder::Folder;

/// How long it may take to answer: the first time it finds its way through the processes first.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Both pipes.
pub struct Control {
    ask: pipe::Sender,
    told: pipe::Receiver,
    /// As perf takes them.
    flag: String,
}

impl Control {
    /// Pipes in `folder`.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn make(folder: &Folder) -> anyhow::Result<Self> {
        let (control, answer) = (folder.file("control"), folder.file("answer"));
        for fifo in [&control, &answer] {
            mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("cannot make {}", fifo.display()))?;
        }
        let mut both_ways = pipe::OpenOptions::new();
        both_ways.read_write(true);
        let opened = |path: &Path| format!("cannot open {}", path.display());
        Ok(Self {
            ask: (both_ways.open_sender(&control)).with_context(|| opened(&control))?,
            told: (both_ways.open_receiver(&answer)).with_context(|| opened(&answer))?,
            flag: format!("--control=fifo:{},{}", control.display(), answer.display()),
        })
    }

    /// What perf has to be started with.
    pub fn flag(&self) -> &str {
        &self.flag
    }

    /// Has it do `what`, and waits until it has.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn tell(&mut self, what: &str) -> anyhow::Result<()> {
        // An answer is several bytes, of which the first tells all: what is left of the last one goes.
        while self.told.try_read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        let answered = async {
            self.ask.write_all(format!("{what}\n").as_bytes()).await?;
            self.told.read_u8().await
        };
        match timeout(PATIENCE, answered).await {
            Ok(answered) => answered.context("perf does not answer").map(drop),
            Err(_) => bail!(
                "perf did not answer within {PATIENCE:?} when it was told to {what}; have less other load here, or leave out --sampler perf"
            ),
        }
    }
}
