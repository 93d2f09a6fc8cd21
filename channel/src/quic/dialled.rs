//! A QUIC connection as the dialling end makes it, whatever protocol it carries.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connecting, Connection, Endpoint, EndpointConfig, TokioRuntime, VarInt,
    ZeroRttAccepted,
};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::sync::watch;
use tokio::time::timeout;

use super::session::WatchedConfig;
use super::socket::StampedSocket;
use super::transport::{self, Side};
use super::watched::Watched;
use crate::tls::ClientTls;
use crate::turns::Turn;
use crate::watch::Askable;
use crate::{ChannelError, Counters, Datagrams, Dial, tcp, tls};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// How long a server may acknowledge nothing, round trips apart, before further exchanges go elsewhere.
const SILENCE: Duration = Duration::from_secs(2);

/// Round trips that a probe for what was lost may take.
const PROBE: u32 = 8;

/// A connection, and the socket that it has for itself.
#[derive(Debug)]
pub(crate) struct Dialled {
    endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) socket: Arc<StampedSocket>,
    /// The server showed its certificate.
    full: Arc<AtomicBool>,
    progress: watch::Receiver<Progress>,
    watched: Arc<Watched>,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// What is sent now is early data.
    UnderWay,
    /// It is over.
    Done {
        /// Early data was sent, and the server took it.
        early_data: bool,
    },
    /// It failed.
    Failed,
}

impl Dialled {
    /// Connects, and tells when the name was resolved. With early data the handshake may still be under way. Where there is no
    /// `turn` yet it waits for one before, and that is not part of the time that it may take.
    ///
    /// # Errors
    /// No turn, no connection, or a peer that shows another certificate or speaks another protocol.
    pub(crate) async fn new(
        dial: &Dial,
        alpn: &[u8],
        protocol: &'static str,
        turn: Option<Turn>,
    ) -> Result<(Self, Stamp), ChannelError> {
        let tls = dial.tls.as_ref().ok_or_else(|| {
            let why =
                format!("{protocol} needs the proxy's certificate to trust; give its PEM file");
            ChannelError::Tls(why)
        })?;
        let turn = match turn {
            Some(turn) => turn,
            None => tls.turns().take(dial).await?,
        };
        timeout(
            dial.connect_timeout,
            connect(dial, tls, alpn, protocol, turn),
        )
        .await
        .unwrap_or_else(|_| {
            let limit = dial.connect_timeout;
            Err(tcp::connect_timeout(&dial.host, dial.port, limit))
        })
    }

    /// Whether what is sent now is early data.
    pub(crate) fn is_early(&self) -> bool {
        *self.progress.borrow() == Progress::UnderWay
    }

    /// Whether the connection can take exchanges. Where the server does not even acknowledge those that it has, it may be
    /// gone; they are left to the idle timeout, since it may as well be at work on them.
    pub(crate) fn is_open(&self) -> bool {
        let silence = self.socket.silence();
        let silent = silence > SILENCE && silence > SILENCE + self.connection.rtt() * PROBE;
        !silent && self.connection.close_reason().is_none()
    }

    /// Returns when the handshake is over, however it ended.
    pub(crate) async fn settled(&self) {
        let mut progress = self.progress.clone();
        // A sender that is gone has said all.
        let _ = progress
            .wait_for(|progress| *progress != Progress::UnderWay)
            .await;
    }

    pub(crate) fn counters(&self) -> Counters {
        self.watched.book();
        let progress = *self.progress.borrow();
        let done = matches!(progress, Progress::Done { .. });
        let accepted = progress == Progress::Done { early_data: true };
        Counters {
            handshakes_resumed: u64::from(done && !self.full.load(Relaxed)),
            early_data_accepted: u64::from(accepted),
            datagrams: Datagrams::of(&self.connection),
            ..self.socket.counters()
        }
    }

