//! The libraries under our channels, as their own documentation uses them, with the settings that our channels have: no delay,
//! the same windows, the same certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::{Echo, PAYLOAD, Threads, trace};

/// As our channels announce them.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// A request with the fields that ours has, made beforehand as ours is.
fn post<T>(uri: &str, length: Option<usize>, body: T) -> Request<T> {
    let mut request = Request::post(uri)
        .header("content-type", "application/json")
        .header("accept", "text/event-stream")
        .header("traceparent", trace().traceparent());
    request = match length {
        Some(length) => request.header("content-length", length),
        None => request.header("host", "127.0.0.1"),
    };
    request.body(body).expect("a good request")
}

/// Starts a server of one TCP connection, and gives the client's end of it.
async fn tcp<S>(threads: Threads, serve: impl FnOnce(TcpStream) -> S + Send + 'static) -> TcpStream
where
    S: Future<Output = ()> + 'static,
{
    let server = async |bound: oneshot::Sender<SocketAddr>| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback listens");
        let address = listener.local_addr().expect("it is bound");
        bound.send(address).expect("the client waits");
        let (accepted, _) = listener.accept().await.expect("it is dialled");
        accepted.set_nodelay(true).expect("an open socket");
        serve(accepted).await;
    };
    let address = threads.serve(server).await;
    let client = TcpStream::connect(address).await.expect("it listens");
    client.set_nodelay(true).expect("an open socket");
    client
}

pub struct Hyper {
    sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
}

pub async fn hyper(threads: Threads) -> Hyper {
    let serve = async |server| {
        let echo = service_fn(|request: Request<Incoming>| async move {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Response::new(Full::new(body)))
        });
        // The client hangs up when the bench is over.
        let _ = hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(server), echo)
            .await;
    };
    let client = tcp(threads, serve).await;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .expect("a fresh connection");
    tokio::task::spawn_local(connection);
    let body = Full::new(Bytes::from_static(PAYLOAD));
    Hyper {
        sender,
        // The library adds the body's length by itself.
        request: post("/v1/responses", None, body),
    }
}

