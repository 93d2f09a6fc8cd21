//! The libraries under our channels, as their own documentation uses them, with the settings that our channels have: no delay,
//! the same windows, the same certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokenlag_channel::tls::self_signed;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{Echo, PAYLOAD};

/// A connected pair of TCP sockets, client's end first.
async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback listens");
    let address = listener.local_addr().expect("it is bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (client, (server, _)) = (
        client.expect("it listens"),
        accepted.expect("it was dialled"),
    );
    client.set_nodelay(true).expect("an open socket");
    server.set_nodelay(true).expect("an open socket");
    (client, server)
}

pub struct Hyper(SendRequest<Full<Bytes>>);

pub async fn hyper() -> Hyper {
    let (client, server) = tcp_pair().await;
    tokio::task::spawn_local(async move {
        let echo = service_fn(|request: Request<Incoming>| async move {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Response::new(Full::new(body)))
        });
        // The client hangs up when the bench is over.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), echo)
            .await;
    });
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .expect("a fresh connection");
    tokio::task::spawn_local(connection);
    Hyper(sender)
}

impl Echo for Hyper {
    async fn round_trip(&mut self) {
        let request = Request::post("/v1/responses")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(PAYLOAD)))
            .expect("a good request");
        self.0.ready().await.expect("the server lives");
        let response = self
            .0
            .send_request(request)
            .await
            .expect("the server answers");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("it answers whole")
            .to_bytes();
        assert_eq!(body.len(), PAYLOAD.len());
    }
}

pub struct H2(::h2::client::SendRequest<Bytes>);

pub async fn h2() -> H2 {
    let (client, server) = tcp_pair().await;
    tokio::task::spawn_local(async move {
        let mut connection = ::h2::server::handshake(server).await.expect("a preface");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::task::spawn_local(async move {
                let mut body = request.into_body();
                let mut whole = BytesMut::new();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    whole.extend_from_slice(&data);
                }
                let mut stream = respond
                    .send_response(Response::new(()), false)
                    .expect("an open stream");
                stream
                    .send_data(whole.freeze(), true)
                    .expect("an open stream");
            });
        }
    });
    let (sender, connection) = ::h2::client::handshake(client).await.expect("a preface");
    tokio::task::spawn_local(connection);
    H2(sender)
}

impl Echo for H2 {
    async fn round_trip(&mut self) {
        let request = Request::post("http://127.0.0.1/v1/responses")
            .header("content-type", "application/json")
            .body(())
            .expect("a good request");
        let mut sender = self.0.clone().ready().await.expect("the server lives");
        let (response, mut stream) = sender
            .send_request(request, false)
            .expect("an open connection");
        stream
            .send_data(Bytes::from_static(PAYLOAD), true)
            .expect("an open stream");
        let mut body = response.await.expect("the server answers").into_body();
        let mut count = 0;
        while let Some(data) = body.data().await {
            let data = data.expect("it answers whole");
            let _ = body.flow_control().release_capacity(data.len());
            count += data.len();
        }
        assert_eq!(count, PAYLOAD.len());
    }
}

pub struct Tungstenite(WebSocketStream<TcpStream>);

