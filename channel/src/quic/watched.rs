//! A QUIC connection that books what it did as packets and as calls: when somebody wants to know, and as it ends.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::Connection;

use super::socket::StampedSocket;
use crate::watch::Askable;
use crate::{Datagrams, SocketWatch};

/// A connection, its socket, which may be others' too, and where both are booked.
#[derive(Debug)]
pub(crate) struct Watched {
    connection: Connection,
    socket: Arc<StampedSocket>,
    watch: SocketWatch,
    booked: Mutex<Datagrams>,
}

impl Datagrams {
    /// What a connection did up to now.
    pub(crate) fn of(connection: &Connection) -> Self {
        let stats = connection.stats();
        Self {
            sent: stats.udp_tx.datagrams,
            received: stats.udp_rx.datagrams,
            lost: stats.path.lost_packets,
            congestion_events: stats.path.congestion_events,
            congestion_windows: stats.path.cwnd,
        }
    }
}

impl Watched {
    /// One of which nothing is booked yet.
    pub(crate) fn by(
        watch: &SocketWatch,
        connection: &Connection,
        socket: &Arc<StampedSocket>,
    ) -> Arc<Self> {
        let watched = Arc::new(Self {
            connection: connection.clone(),
            socket: Arc::clone(socket),
            watch: watch.clone(),
            booked: Mutex::default(),
        });
        let weak = Arc::downgrade(&watched);
        watch.add(weak);
        watched
    }
}

impl Askable for Watched {
    /// Books what was done since it was booked last, and what the connection's window is.
    fn book(&self) {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: another thread may book, too, and what it saw must not come after what was seen here.
        let now = Datagrams::of(&self.connection);
        let before = std::mem::replace(&mut *booked, now);
        let (reads, writes) = self.socket.take_calls();
        let mut counts = self.watch.counts();
        counts.reads += reads;
        counts.writes += writes;
        counts.packets_sent += now.sent.saturating_sub(before.sent);
        counts.packets_received += now.received.saturating_sub(before.received);
        counts.packets_lost += now.lost.saturating_sub(before.lost);
        let events = now.congestion_events;
        counts.congestion_events += events.saturating_sub(before.congestion_events);
        counts.windows.take(now.congestion_windows);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.book();
    }
}
