//! What connections to the upstream carried: counted on the thread that has them, and told to whoever asks for the figures.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokenlag_channel::{Channel, Counters};
use tokenlag_probes::Transport;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// How long the threads may take to answer. They answer between two reads of a socket.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// Questions that wait for a thread.
const QUESTIONS: usize = 4;

/// What is counted, by the names that reports use, and what each means.
pub(crate) const COUNTS: [(&str, &str); 10] = [
    (
        "wire_bytes_sent",
        "Bytes that sockets to the upstream sent: payload of TCP, TLS included, or of UDP",
    ),
    (
        "wire_bytes_received",
        "Bytes that sockets to the upstream received: payload of TCP, TLS included, or of UDP",
    ),
    (
        "channel_bytes_sent",
        "Bytes sent inside channels to the upstream, without encryption and the transport's own packets",
    ),
    (
        "channel_bytes_received",
        "Bytes received inside channels to the upstream, without encryption and the transport's own packets",
    ),
    (
        "reads",
        "Reads of sockets to the upstream that returned bytes",
    ),
    ("writes", "Writes to sockets to the upstream"),
    (
        "connections_opened",
        "Connections that were opened to the upstream",
    ),
    (
        "handshakes_made",
        "Cryptographic handshakes with the upstream, resumed ones among them",
    ),
    (
        "handshakes_resumed",
        "Handshakes with the upstream that resumed a session made before",
    ),
    (
        "early_data_accepted",
        "Handshakes whose early data (0-RTT) the upstream accepted",
    ),
];

/// How much of each of [`COUNTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried(pub(crate) [u64; COUNTS.len()]);

/// What was carried over each channel.
pub(crate) type ByChannel = BTreeMap<Transport, Carried>;

impl Carried {
    /// What a connection, or several alike, counted. One that is encrypted is open when its handshake is over.
    fn of(counters: Counters, encrypted: bool) -> Self {
        Self([
            counters.bytes_sent,
            counters.bytes_received,
            counters.channel_bytes_sent,
            counters.channel_bytes_received,
            counters.reads,
            counters.writes,
            counters.connections_opened,
            if encrypted {
                counters.connections_opened
            } else {
                0
            },
            counters.handshakes_resumed,
            counters.early_data_accepted,
        ])
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

/// One thread's total over connections of one channel, those that are gone among them. Clones share it; it never falls.
#[derive(Clone, Debug)]
pub(crate) struct Total {
    carried: Rc<Cell<Carried>>,
    encrypted: bool,
}

impl Total {
    /// Nothing yet, over connections that are `encrypted` or not.
    pub(crate) fn new(encrypted: bool) -> Self {
        Self {
            carried: Rc::default(),
            encrypted,
        }
    }

    pub(crate) fn carried(&self) -> Carried {
        self.carried.get()
    }

    /// Adds what `counters` say beyond what was `booked` of the same connections. A channel leaves connections out for a
    /// while that have an exchange under way: they are booked when they are seen again.
    pub(crate) fn book(&self, booked: &mut Carried, counters: Counters) {
        let mut sum = self.carried.get();
        let now = Carried::of(counters, self.encrypted).0;
        for ((sum, booked), now) in sum.0.iter_mut().zip(&mut booked.0).zip(now) {
            *sum += now.saturating_sub(*booked);
            *booked = now.max(*booked);
        }
        self.carried.set(sum);
    }
}

/// A channel whose connections are booked. Exchanges hold it for as long as they last: what they carried is booked at the
/// latest when nobody has the channel any more.
#[derive(Debug)]
pub(crate) struct Metered {
    channel: Channel,
    booked: RefCell<Carried>,
    total: Total,
}

impl Metered {
    pub(crate) fn new(channel: Channel, total: &Total) -> Rc<Self> {
        Rc::new(Self {
            channel,
            booked: RefCell::default(),
            total: total.clone(),
        })
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Books what was carried up to now.
    pub(crate) fn book(&self) {
        self.enter(self.channel.counted());
    }

    /// The same, and has idle connections book what they did below their bytes: with each exchange that would be a system call
    /// more.
    pub(crate) fn look(&self) {
        self.enter(self.channel.counters());
    }

    fn enter(&self, counters: Counters) {
        self.total.book(&mut self.booked.borrow_mut(), counters);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.book();
    }
}

/// Where a thread is asked.
pub(crate) type Asked = mpsc::Receiver<oneshot::Sender<ByChannel>>;

/// A thread that can be asked, and what it said last: a thread that has ended says no more.
#[derive(Debug)]
pub(crate) struct Thread {
    ask: mpsc::Sender<oneshot::Sender<ByChannel>>,
    said: RefCell<ByChannel>,
}

impl Thread {
    /// One that answers where [`Asked`] says so.
    pub(crate) fn new() -> (Self, Asked) {
        let (ask, asked) = mpsc::channel(QUESTIONS);
        let said = RefCell::default();
        (Self { ask, said }, asked)
    }
}

/// What all threads carried up to now. One that does not answer in time counts as when it last did.
pub(crate) async fn gathered(threads: &[Thread]) -> ByChannel {
    let pending: Vec<_> = threads
        .iter()
        .map(|thread| {
            let (tell, told) = oneshot::channel();
            // One that has enough questions, or has ended, drops this one, which ends the wait for it.
            let _ = thread.ask.try_send(tell);
            (thread, told)
        })
        .collect();
    let mut late = pin!(sleep(PATIENCE));
    for (thread, mut told) in pending {
        let said = tokio::select! {
            // What is there counts, however late the thread before it was.
            biased;
            said = &mut told => said.ok(),
            () = &mut late => None,
        };
        if let Some(said) = said {
            thread.said.replace(said);
        }
    }
    let mut sum = ByChannel::new();
    for thread in threads {
        for (&channel, carried) in thread.said.borrow().iter() {
            sum.entry(channel).or_default().add(carried);
        }
    }
    sum
}

#[cfg(test)]
#[path = "carried_tests.rs"]
mod tests;