pub async fn tungstenite() -> Tungstenite {
    let (client, server) = tcp_pair().await;
    tokio::task::spawn_local(async move {
        let mut socket = tokio_tungstenite::accept_async(server)
            .await
            .expect("an opening");
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let (socket, _) = tokio_tungstenite::client_async("ws://127.0.0.1/v1/responses", client)
        .await
        .expect("an opening");
    Tungstenite(socket)
}

impl Echo for Tungstenite {
    async fn round_trip(&mut self) {
        let text = std::str::from_utf8(PAYLOAD).expect("text").into();
        self.0
            .send(Message::Text(text))
            .await
            .expect("the server lives");
        let back = self
            .0
            .next()
            .await
            .expect("the server lives")
            .expect("it answers");
        assert_eq!(back.len(), PAYLOAD.len());
    }
}

/// Both ends' endpoints for a protocol of QUIC, connected, server's end first.
async fn quic_pair(alpn: &[u8]) -> (quinn::Connection, quinn::Connection, [quinn::Endpoint; 2]) {
    let made = self_signed(&["localhost"]).expect("a name");
    let certificate = CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).expect("just made");
    let key = PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).expect("just made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has it")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("they fit");
    server.alpn_protocols = vec![alpn.to_vec()];
    let server = QuicServerConfig::try_from(server).expect("TLS 1.3");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("just made");
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has it")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![alpn.to_vec()];
    let client = QuicClientConfig::try_from(client).expect("TLS 1.3");

    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let config = quinn::ServerConfig::with_crypto(Arc::new(server));
    let accepting = quinn::Endpoint::server(config, any).expect("loopback binds");
    let dialling = quinn::Endpoint::client(any).expect("loopback binds");
    let address = accepting.local_addr().expect("it is bound");
    let config = quinn::ClientConfig::new(Arc::new(client));
    let connecting = dialling
        .connect_with(config, address, "localhost")
        .expect("a good name");
    let accepted = async { accepting.accept().await.expect("it is open").await };
    let (client, server) = tokio::join!(connecting, accepted);
    let (client, server) = (client.expect("a handshake"), server.expect("a handshake"));
    (server, client, [accepting, dialling])
}

pub struct Quinn {
    connection: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

pub async fn quinn() -> Quinn {
    let (server, connection, endpoints) = quic_pair(b"echo").await;
    tokio::task::spawn_local(async move {
        while let Ok((mut send, mut recv)) = server.accept_bi().await {
            tokio::task::spawn_local(async move {
                let body = recv.read_to_end(64 * 1024).await.expect("a whole request");
                send.write_all(&body).await.expect("the client waits");
                let _ = send.finish();
            });
        }
    });
    Quinn {
        connection,
        _endpoints: endpoints,
    }
}

impl Echo for Quinn {
    async fn round_trip(&mut self) {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("the server lives");
        send.write_all(PAYLOAD).await.expect("the server lives");
        let _ = send.finish();
        let body = recv.read_to_end(64 * 1024).await.expect("it answers whole");
        assert_eq!(body.len(), PAYLOAD.len());
    }
}

pub struct H3 {
    sender: ::h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    _endpoints: [quinn::Endpoint; 2],
}

pub async fn h3() -> H3 {
    let (server, client, endpoints) = quic_pair(b"h3").await;
    tokio::task::spawn_local(async move {
        let mut connection =
            ::h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(server))
                .await
                .expect("a fresh connection");
        while let Ok(Some(resolver)) = connection.accept().await {
            tokio::task::spawn_local(async move {
                let (_, mut stream) = resolver.resolve_request().await.expect("a good request");
                let mut whole = BytesMut::new();
                while let Ok(Some(mut data)) = stream.recv_data().await {
                    whole.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
                stream
                    .send_response(Response::new(()))
                    .await
                    .expect("the client waits");
                stream
                    .send_data(whole.freeze())
                    .await
                    .expect("the client waits");
                let _ = stream.finish().await;
            });
        }
    });
    let (mut driver, sender) = ::h3::client::new(h3_quinn::Connection::new(client))
        .await
        .expect("a fresh connection");
    tokio::task::spawn_local(async move {
        let _ = std::future::poll_fn(|context| driver.poll_close(context)).await;
    });
    H3 {
        sender,
        _endpoints: endpoints,
    }
}

impl Echo for H3 {
    async fn round_trip(&mut self) {
        let request = Request::post("https://localhost/v1/responses")
            .header("content-type", "application/json")
            .body(())
            .expect("a good request");
        let mut stream = self
            .sender
            .send_request(request)
            .await
            .expect("the server lives");
        stream
            .send_data(Bytes::from_static(PAYLOAD))
            .await
            .expect("the server lives");
        stream.finish().await.expect("the server lives");
        stream.recv_response().await.expect("it answers");
        let mut count = 0;
        while let Some(data) = stream.recv_data().await.expect("it answers whole") {
            count += data.remaining();
        }
        assert_eq!(count, PAYLOAD.len());
    }
}
