//! A server of both UDP protocols on loopback, and clients of it.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod raw;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::quic::{Accepted, Door, DoorLimits, Listener, bind};
use tokenlag_channel::tls::{ClientTls, Identity, ServerTls, self_signed};
use tokenlag_channel::{
    Ask, Channel, ChannelError, Chunk, Dial, ExchangeError, Incoming, Reply, Request, Stamping,
    http3, quic,
};
use tokenlag_probes::{Encoding, Stamp, TraceId, Transport};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// Both protocols of the UDP port.
pub const BOTH: [Transport; 2] = [Transport::Quic, Transport::Http3];

/// Runs a test as the proxy runs: on one thread.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// What a server is, and what it saw.
#[derive(Clone)]
pub struct Server {
    pub dial: Dial,
    pub certificate: String,
    pub seen: Rc<Seen>,
}

#[derive(Default)]
pub struct Seen {
    /// Requests, in the order in which they were whole.
    pub requests: RefCell<Vec<Incoming>>,
    /// Requests that could not be served.
    pub errors: RefCell<Vec<ExchangeError>>,
    pub connections: Cell<usize>,
    pub refusals: RefCell<Vec<Option<&'static str>>>,
    pub offences: RefCell<Vec<&'static str>>,
    /// A connection was refused, or is over.
    pub left: Notify,
    pub strays: std::sync::Arc<std::sync::atomic::AtomicU64>,
    /// A request was read, or could not be.
    pub came: Notify,
    /// A reply was given up by its client.
    pub given_up: Notify,
    /// Lets replies to `/wait` go on.
    pub go_on: Notify,
    /// Tells a connection to take no further exchange.
    pub leave: Notify,
    /// Tells a connection to end without a word.
    pub hang_up: Notify,
}

pub fn identity() -> Identity {
    self_signed(&["127.0.0.1"]).unwrap()
}

/// A server with its own certificate and the usual limits.
pub fn server() -> Server {
    server_with(tls(false), DoorLimits::default())
}

pub fn tls(early_data: bool) -> ServerTls {
    ServerTls {
        identity: identity(),
        resumption: true,
        early_data,
    }
}

pub fn server_with(tls: ServerTls, limits: DoorLimits) -> Server {
    let door = Door::new(&tls, limits).unwrap();
    server_behind(&door, &tls.identity)
}

