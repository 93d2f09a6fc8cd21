//! What the UDP sockets of all threads share: TLS, limits, and who is inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use quinn::ServerConfig;
use quinn::crypto::rustls::QuicServerConfig;

use super::{ALPN, transport};
use crate::bounds::{ExchangeLimits, Room};
use crate::tls::{self, ServerTls};
use crate::{ChannelError, SocketWatch, http3};

/// Clients that may wait for the thread to begin their handshakes.
const WAITING: usize = 1024;

/// Bytes that are kept of a client, and of all clients together, before its handshake begins.
const WAITING_BYTES: u64 = 256 * 1024;
const WAITING_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections that may be open at once, on all sockets.
    pub connections: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Handshakes that may be under way at once before clients over UDP have to prove their addresses first (RFC 9000,
    /// section 8.1.2): a flood from forged addresses costs no cryptography then.
    pub crowd: usize,
    /// Bytes that the bodies of all requests that are being served may have together.
    pub room: usize,
    /// What each exchange may take.
    pub exchange: ExchangeLimits,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Duration::from_secs(10),
            crowd: 1024,
            room: 1024 * 1024 * 1024,
            exchange: ExchangeLimits::default(),
        }
    }
}

/// What the UDP sockets of all threads share: a client may come back on another thread than it was on before.
#[derive(Clone, Debug)]
pub struct Door(pub(super) Arc<Inside>);

#[derive(Debug)]
pub(crate) struct Inside {
    pub(super) config: ServerConfig,
    pub(crate) limits: DoorLimits,
    pub(crate) room: Arc<Room>,
    pub(super) early_data: bool,
    pub(super) watch: SocketWatch,
    open: AtomicUsize,
    handshakes: AtomicUsize,
}

impl Door {
    /// A door for any number of sockets.
    ///
    /// # Errors
    /// The certificate or key cannot be used.
    pub fn new(tls: &ServerTls, limits: DoorLimits) -> Result<Self, ChannelError> {
        Self::watched(tls, limits, SocketWatch::default())
    }

    /// The same, whose connections book into `watch` what they do below their bytes.
    ///
    /// # Errors
    /// The certificate or key cannot be used.
    pub fn watched(
        tls: &ServerTls,
        limits: DoorLimits,
        watch: SocketWatch,
    ) -> Result<Self, ChannelError> {
        Ok(Self(Arc::new(Inside {
            config: server(tls)?,
            watch,
            limits,
            room: Room::new(limits.room),
            early_data: tls.resumption && tls.early_data,
            open: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
        })))
    }
}

impl Door {
    /// What the requests of the door have together.
    pub fn room(&self) -> &Arc<Room> {
        &self.0.room
    }
}

fn server(tls: &ServerTls) -> Result<ServerConfig, ChannelError> {
    let mut crypto = tls::server(tls, &[ALPN, http3::ALPN])?;
    if tls.resumption && tls.early_data {
        // QUIC limits early data by its windows: TLS knows only all or nothing (RFC 9001, section 4.6.1).
        crypto.max_early_data_size = u32::MAX;
    }
    let crypto =
        QuicServerConfig::try_from(crypto).map_err(|error| ChannelError::Tls(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport::config(transport::Side::Server))
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES)
        .incoming_buffer_size_total(WAITING_BYTES_TOTAL);
    Ok(config)
}

/// A connection's place among those that may be open.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) door: Arc<Inside>,
    /// There was one left.
    pub(super) granted: bool,
}

impl Place {
    pub(super) fn new(door: &Arc<Inside>) -> Self {
        let before = door.open.fetch_add(1, Relaxed);
        Self {
            granted: before < door.limits.connections,
            door: Arc::clone(door),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.open.fetch_sub(1, Relaxed);
    }
}

/// A handshake among those that are under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    door: Arc<Inside>,
    /// There are too many to trust addresses that were not proved.
    pub(super) crowded: bool,
}

impl UnderWay {
    pub(super) fn new(door: &Arc<Inside>) -> Self {
        let before = door.handshakes.fetch_add(1, Relaxed);
        Self {
            crowded: before >= door.limits.crowd,
            door: Arc::clone(door),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.door.handshakes.fetch_sub(1, Relaxed);
    }
}
