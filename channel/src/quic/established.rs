//! A connection that was accepted, whatever protocol it carries.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, VarInt, ZeroRttAccepted};
use tokio::sync::watch;
use tokio::time::timeout;

use super::door::{Inside, Place};
use super::refusal::{Refusal, refusal};
use super::socket::StampedSocket;
use super::watched::Watched;

/// A connection that was made, whatever protocol it carries.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) connection: Connection,
    pub(crate) confirmed: Confirmed,
    pub(crate) door: Arc<Inside>,
    pub(crate) socket: Arc<StampedSocket>,
    pub(super) _place: Place,
    pub(super) _watched: Arc<Watched>,
}

impl Established {
    pub(super) fn protocol(&self) -> Option<Vec<u8>> {
        let data = self.connection.handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    /// How the client broke the rules of QUIC, where that ended the connection: the name under which it is counted.
    pub(crate) fn offence(&self) -> Option<&'static str> {
        match self.connection.close_reason()? {
            ConnectionError::TransportError(_) => Some("protocol"),
            ConnectionError::LocallyClosed if !self.confirmed.is_there() => Some("slow_handshake"),
            // With early data a connection is there before the client judged the certificate.
            closed @ ConnectionError::ConnectionClosed(_) => match refusal(&closed) {
                distrusted @ Refusal::Distrusted(_) => distrusted.reason(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether the client is known to be there now: until then its requests may be copies that somebody recorded.
#[derive(Clone, Debug)]
pub(crate) struct Confirmed(watch::Receiver<bool>);

impl Confirmed {
    pub(super) fn at_once() -> Self {
        Self(watch::channel(true).1)
    }

    pub(super) fn when(
        accepted: ZeroRttAccepted,
        connection: &Connection,
        limit: Duration,
    ) -> Self {
        let (confirm, confirmed) = watch::channel(false);
        let connection = connection.clone();
        tokio::spawn(async move {
            match timeout(limit, accepted).await {
                Ok(_) => drop(confirm.send_replace(true)),
                Err(_) => connection.close(VarInt::from_u32(0), b"the handshake took too long"),
            }
        });
        Self(confirmed)
    }

    fn is_there(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the handshake is over; the connection may be closed then.
    pub(crate) async fn wait(&self) {
        // A sender that is gone means the same.
        let _ = self.0.clone().wait_for(|&confirmed| confirmed).await;
    }
}
