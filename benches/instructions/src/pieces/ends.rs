//! A token over a channel between its two ends, on one thread and one loopback connection: what only the library below
//! can do, and what we do around it.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::accept::{Accepted, Acceptor};
use tokenlag_channel::http2::{Exchange, ReplyWriter};
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{ServerTls, self_signed};
use tokenlag_channel::ws::{Received, Text, Upgrade, WebSocket};
use tokenlag_channel::{Ask, Channel, Dial, Reply, Request, Stamping};
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Encoding, TraceId, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_local};

use super::Rounds;
use crate::events;

/// Nobody is waited for in earnest.
const PATIENCE: Duration = Duration::from_secs(600);

/// A thread's runtime, as the proxy and the load generator have one.
pub(super) fn runtime() -> (Rc<Runtime>, Rc<LocalSet>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system has room for a runtime");
    (Rc::new(runtime), Rc::new(LocalSet::new()))
}

/// How a server of this process is dialled.
pub(super) fn dial(port: u16) -> Dial {
    Dial {
        host: "127.0.0.1".to_owned(),
        port,
        path: "/v1/responses".to_owned(),
        headers: Vec::new(),
        connect_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        tls: None,
        stamping: Stamping::default(),
        nagle: false,
    }
}

/// A request that streams.
pub(super) fn request(transport: Transport) -> Request {
    let ask = Ask {
        path: "/v1/responses",
        authority: "127.0.0.1",
        headers: &[],
        body: br#"{"model":"m","input":"a question","stream":true}"#,
        trace: TraceId::from_bits(1),
        encoding: Encoding::Events,
    };
    Request::render(transport, &ask).expect("a good request")
}

/// A listener of this process, and its port.
pub(super) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback listens");
    let address = listener.local_addr().expect("it is bound");
    (listener, address.port())
}

/// Opens a reply over this channel, whose other end is what `serve` makes of the connection.
async fn opened<T: 'static>(
    transport: Transport,
    serve: impl AsyncFnOnce(Accepted) -> T + 'static,
) -> (Reply, T) {
    let (listener, port) = listen().await;
    let server = spawn_local(async move {
        let (stream, _) = listener.accept().await.expect("the client dials");
        serve(accepted(stream).await).await
    });
    let channel = Channel::new(transport, dial(port));
    let reply = channel
        .open(&request(transport))
        .await
        .expect("the server answers");
    (reply, server.await.expect("the server does not panic"))
}

async fn accepted(stream: TcpStream) -> Accepted {
    let identity = self_signed(&["localhost"]).expect("good names");
    let tls = ServerTls {
        identity,
        resumption: false,
        early_data: false,
    };
    let acceptor = Acceptor::new(&tls, DoorLimits::default()).expect("a good certificate");
    acceptor.accept(stream).await.expect("a good opening")
}

pub(super) fn ws() -> Rounds {
    let (runtime, local) = runtime();
    let (mut reply, server) = local.block_on(&runtime, opened(Transport::Ws, websocket));
    let (_, event) = events::delta(Dialect::Responses);
    let text = Text::try_from(event).expect("it is UTF-8");
    Box::new(move |rounds| {
        local.block_on(&runtime, async {
            for _ in 0..rounds {
                server
                    .send([text.clone()])
                    .await
                    .expect("the client is there");
                receive(&mut reply, text.len()).await;
            }
        });
    })
}

async fn websocket(accepted: Accepted) -> WebSocket {
    let Accepted::Http1(mut connection) = accepted else {
        panic!("a WebSocket opens with HTTP/1.1");
    };
    let incoming = connection.next_request().await.expect("a good request");
    let incoming = incoming.expect("the client asks");
    let upgrade = Upgrade::of(&incoming.head).expect("a good opening");
    let socket = upgrade
        .grant(connection, [], PATIENCE)
        .await
        .expect("the client waits");
    let create = socket.receive().await;
    assert!(matches!(create, Ok(Received::Text { .. })));
    socket
}

pub(super) fn http2() -> Rounds {
    let (runtime, local) = runtime();
    let (mut reply, mut server) = local.block_on(&runtime, opened(Transport::Http2, stream));
    let event = events::wire(Dialect::Responses);
    Box::new(move |rounds| {
        local.block_on(&runtime, async {
            for _ in 0..rounds {
                server.data(event.clone());
                server.flush().await.expect("the client is there");
                receive(&mut reply, event.len()).await;
            }
        });
    })
}

async fn stream(accepted: Accepted) -> ReplyWriter {
    let Accepted::Http2(connection) = accepted else {
        panic!("the client begins with HTTP/2's preface");
    };
    let exchange = connection.next_exchange().await.expect("the client asks");
    // It is what reads: the client's windows come in here.
    spawn_local(async move { while connection.next_exchange().await.is_some() {} });
    let (_, mut writer) = whole(exchange).await;
    writer.head(
        200,
        &[(
            "content-type".to_owned(),
            Bytes::from_static(b"text/event-stream"),
        )],
    );
    writer.flush().await.expect("the client waits");
    writer
}

async fn whole(exchange: Exchange) -> (Bytes, ReplyWriter) {
    match exchange.request().await {
        Ok((incoming, writer)) => (incoming.body, writer),
        Err((error, _)) => panic!("a good request: {error}"),
    }
}

async fn receive(reply: &mut Reply, expected: usize) {
    let mut bytes = 0;
    while bytes < expected {
        let chunk = reply.next().await.expect("the server goes on");
        bytes += chunk.expect("the reply goes on").bytes.len();
    }
    assert_eq!(bytes, expected);
}