    /// Closes the connection and lets the farewell leave.
    pub(crate) async fn close(&self, code: u32) {
        self.connection.close(VarInt::from_u32(code), b"done");
        // A farewell that does not leave in time is not waited for.
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

async fn connect(
    dial: &Dial,
    tls: &ClientTls,
    alpn: &[u8],
    protocol: &'static str,
    turn: Turn,
) -> Result<(Dialled, Stamp), ChannelError> {
    let crypto = QuicClientConfig::try_from(tls.config(&[alpn])?)
        .map_err(|error| ChannelError::Tls(error.to_string()))?;
    let crypto = Arc::new(crypto);
    let addresses = tcp::resolve(&dial.host, dial.port).await?;
    let resolved = MonoClock.now();
    let mut refused = None;
    let mut turn = Some(turn);
    for address in addresses {
        let full = Arc::new(AtomicBool::new(false));
        let watched = WatchedConfig {
            inner: Arc::clone(&crypto),
            witness: Arc::clone(tls.witness()),
            full: Arc::clone(&full),
        };
        let mut config = ClientConfig::new(Arc::new(watched));
        config.transport_config(transport::config(Side::Client));
        match attempt(
            dial,
            address,
            config,
            full,
            protocol,
            tls.name_at(&dial.host),
            &mut turn,
        )
        .await
        {
            Ok(dialled) => return Ok((dialled, resolved)),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.expect("resolve gives at least one address"))
}

async fn attempt(
    dial: &Dial,
    address: SocketAddr,
    config: ClientConfig,
    full: Arc<AtomicBool>,
    protocol: &'static str,
    name: &str,
    turn: &mut Option<Turn>,
) -> Result<Dialled, ChannelError> {
    let cannot = |source: std::io::Error| ChannelError::Connect {
        address: address.to_string(),
        source: source.into(),
    };
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)
        .and_then(|socket| {
            // A socket that is connected is told where nobody listens; elsewhere it could not be sent on any more.
            if cfg!(target_os = "linux") {
                socket.connect(address)?;
            }
            StampedSocket::dialled(socket, &dial.stamping)
        })
        .map_err(cannot)?;
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::clone(&socket) as _,
        Arc::new(TokioRuntime),
    )
    .map_err(cannot)?;
    let refused = |reason: String| ChannelError::Handshake {
        address: address.to_string(),
        protocol,
        reason,
    };
    let connecting = endpoint
        .connect_with(config, address, name)
        .map_err(|error| refused(error.to_string()))?;
    let (connection, progress) = match early(connecting, dial, turn) {
        Ok(early) => early,
        Err(connecting) => {
            let connection = connecting
                .await
                .map_err(|error| match socket.is_refused() {
                    true => cannot(io::ErrorKind::ConnectionRefused.into()),
                    false => refused(tls::explained(&error.to_string())),
                })?;
            let done = Progress::Done { early_data: false };
            (connection, watch::channel(done).1)
        }
    };
    Ok(Dialled {
        watched: Watched::by(dial.stamping.watch(), &connection, &socket),
        endpoint,
        connection,
        socket,
        full,
        progress,
    })
}

/// The connection before its handshake is over, where an earlier session allows it; the turn is over with the handshake.
fn early(
    connecting: Connecting,
    dial: &Dial,
    turn: &mut Option<Turn>,
) -> Result<(Connection, watch::Receiver<Progress>), Connecting> {
    let wanted = dial.tls.as_ref().is_some_and(|tls| tls.sends_early_data());
    if !wanted {
        return Err(connecting);
    }
    let (connection, accepted) = connecting.into_0rtt()?;
    let (tell, progress) = watch::channel(Progress::UnderWay);
    tokio::spawn(follow(
        connection.clone(),
        accepted,
        dial.connect_timeout,
        tell,
        turn.take(),
    ));
    Ok((connection, progress))
}

/// Sees a handshake through.
async fn follow(
    connection: Connection,
    accepted: ZeroRttAccepted,
    limit: Duration,
    tell: watch::Sender<Progress>,
    turn: Option<Turn>,
) {
    let accepted = timeout(limit, accepted).await;
    drop(turn);
    if accepted.is_err() {
        connection.close(VarInt::from_u32(0), b"the handshake took too long");
    }
    tell.send_replace(match (accepted, connection.close_reason()) {
        (Ok(early_data), None) => Progress::Done { early_data },
        _ => Progress::Failed,
    });
}
