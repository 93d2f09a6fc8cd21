//! A link that is up: two sides and the relay between them. It goes when this value does, or the process.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use crate::lane::{Lane, Spare};
use crate::pipe::Pipe;
use crate::relay::{Clock, Relay, Shared};
use crate::side::{Addresses, Side};
use crate::stats::{self, LinkStats};
use crate::{LinkError, LinkSpec};

/// Telling the seeds of the two directions apart.
const DOWN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A link that is up.
#[derive(Debug)]
pub struct Link {
    /// Where the client is.
    pub client: Side,
    /// Where the server is.
    pub server: Side,
    spec: LinkSpec,
    shared: Arc<Shared>,
    /// Dropped, it ends the relay.
    end: Option<UnixStream>,
    relay: Option<JoinHandle<()>>,
    /// The relay's, as the system counts threads.
    thread: Pid,
}

impl Link {
    /// Makes both sides and starts the relay; `clock` says the time in nanoseconds. The relay's thread runs where the calling
    /// thread may.
    ///
    /// # Errors
    /// The process lacks rights, or the kernel does not do it.
    pub fn up(spec: LinkSpec, clock: Clock) -> Result<Self, LinkError> {
        let client = Side::make(Addresses::CLIENT, &spec)?;
        let server = Side::make(Addresses::SERVER, &spec)?;
        let device = |side: &Side| {
            let held = side.device.try_clone();
            held.map_err(LinkError::system("hold a TUN device twice", FILES))
        };
        let pipe = |way, seed| Pipe::new(way, spec.queue_of(way), spec.reorder, seed);
        let up = Lane::new(
            device(&client)?,
            device(&server)?,
            server.addresses,
            pipe(&spec.up, spec.seed),
        );
        let down = Lane::new(
            device(&server)?,
            device(&client)?,
            client.addresses,
            pipe(&spec.down, spec.seed ^ DOWN),
        );
        let (ours, end) =
            UnixStream::pair().map_err(LinkError::system("make a pair of sockets", FILES))?;
        let shared = Arc::new(Shared::default());
        let relay = Relay {
            lanes: [up, down],
            clock,
            shared: shared.clone(),
            end,
            spare: Spare::of(spec.mtu.into()),
        };
        let (says, said) = mpsc::channel();
        let relay = thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                let _ = says.send(gettid());
                // Only a poll that is refused ends it early; whoever measures then sees that nothing comes through.
                relay.run().unwrap_or_default();
            })
            .map_err(LinkError::system("start a thread", "there are too many"))?;
        let thread = said.recv().expect("the thread begins by saying it");
        Ok(Self {
            client,
            server,
            spec,
            shared,
            end: Some(ours),
            relay: Some(relay),
            thread,
        })
    }

    /// Its parameters.
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// What it did since it was asked last.
    pub fn take_stats(&self) -> LinkStats {
        // Made before the relay is kept from counting.
        let fresh = LinkStats::default();
        std::mem::replace(&mut self.shared.stats(), fresh)
    }

    /// What it did since [`Link::take_stats`] was called last.
    pub fn stats(&self) -> LinkStats {
        self.shared.stats().clone()
    }

    /// Packets that are on their way now, of those that came in since [`Link::take_stats`] was called last.
    pub(crate) fn under_way(&self) -> u64 {
        self.shared.stats().under_way()
    }

    /// Has the relay run on these cores alone.
    ///
    /// # Errors
    /// There is none of them, or the system refuses.
    pub fn run_on(&self, cores: &[usize]) -> io::Result<()> {
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core)?;
        }
        Ok(sched_setaffinity(self.thread, &set)?)
    }

    /// The cores that the relay may run on; none where the system does not tell.
    pub fn cores(&self) -> Vec<usize> {
        let Ok(set) = sched_getaffinity(self.thread) else {
            return Vec::new();
        };
        let is_set = |core: &usize| set.is_set(*core).unwrap_or(false);
        (0..CpuSet::count()).filter(is_set).collect()
    }

    /// CPU time that the relay has used, in nanoseconds; `None` where the system does not tell.
    pub fn cpu_ns(&self) -> Option<u64> {
        stats::cpu_of(self.thread.as_raw())
    }

    /// What of it was work, in nanoseconds: without what the relay waited on the processor for packets to be due, which it
    /// could have used for others.
    pub fn work_ns(&self) -> Option<u64> {
        Some(self.cpu_ns()?.saturating_sub(self.shared.waited()))
    }

    /// Packets that either device dropped before the relay could read them.
    ///
    /// # Errors
    /// A namespace cannot be looked into.
    pub fn unread(&self) -> io::Result<u64> {
        let mut unread = 0;
        for side in [&self.client, &self.server] {
            let text = side
                .namespace
                .within(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
            unread += stats::dropped_on_sending(&text, crate::side::DEVICE).unwrap_or(0);
        }
        Ok(unread)
    }
}

const FILES: &str = "are there too many open files?";

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
    }
}
