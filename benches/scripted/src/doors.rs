//! The channels beside plain HTTP/1.1: a thread of its own with the accepting ends that the proxy has too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokenlag_channel::accept::{self, Acceptor};
use tokenlag_channel::http::{RequestHead, ServerConnection};
use tokenlag_channel::quic::{self, Door, DoorLimits, Listener};
use tokenlag_channel::tls::{ServerTls, self_signed};
use tokenlag_channel::ws::{Received, Upgrade, WebSocket};
use tokenlag_channel::{Incoming, http2, http3};
use tokenlag_probes::{Clock, MonoClock, Stamp, TraceId};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use crate::alarm::Alarm;
use crate::answer::{Answer, answer};
use crate::backend::Shared;
use crate::journal::ReceivedRequest;
use crate::out::{Out, Sink};
use crate::pace::{self, Pace};
use crate::play::{Playback, What};
use crate::socket;

/// How long a client may take no byte at all.
const STALLED: Duration = Duration::from_secs(30);

/// How long a handshake may take: that of a thousand clients which begin together is not over in the usual ten seconds where
/// datagrams of it were lost, and the instrument turns nobody away.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// Where the other channels are taken. Dropping it closes them.
#[derive(Debug)]
pub struct Doors {
    tcp: SocketAddr,
    udp: SocketAddr,
    certificate: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Doors {
    pub(crate) fn open(shared: Arc<Shared>, wanted: Pace) -> io::Result<Self> {
        let identity = self_signed(&["localhost", "127.0.0.1"]).map_err(io::Error::other)?;
        let certificate = identity.cert_pem.clone();
        let tls = ServerTls {
            identity,
            resumption: false,
            early_data: false,
        };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let socket = quic::bind((Ipv4Addr::LOCALHOST, 0).into(), false)?;
        let (tcp, udp) = (listener.local_addr()?, socket.local_addr()?);
        let limits = DoorLimits {
            handshake: HANDSHAKE,
            ..DoorLimits::default()
        };
        let acceptor = Acceptor::new(&tls, limits).map_err(io::Error::other)?;
        let door = Door::new(&tls, limits).map_err(io::Error::other)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move || {
            let house = Rc::new(House {
                shared,
                pace: pace::take(wanted),
            });
            house.shared.set_pace(house.pace);
            let over_tcp = accept_tcp(&house, listener, &acceptor);
            let over_udp = accept_udp(&house, socket, &door);
            tokio::select! {
                // A sender that is gone means the same.
                _ = stopped => {}
                // A socket that fails stops its door alone: who dials it finds out.
                _ = async { tokio::join!(over_tcp, over_udp) } => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("scripted-doors".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, serve()))?;
        Ok(Self {
            tcp,
            udp,
            certificate,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// TCP: HTTP/2 by prior knowledge and by ALPN, WebSocket, HTTP/1.1.
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// UDP: HTTP/3 and the raw QUIC channel.
    pub fn udp(&self) -> SocketAddr {
        self.udp
    }

    /// The certificate (PEM) that clients of TLS and QUIC must trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A thread that is gone has stopped.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What all connections of the thread share.
struct House {
    shared: Arc<Shared>,
    pace: Pace,
}

async fn accept_tcp(house: &Rc<House>, listener: std::net::TcpListener, acceptor: &Acceptor) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        spawn_local(serve_tcp(Rc::clone(house), stream, acceptor.clone()));
    }
}

async fn serve_tcp(house: Rc<House>, stream: TcpStream, acceptor: Acceptor) {
    let number = house.shared.next_connection();
    socket::send_at_once(&stream);
    match acceptor.accept(stream).await {
        Ok(accept::Accepted::Http1(connection)) => serve_http1(&house, connection, number).await,
        Ok(accept::Accepted::Http2(connection)) => {
            while let Some(exchange) = connection.next_exchange().await {
                spawn_local(serve_http2(Rc::clone(&house), exchange, number));
            }
        }
        // The client finds out by itself.
        Err(_) => {}
    }
}

async fn serve_http2(house: Rc<House>, exchange: http2::Exchange, number: u64) {
    if let Ok((incoming, writer)) = exchange.request().await {
        let request = received(incoming, number);
        let _ = house.respond(&request, Out::new(Sink::Http2(writer))).await;
    }
}

async fn serve_http1(house: &House, mut connection: ServerConnection, number: u64) {
    while let Ok(Some(incoming)) = connection.next_request().await {
        let head = incoming.head;
        if head.wants_websocket() {
            if let Ok(upgrade) = Upgrade::of(&head)
                && let Ok(socket) = upgrade.grant(connection, [], STALLED).await
            {
                serve_websocket(house, &socket, &head, number).await;
            }
            return;
        }
        let Ok(body) = connection.whole_body().await else {
            return;
        };
        let at = connection.read_at();
        let request = of_head(&head, body.to_vec(), at, number);
        let out = Out::new(Sink::Http1(&mut connection));
        if !house.respond(&request, out).await.unwrap_or(false) {
            return;
        }
    }
}

/// One exchange after the other, each begun by a message.
async fn serve_websocket(house: &House, socket: &WebSocket, head: &RequestHead, number: u64) {
    while let Ok(Received::Text { text, in_body, .. }) = socket.receive().await {
        let mut request = of_head(head, text.as_bytes().to_vec(), in_body, number);
        request.method = "POST".to_owned();
        let json: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let named = json["client_metadata"]["ws_request_header_traceparent"].as_str();
        request.trace = named.and_then(TraceId::from_traceparent).or(request.trace);
        let out = Out::new(Sink::Ws(socket));
        if !house.respond(&request, out).await.unwrap_or(false) {
            return;
        }
    }
}

async fn accept_udp(house: &Rc<House>, socket: std::net::UdpSocket, door: &Door) {
    let Ok(listener) = Listener::new(socket, door, |_| {}) else {
        return;
    };
    while let Some(handshake) = listener.accept().await {
        let house = Rc::clone(house);
        spawn_local(async move {
            let number = house.shared.next_connection();
            match handshake.finish().await {
                Ok(quic::Accepted::Quic(connection)) => {
                    while let Some(exchange) = connection.next_exchange().await {
                        spawn_local(serve_quic(Rc::clone(&house), exchange, number));
                    }
                }
                Ok(quic::Accepted::Http3(mut connection)) => {
                    while let Some(exchange) = connection.next_exchange().await {
                        spawn_local(serve_http3(Rc::clone(&house), exchange, number));
                    }
                }
                // The client finds out by itself.
                Err(_) => {}
            }
        });
    }
}

async fn serve_quic(house: Rc<House>, exchange: quic::Exchange, number: u64) {
    if let Ok((incoming, writer)) = exchange.request().await {
        let request = received(incoming, number);
        let _ = house.respond(&request, Out::new(Sink::Quic(writer))).await;
    }
}

async fn serve_http3(house: Rc<House>, exchange: http3::Exchange, number: u64) {
    if let Ok((incoming, writer)) = exchange.request().await {
        let request = received(incoming, number);
        let _ = house.respond(&request, Out::new(Sink::Http3(writer))).await;
    }
}

impl House {
    /// Answers a request; whether its connection is good for another.
    async fn respond(&self, request: &ReceivedRequest, out: Out<'_>) -> io::Result<bool> {
        match answer(request, &self.shared) {
            Answer::Whole { due, status, body } => {
                Alarm::new(self.pace)?.until(due).await?;
                out.whole(status, &body).await?;
                Ok(true)
            }
            Answer::Stream(playback) => self.play(*playback, request.trace, out).await,
        }
    }

    async fn play(
        &self,
        mut playback: Playback,
        trace: Option<TraceId>,
        mut out: Out<'_>,
    ) -> io::Result<bool> {
        let alarm = Alarm::new(self.pace)?;
        let mut stamps = Vec::with_capacity(playback.deltas());
        let note = |stamps: Vec<Stamp>| {
            if let Some(trace) = trace {
                self.shared.journal.note_emissions(trace, stamps);
            }
        };
        while let Some(step) = playback.next_step() {
            alarm.until(step.due).await?;
            if let What::End { bytes, ending } = &step.what {
                // Before the end is written, so that who saw the end finds them.
                note(stamps);
                return out.end(bytes, *ending).await;
            }
            let before = MonoClock.now();
            if let What::Events { deltas, .. } = step.what
                && deltas > 0
            {
                self.shared.note_lateness(before.since(step.due));
                stamps.extend(std::iter::repeat_n(before, deltas as usize));
            }
            if let Err(error) = out.write(&step.what).await {
                note(stamps);
                return Err(error);
            }
        }
        Ok(false)
    }
}

fn received(incoming: Incoming, connection: u64) -> ReceivedRequest {
    let trace = incoming
        .field("traceparent")
        .and_then(TraceId::from_traceparent);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = incoming.fields();
    ReceivedRequest {
        connection,
        at: incoming.in_body,
        method: incoming.method().to_owned(),
        path: incoming.target().to_owned(),
        headers: fields
            .map(|(name, value)| (name.to_ascii_lowercase(), text(value)))
            .collect(),
        body: incoming.body.to_vec(),
        trace,
    }
}

fn of_head(head: &RequestHead, body: Vec<u8>, at: Stamp, connection: u64) -> ReceivedRequest {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = head.headers.iter();
    let trace = head.headers.get("traceparent");
    ReceivedRequest {
        connection,
        at,
        method: head.method.clone().into_owned(),
        path: head.target.clone(),
        headers: fields
            .map(|(name, value)| (text(name).to_ascii_lowercase(), text(value)))
            .collect(),
        body,
        trace: trace.and_then(TraceId::from_traceparent),
    }
}
