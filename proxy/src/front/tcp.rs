//! The TCP door: finds out what each connection speaks, and hands it to the front that serves that.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokenlag_channel::accept::{Accepted, Acceptor};
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::ServerTls;
use tokenlag_channel::{ChannelError, Room, SocketWatch};
use tokio::net::TcpStream;
use tokio::select;

use super::{http, http2};
use crate::worker::Worker;

const DOOR: &str = "tcp";

/// How long clients may remember where HTTP/3 is spoken, in seconds: an hour, so that a proxy that is gone is soon
/// forgotten.
const REMEMBERED: u32 = 3600;

/// The door that all threads have in common: a client that resumes a TLS session may do so on whichever thread takes it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    acceptor: Acceptor,
    watch: SocketWatch,
    /// Connections that may be open at once, and those that are.
    most: usize,
    open: Arc<AtomicUsize>,
    /// Where HTTP/3 is spoken, as the field `Alt-Svc` has it (RFC 7838).
    alt_svc: Option<Arc<str>>,
}

/// A connection's place among those that may be open.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Door {
    /// A door for all threads. `http3` is the UDP port on which HTTP/3 is spoken; with `nagle` TCP may hold small writes back.
    ///
    /// # Errors
    /// The certificate or key cannot be used.
    pub(crate) fn new(
        tls: &ServerTls,
        limits: DoorLimits,
        http3: Option<u16>,
        nagle: bool,
    ) -> Result<Self, ChannelError> {
        let alt_svc = http3.map(|port| format!("h3=\":{port}\"; ma={REMEMBERED}").into());
        let watch = SocketWatch::default();
        let acceptor = Acceptor::new(tls, limits)?.with_nagle(nagle);
        Ok(Self {
            acceptor: acceptor.watched(watch.clone()),
            watch,
            most: limits.connections,
            open: Arc::default(),
            alt_svc,
        })
    }

    /// What connections of clients did below their bytes, those over UDP among them.
    pub(crate) fn watch(&self) -> &SocketWatch {
        &self.watch
    }

    /// What the requests of all connections have together.
    pub(crate) fn room(&self) -> &Arc<Room> {
        self.acceptor.room()
    }

    /// What a client is told about HTTP/3: only one that came over TLS, since another could be sent anywhere by whoever
    /// sits between (RFC 7838, section 2.1).
    pub(super) fn alt_svc(&self, is_tls: bool) -> Option<&str> {
        self.alt_svc.as_deref().filter(|_| is_tls)
    }

    /// A place for one more connection; `None` where there is none.
    fn enter(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.open));
        // Where it is too many, the place is given back as it goes.
        (place.0.fetch_add(1, Relaxed) < self.most).then_some(place)
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream) {
    let Some(_place) = worker.door.enter() else {
        return worker.book.metrics.refused(DOOR, "full");
    };
    let accepted = select! {
        biased;
        accepted = worker.door.acceptor.accept(stream) => accepted,
        () = worker.draining() => return,
    };
    // Each future is boxed by itself: a connection that lies idle costs what its own protocol needs.
    match accepted {
        Ok(Accepted::Http1(connection)) => {
            Box::pin(http::serve(worker, Box::new(connection))).await;
        }
        Ok(Accepted::Http2(connection)) => {
            Box::pin(http2::serve(worker, connection)).await;
        }
        Err(error) => {
            if let Some((door, reason)) = error.refusal() {
                worker.book.metrics.refused(door, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenlag_channel::tls;

    use super::*;

    fn door(most: usize) -> Door {
        let tls = ServerTls {
            identity: tls::self_signed(&["localhost"]).unwrap(),
            resumption: true,
            early_data: false,
        };
        let limits = DoorLimits {
            connections: most,
            ..DoorLimits::default()
        };
        Door::new(&tls, limits, Some(8443), false).unwrap()
    }

    #[test]
    fn a_place_that_is_left_can_be_taken_again() {
        let door = door(2);
        let first = door.enter().unwrap();
        let _second = door.enter().unwrap();
        assert!(door.enter().is_none());
        assert!(door.enter().is_none());
        drop(first);
        assert!(door.enter().is_some());
    }

    #[test]
    fn only_who_came_over_tls_is_sent_elsewhere() {
        let door = door(1);
        assert_eq!(door.alt_svc(false), None);
        assert_eq!(door.alt_svc(true), Some("h3=\":8443\"; ma=3600"));
    }
}
