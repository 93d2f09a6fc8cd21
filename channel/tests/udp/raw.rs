//! A QUIC client that says what the test wants, and a way to the server that can be held up.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use rustls::RootCertStore;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokenlag_channel::quic::frame::{Frame, ReplyForm};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};

/// A client that trusts `certificate`, offers `alpn`, and remembers sessions.
pub fn client(certificate: &str, alpn: &[u8]) -> Endpoint {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    tls.enable_early_data = true;
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    endpoint
}

/// A request of `tokenlag/1` without a body, as it is on its stream.
pub fn frames(target: &str, fields: &[(&str, &'static str)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| {
        let value = Bytes::from_static(value.as_bytes());
        ((*name).to_owned(), value)
    });
    let mut out = Vec::new();
    Frame::Request {
        form: ReplyForm::Bytes,
        method: "GET".to_owned(),
        target: target.to_owned(),
        fields: fields.collect(),
    }
    .write(&mut out);
    out
}

/// The same of HTTP/3, as a HEADERS frame.
pub fn headers(target: &str, fields: &[(&str, &'static str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "test"),
        (":path", target),
    ];
    all.extend_from_slice(fields);
    frame(0x01, &block(&all))
}

/// A frame of HTTP/3 (RFC 9114, section 7.1).
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&(0x8000_0000 | payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields that are all literal (RFC 9204, section 4.5.6).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    // There is no dynamic table.
    let mut block = vec![0x00, 0x00];
    for (name, value) in fields {
        number(&mut block, 0x20, 3, name.len());
        block.extend_from_slice(name.as_bytes());
        number(&mut block, 0x00, 7, value.len());
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A number that begins in the last `bits` of a byte (RFC 7541, section 5.1).
fn number(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A way to a server that lets a client's first flight pass, and what follows the server's answer only when it is opened.
pub struct Gate {
    pub address: SocketAddr,
    open: Rc<watch::Sender<bool>>,
}

impl Gate {
    pub async fn before(server: SocketAddr) -> Self {
        let outside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let inside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        inside.connect(server).await.unwrap();
        let address = outside.local_addr().unwrap();
        let (open, mut is_open) = watch::channel(false);
        let (client, mut known) = watch::channel(None);
        let (answer, answered) = watch::channel(false);
        let (from, to) = (Rc::clone(&outside), Rc::clone(&inside));
        spawn_local(async move {
            let mut datagram = [0; 65_536];
            loop {
                let (length, peer) = from.recv_from(&mut datagram).await.unwrap();
                client.send_replace(Some(peer));
                if *answered.borrow() {
                    is_open.wait_for(|&open| open).await.unwrap();
                }
                to.send(&datagram[..length]).await.unwrap();
            }
        });
        spawn_local(async move {
            let mut datagram = [0; 65_536];
            loop {
                let length = inside.recv(&mut datagram).await.unwrap();
                answer.send_replace(true);
                let peer = known.wait_for(Option::is_some).await.unwrap().unwrap();
                outside.send_to(&datagram[..length], peer).await.unwrap();
            }
        });
        Self {
            address,
            open: Rc::new(open),
        }
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

/// A way to a server that can end. Dropped, its port is closed.
pub struct Relay {
    pub address: SocketAddr,
    flows: Flows,
    _tasks: JoinSet<()>,
}

/// The clients that a relay knows, and where it sends what they send.
type Flows = Rc<RefCell<HashMap<SocketAddr, Option<Rc<UdpSocket>>>>>;

impl Relay {
    /// At `address`.
    pub async fn before(server: SocketAddr, address: SocketAddr) -> Self {
        let outside = Rc::new(UdpSocket::bind(address).await.unwrap());
        let address = outside.local_addr().unwrap();
        let flows = Flows::default();
        let mut tasks = JoinSet::new();
        tasks.spawn_local(relay(server, outside, Rc::clone(&flows)));
        Self {
            address,
            flows,
            _tasks: tasks,
        }
    }

    /// Takes and brings nothing any more for the clients that it knows.
    pub fn fall_silent(&self) {
        for flow in self.flows.borrow_mut().values_mut() {
            *flow = None;
        }
    }
}

async fn relay(server: SocketAddr, outside: Rc<UdpSocket>, flows: Flows) {
    let mut answers = JoinSet::new();
    let mut datagram = [0; 65_536];
    loop {
        let (length, peer) = outside.recv_from(&mut datagram).await.unwrap();
        if !flows.borrow().contains_key(&peer) {
            let inside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            inside.connect(server).await.unwrap();
            flows.borrow_mut().insert(peer, Some(Rc::clone(&inside)));
            let (outside, flows) = (Rc::clone(&outside), Rc::clone(&flows));
            answers.spawn_local(async move {
                let mut datagram = [0; 65_536];
                loop {
                    let length = inside.recv(&mut datagram).await.unwrap();
                    if flows.borrow()[&peer].is_some() {
                        outside.send_to(&datagram[..length], peer).await.unwrap();
                    }
                }
            });
        }
        let flow = flows.borrow()[&peer].clone();
        if let Some(inside) = flow {
            inside.send(&datagram[..length]).await.unwrap();
        }
    }
}
