//! The UDP door: QUIC connections, and the front that each goes to by the protocol that its client chose.

use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;

use tokenlag_channel::ChannelError;
use tokenlag_channel::quic::{Accepted, Door, Handshake, Listener};

use super::{http3, quic};
use crate::worker::Worker;

const DOOR: &str = "udp";

/// Takes a bound socket over.
///
/// # Errors
/// The system refuses the socket.
pub(crate) fn listen(
    worker: &Worker,
    socket: UdpSocket,
    door: &Door,
) -> Result<Listener, ChannelError> {
    let book = Arc::clone(&worker.book);
    Listener::new(socket, door, move |strays| {
        book.metrics.refused_many(DOOR, "garbage", strays);
    })
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, handshake: Handshake) {
    // Each future is boxed by itself: a connection that lies idle costs what its own protocol needs.
    match handshake.finish().await {
        Ok(Accepted::Quic(connection)) => Box::pin(quic::serve(worker, connection)).await,
        Ok(Accepted::Http3(connection)) => Box::pin(http3::serve(worker, *connection)).await,
        Err(refusal) => {
            if let Some(reason) = refusal.reason() {
                worker.book.metrics.refused(DOOR, reason);
            }
        }
    }
}