/// A socket of a door that there may be more of.
pub fn server_behind(door: &Door, identity: &Identity) -> Server {
    let socket = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let seen = Rc::new(Seen::default());
    let strays = std::sync::Arc::clone(&seen.strays);
    let listener = Listener::new(socket, door, move |count| {
        strays.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        tls: Some(ClientTls::trusting(identity.cert_pem.as_bytes()).unwrap()),
        stamping: Stamping::default(),
        nagle: false,
    };
    let its = Rc::clone(&seen);
    spawn_local(async move {
        while let Some(handshake) = listener.accept().await {
            let seen = Rc::clone(&its);
            spawn_local(async move {
                match handshake.finish().await {
                    Ok(Accepted::Quic(connection)) => serve_quic(connection, &seen).await,
                    Ok(Accepted::Http3(connection)) => serve_http3(*connection, &seen).await,
                    Err(refusal) => seen.refusals.borrow_mut().push(refusal.reason()),
                }
                seen.left.notify_one();
            });
        }
    });
    let certificate = identity.cert_pem.clone();
    Server {
        dial,
        certificate,
        seen,
    }
}

async fn serve_quic(connection: quic::ServerConnection, seen: &Rc<Seen>) {
    seen.connections.set(seen.connections.get() + 1);
    let mut leaving = false;
    loop {
        let exchange = tokio::select! {
            exchange = connection.next_exchange() => exchange,
            () = seen.hang_up.notified() => None,
            () = seen.leave.notified() => {
                leaving = true;
                continue;
            }
        };
        let Some(exchange) = exchange else {
            break;
        };
        if leaving {
            continue;
        }
        let seen = Rc::clone(seen);
        spawn_local(async move {
            let (request, mut writer) = match exchange.request().await {
                Ok((incoming, writer)) => (Ok(incoming), writer),
                Err((error, writer)) => (Err(error), writer),
            };
            let incoming = match seen.note(request) {
                Ok(incoming) => incoming,
                Err(status) => {
                    writer.head(status, Vec::new(), false);
                    // The client may be gone.
                    let _ = writer.finish().await;
                    return;
                }
            };
            let fields = vec![("x-reply".to_owned(), Bytes::from_static(b"yes"))];
            writer.head(200, fields, false);
            for _ in 0..pieces(&incoming) {
                writer.data(&incoming.body);
                if writer.flush().await.is_err() {
                    return;
                }
            }
            match path(&incoming) {
                "/cut" => return,
                "/wait" => tokio::select! {
                    () = seen.go_on.notified() => {}
                    () = writer.given_up() => return seen.given_up.notify_one(),
                },
                _ => {}
            }
            // The client may be gone.
            let _ = writer.finish().await;
        });
    }
    seen.offences.borrow_mut().extend(connection.offence());
}

async fn serve_http3(mut connection: http3::ServerConnection, seen: &Rc<Seen>) {
    seen.connections.set(seen.connections.get() + 1);
    loop {
        let exchange = tokio::select! {
            exchange = connection.next_exchange() => exchange,
            () = seen.hang_up.notified() => None,
            () = seen.leave.notified() => {
                connection.leave().await;
                continue;
            }
        };
        let Some(exchange) = exchange else {
            break;
        };
        let seen = Rc::clone(seen);
        spawn_local(async move {
            let (request, writer) = match exchange.request().await {
                Ok((incoming, writer)) => (Ok(incoming), Some(writer)),
                Err((error, writer)) => (Err(error), writer),
            };
            let request = seen.note(request);
            let Some(mut writer) = writer else {
                return;
            };
            let incoming = match request {
                Ok(incoming) => incoming,
                Err(status) => {
                    writer.head(status, &[]);
                    // The client may be gone.
                    let _ = writer.finish().await;
                    return;
                }
            };
            writer.head(200, &[("x-reply".to_owned(), Bytes::from_static(b"yes"))]);
            for _ in 0..pieces(&incoming) {
                writer.data(incoming.body.clone());
                if writer.flush().await.is_err() {
                    return;
                }
            }
            match path(&incoming) {
                "/cut" => return writer.cut_off().await,
                "/wait" => tokio::select! {
                    () = seen.go_on.notified() => {}
                    () = writer.given_up() => return seen.given_up.notify_one(),
                },
                _ => {}
            }
            // The client may be gone.
            let _ = writer.finish().await;
        });
    }
    seen.offences.borrow_mut().extend(connection.offence());
}

impl Seen {
    /// The request, or the status with which it is refused.
    fn note(&self, request: Result<Incoming, ExchangeError>) -> Result<Incoming, u16> {
        match &request {
            Ok(incoming) => self.requests.borrow_mut().push(incoming.clone()),
            Err(error) => self.errors.borrow_mut().push(error.clone()),
        }
        self.came.notify_one();
        request.map_err(|error| error.status().unwrap_or(400))
    }

    /// Waits until so many requests were whole.
    pub async fn requests(&self, count: usize) {
        while self.requests.borrow().len() < count {
            self.came.notified().await;
        }
    }

    /// Waits until a connection is over or was refused; gives what was held against it.
    pub async fn verdict(&self) -> Option<&'static str> {
        self.left.notified().await;
        let refusal = self.refusals.borrow_mut().pop().flatten();
        refusal.or_else(|| self.offences.borrow_mut().pop())
    }

    /// Waits until so many requests could not be served.
    pub async fn errors(&self, count: usize) {
        while self.errors.borrow().len() < count {
            self.came.notified().await;
        }
    }
}

fn path(incoming: &Incoming) -> &str {
    incoming.target().split('?').next().unwrap()
}

/// How often the body is sent back: `?pieces=N`.
fn pieces(incoming: &Incoming) -> usize {
    let number = incoming.target().split_once("?pieces=");
    number.map_or(1, |(_, number)| number.parse().unwrap())
}

impl Server {
    pub fn channel(&self, transport: Transport) -> Channel {
        Channel::new(transport, self.dial.clone())
    }

    /// A channel that trusts the server and remembers as `tls` does.
    pub fn channel_with(&self, transport: Transport, tls: &ClientTls) -> Channel {
        let dial = Dial {
            tls: Some(tls.clone()),
            ..self.dial.clone()
        };
        Channel::new(transport, dial)
    }

    pub fn trust(&self) -> ClientTls {
        self.dial.tls.clone().unwrap()
    }
}

pub fn request(transport: Transport, path: &str, body: &str) -> Request {
    let ask = Ask {
        path,
        authority: "test",
        headers: &[("x-name".to_owned(), "value".to_owned())],
        body: body.as_bytes(),
        trace: TraceId::from_bits(1),
        encoding: Encoding::Events,
    };
    Request::render(transport, &ask).unwrap()
}

pub async fn chunks(reply: &mut Reply) -> Result<Vec<Chunk>, ChannelError> {
    let mut chunks = Vec::new();
    while let Some(chunk) = reply.next().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

pub fn text(chunks: &[Chunk]) -> String {
    let bytes: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk.bytes.to_vec())
        .collect();
    String::from_utf8(bytes).unwrap()
}

/// One exchange: the reply's text, and when the request's first byte could go.
pub async fn ask(
    channel: &Channel,
    transport: Transport,
    path: &str,
    body: &str,
) -> Result<(String, Stamp), ChannelError> {
    let mut reply = channel.open(&request(transport, path, body)).await?;
    let connected = reply.opening().connected;
    let chunks = chunks(&mut reply).await?;
    reply.finish().await?;
    Ok((text(&chunks), connected))
}
