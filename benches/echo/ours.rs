//! Our channels, both ends, behind the doors that the proxy has.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokenlag_channel::accept::{Accepted, Acceptor};
use tokenlag_channel::http::ServerConnection;
use tokenlag_channel::quic::frame::Frame;
use tokenlag_channel::quic::{self, Door, DoorLimits, Listener};
use tokenlag_channel::tls::{ClientTls, ServerTls, self_signed};
use tokenlag_channel::ws::{Received, Upgrade};
use tokenlag_channel::{Ask, Channel, Dial, Request, Stamping};
use tokenlag_probes::{Encoding, Transport};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::{Echo, PAYLOAD, Threads, trace};

const PATIENCE: Duration = Duration::from_secs(10);

/// A channel, and the request that goes over it.
pub struct Ours {
    channel: Channel,
    request: Request,
}

/// A channel in clear, and a server behind a TCP door.
pub async fn over_tcp(transport: Transport, threads: Threads) -> Ours {
    let server = async |bound: oneshot::Sender<SocketAddr>| {
        let (tls, _) = identity();
        let acceptor = Acceptor::new(&tls, DoorLimits::default()).expect("a good certificate");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback listens");
        let address = listener.local_addr().expect("it is bound");
        bound.send(address).expect("the client waits");
        while let Ok((stream, _)) = listener.accept().await {
            match acceptor.accept(stream).await {
                Ok(Accepted::Http1(connection)) => drop(spawn_local(serve_http(connection))),
                Ok(Accepted::Http2(connection)) => drop(spawn_local(async move {
                    while let Some(exchange) = connection.next_exchange().await {
                        spawn_local(async move {
                            let (incoming, mut writer) =
                                exchange.request().await.expect("a good request");
                            writer.head(200, &[]);
                            writer.data(incoming.body);
                            writer.finish().await.expect("the client waits");
                        });
                    }
                })),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let address = threads.serve(server).await;
    ours(transport, address.port(), None)
}

async fn serve_http(mut connection: ServerConnection) {
    while let Ok(Some(incoming)) = connection.next_request().await {
        if incoming.head.wants_websocket() {
            let upgrade = Upgrade::of(&incoming.head).expect("a good opening");
            let socket = upgrade
                .grant(connection, [], PATIENCE)
                .await
                .expect("the client waits");
            while let Ok(Received::Text { text, .. }) = socket.receive().await {
                socket.send([text]).await.expect("the client waits");
            }
            return;
        }
        let body = connection.whole_body().await.expect("a whole request");
        connection
            .respond(200, "OK", &[], &body)
            .await
            .expect("the client waits");
    }
}

/// A channel over QUIC, and a server behind a UDP door.
pub async fn over_udp(transport: Transport, threads: Threads) -> Ours {
    let (tls, trust) = identity();
    let server = async move |bound: oneshot::Sender<SocketAddr>| {
        let socket = quic::bind((Ipv4Addr::LOCALHOST, 0).into(), false).expect("loopback binds");
        let door = Door::new(&tls, DoorLimits::default()).expect("a good certificate");
        let listener = Listener::new(socket, &door, |_| {}).expect("loopback listens");
        let address = listener.local_addr().expect("it is bound");
        bound.send(address).expect("the client waits");
        while let Some(handshake) = listener.accept().await {
            match handshake.finish().await.expect("a handshake") {
                quic::Accepted::Quic(connection) => drop(spawn_local(async move {
                    while let Some(exchange) = connection.next_exchange().await {
                        spawn_local(async move {
                            let (incoming, mut writer) =
                                exchange.request().await.expect("a good request");
                            writer.head(200, Vec::new(), false);
                            writer.data(&incoming.body);
                            writer.finish().await.expect("the client waits");
                        });
                    }
                })),
                quic::Accepted::Http3(mut connection) => drop(spawn_local(async move {
                    while let Some(exchange) = connection.next_exchange().await {
                        spawn_local(async move {
                            let (incoming, mut writer) =
                                exchange.request().await.expect("a good request");
                            writer.head(200, &[]);
                            writer.data(incoming.body);
                            writer.finish().await.expect("the client waits");
                        });
                    }
                })),
            }
        }
    };
    let address = threads.serve(server).await;
    ours(transport, address.port(), Some(trust))
}

fn identity() -> (ServerTls, ClientTls) {
    let identity = self_signed(&["localhost", "127.0.0.1"]).expect("good names");
    let trust = ClientTls::trusting(identity.cert_pem.as_bytes()).expect("just made");
    let tls = ServerTls {
        identity,
        resumption: false,
        early_data: false,
    };
    (tls, trust)
}

/// What goes over a channel.
pub fn request(transport: Transport) -> Request {
    let ask = Ask {
        path: "/v1/responses",
        authority: "127.0.0.1",
        headers: &[],
        body: PAYLOAD,
        trace: trace(),
        encoding: Encoding::Events,
    };
    Request::render(transport, &ask).expect("a good request")
}

/// Bytes of a reply over QUIC.
pub fn quic_reply() -> usize {
    let mut reply = Vec::new();
    let (events, fields) = (false, Vec::new());
    let head = Frame::Response {
        events,
        status: 200,
        fields,
    };
    for frame in [head, Frame::Data(PAYLOAD.into()), Frame::End] {
        frame.write(&mut reply);
    }
    reply.len()
}

fn ours(transport: Transport, port: u16, tls: Option<ClientTls>) -> Ours {
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port,
        path: "/v1/responses".to_owned(),
        headers: Vec::new(),
        connect_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        tls,
        stamping: Stamping::default(),
        nagle: false,
    };
    Ours {
        channel: Channel::new(transport, dial),
        request: request(transport),
    }
}

impl Echo for Ours {
    async fn round_trip(&mut self) {
        let mut reply = self
            .channel
            .open(&self.request)
            .await
            .expect("the server answers");
        let mut count = 0;
        let is_ws = matches!(self.channel, Channel::Ws(_));
        while let Some(chunk) = reply.next().await.expect("it answers whole") {
            count += chunk.bytes.len();
            // A WebSocket's reply has no end of its own.
            if is_ws {
                break;
            }
        }
        assert!(count >= PAYLOAD.len());
        reply.finish().await.expect("it is over");
    }
}