impl Echo for Hyper {
    async fn round_trip(&mut self) {
        self.sender.ready().await.expect("the server lives");
        let response = self
            .sender
            .send_request(self.request.clone())
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

pub struct H2 {
    sender: ::h2::client::SendRequest<Bytes>,
    request: Request<()>,
}

pub async fn h2(threads: Threads) -> H2 {
    let serve = async |server| {
        let mut connection = ::h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(server)
            .await
            .expect("a preface");
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
    };
    let client = tcp(threads, serve).await;
    let (sender, connection) = ::h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(client)
        .await
        .expect("a preface");
    tokio::task::spawn_local(connection);
    let uri = "http://127.0.0.1/v1/responses";
    H2 {
        sender,
        request: post(uri, Some(PAYLOAD.len()), ()),
    }
}

impl Echo for H2 {
    async fn round_trip(&mut self) {
        let sender = self.sender.clone();
        let mut sender = sender.ready().await.expect("the server lives");
        let (response, mut stream) = sender
            .send_request(self.request.clone(), false)
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

pub struct Tungstenite {
    socket: WebSocketStream<TcpStream>,
    message: Utf8Bytes,
}

/// Messages have as many bytes as ours.
pub async fn tungstenite(length: usize, threads: Threads) -> Tungstenite {
    let serve = async |server| {
        let mut socket = tokio_tungstenite::accept_async(server)
            .await
            .expect("an opening");
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    };
    let client = tcp(threads, serve).await;
    let (socket, _) = tokio_tungstenite::client_async("ws://127.0.0.1/v1/responses", client)
        .await
        .expect("an opening");
    Tungstenite {
        socket,
        message: " ".repeat(length).into(),
    }
}

impl Echo for Tungstenite {
    async fn round_trip(&mut self) {
        self.socket
            .send(Message::Text(self.message.clone()))
            .await
            .expect("the server lives");
        let back = self
            .socket
            .next()
            .await
            .expect("the server lives")
            .expect("it answers");
        assert_eq!(back.len(), self.message.len());
    }
}

/// Starts a server of one connection for a protocol of QUIC, and gives the client's end of it.
async fn quic<S>(
    alpn: &[u8],
    threads: Threads,
    serve: impl FnOnce(quinn::Connection) -> S + Send + 'static,
) -> (quinn::Connection, quinn::Endpoint)
where
    S: Future<Output = ()> + 'static,
{
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
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(server));
    config.transport_config(transport());
    let server = async move |bound: oneshot::Sender<SocketAddr>| {
        let accepting = quinn::Endpoint::server(config, any).expect("loopback binds");
        let address = accepting.local_addr().expect("it is bound");
        bound.send(address).expect("the client waits");
        let accepted = accepting.accept().await.expect("it is open").await;
        serve(accepted.expect("a handshake")).await;
    };
    let address = threads.serve(server).await;
    let dialling = quinn::Endpoint::client(any).expect("loopback binds");
    let mut config = quinn::ClientConfig::new(Arc::new(client));
    config.transport_config(transport());
    let connecting = dialling
        .connect_with(config, address, "localhost")
        .expect("a good name");
    (connecting.await.expect("a handshake"), dialling)
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut config = quinn::TransportConfig::default();
    config
        .keep_alive_interval(Some(Duration::from_secs(15)))
        .datagram_receive_buffer_size(None)
        .send_window(STREAM_WINDOW.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into());
    Arc::new(config)
}

pub struct Quinn {
    connection: quinn::Connection,
    request: Vec<u8>,
    reply: usize,
    _endpoint: quinn::Endpoint,
}

/// Requests and replies have as many bytes as the frames of `tokenlag/1` that carry the payload.
pub async fn quinn(request: usize, reply: usize, threads: Threads) -> Quinn {
    let serve = async move |server: quinn::Connection| {
        while let Ok((mut send, mut recv)) = server.accept_bi().await {
            tokio::task::spawn_local(async move {
                let body = recv.read_to_end(64 * 1024).await.expect("a whole request");
                send.write_all(&body[..reply])
                    .await
                    .expect("the client waits");
                let _ = send.finish();
            });
        }
    };
    let (connection, endpoint) = quic(b"echo", threads, serve).await;
    Quinn {
        connection,
        request: vec![b' '; request],
        reply,
        _endpoint: endpoint,
    }
}

impl Echo for Quinn {
    async fn round_trip(&mut self) {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("the server lives");
        send.write_all(&self.request)
            .await
            .expect("the server lives");
        let _ = send.finish();
        let body = recv.read_to_end(64 * 1024).await.expect("it answers whole");
        assert_eq!(body.len(), self.reply);
    }
}

pub struct H3 {
    sender: ::h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    request: Request<()>,
    _endpoint: quinn::Endpoint,
}

pub async fn h3(threads: Threads) -> H3 {
    let serve = async |server| {
        let mut connection = ::h3::server::builder()
            .send_grease(false)
            .build::<_, Bytes>(h3_quinn::Connection::new(server))
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
    };
    let (client, endpoint) = quic(b"h3", threads, serve).await;
    let (mut driver, sender) = ::h3::client::builder()
        .send_grease(false)
        .build(h3_quinn::Connection::new(client))
        .await
        .expect("a fresh connection");
    tokio::task::spawn_local(async move {
        let _ = std::future::poll_fn(|context| driver.poll_close(context)).await;
    });
    let uri = "https://127.0.0.1/v1/responses";
    H3 {
        sender,
        request: post(uri, Some(PAYLOAD.len()), ()),
        _endpoint: endpoint,
    }
}

impl Echo for H3 {
    async fn round_trip(&mut self) {
        let mut stream = self
            .sender
            .send_request(self.request.clone())
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
