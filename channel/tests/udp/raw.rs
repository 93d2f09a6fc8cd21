//! A QUIC client that says what the test wants, and a way to the server that can be held up.

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
use tokio::task::spawn_local;

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

/// The same of HTTP/3: a HEADERS frame whose fields refer to QPACK's static table or are literal (RFC 9204, section 4.5).
pub fn headers(target: &str, fields: &[(&str, &'static str)]) -> Vec<u8> {
    // No dynamic table; `:method` GET, `:scheme` https, `:authority` and `:path` by the names' indices 0 and 1.
    let mut block = vec![0x00, 0x00, 0xc0 | 17, 0xc0 | 23];
    for (name, value) in [(0x50, "test"), (0x51, target)] {
        block.push(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    for (name, value) in fields {
        // A name of 7 bytes and more continues in the next byte.
        block.extend_from_slice(&[0x27, (name.len() - 7) as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![0x01];
    frame.extend_from_slice(&(0x4000 | block.len() as u16).to_be_bytes());
    frame.extend_from_slice(&block);
    frame
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
