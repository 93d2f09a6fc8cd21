//! Certificates and TLS settings: given files, or a self-signed certificate made for one run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{HandshakeKind, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::ChannelError;
use crate::socket::{Socket, Stamped};
use crate::turns::Turns;
use crate::witness::Witness;

/// Servers whose sessions a client remembers.
const SESSIONS: usize = 256;

/// A certificate chain and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, the server's own certificate first.
    pub cert_pem: String,
    /// The private key.
    pub key_pem: String,
}

/// Keeps the key out of logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// A new self-signed certificate for these names and IP addresses.
///
/// # Errors
/// A name that no certificate can carry.
pub fn self_signed(names: &[&str]) -> Result<Identity, ChannelError> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| ChannelError::Tls(format!("cannot make a certificate: {error}")))?;
    Ok(Identity {
        cert_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    })
}

/// What a server brings to TLS 1.3.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What it shows.
    pub identity: Identity,
    /// Whether clients may resume earlier sessions.
    pub resumption: bool,
    /// Whether requests are taken before the handshake is over (0-RTT), where a client marks them as safe to replay.
    pub early_data: bool,
}

/// A server's settings for the protocols in `alpn`, the preferred one first.
pub(crate) fn server(
    tls: &ServerTls,
    alpn: &[&[u8]],
) -> Result<rustls::ServerConfig, ChannelError> {
    let chain = certificates(tls.identity.cert_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(tls.identity.key_pem.as_bytes())
        .map_err(|error| ChannelError::Tls(format!("the key is no PEM private key: {error}")))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| ChannelError::Tls(format!("certificate and key do not fit: {error}")))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    if !tls.resumption {
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// What a client brings to TLS 1.3: whom it trusts, and what it remembers of earlier sessions. Clones share the memory.
#[derive(Clone)]
pub struct ClientTls {
    /// rustls resumes a session only where the very verifier is asked that made it: one serves all handshakes.
    base: Arc<rustls::ClientConfig>,
    witness: Arc<Witness>,
    /// Sessions that can be resumed; `None`: every handshake is a full one.
    memory: Option<Arc<Memory>>,
    early_data: bool,
    /// The name that certificates must have, where it is not the host that is dialled.
    name: Option<Arc<str>>,
    /// Turns for handshakes over QUIC.
    turns: Turns,
}

/// Sessions by protocol: one that was made over TCP is of no use over QUIC, where it would only be spent.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<Vec<u8>, Arc<ClientSessionMemoryCache>>>);

impl Memory {
    fn of(&self, alpn: &[&[u8]]) -> Arc<ClientSessionMemoryCache> {
        // A thread that panicked while it held the lock left a whole map behind.
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories
            .entry(alpn.join(&b','))
            .or_insert_with(|| Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
        Arc::clone(memory)
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("resumption", &self.memory.is_some())
            .field("early_data", &self.early_data)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Trusts the certificates in `pem` and nobody else; makes full handshakes.
    ///
    /// # Errors
    /// It is no PEM, or holds no certificate that can be trusted.
    pub fn trusting(pem: &[u8]) -> Result<Self, ChannelError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(unusable)?;
        }
        Self::of(roots)
    }

    /// The same, for a server that is dialled elsewhere than its certificate says: it must be for `name`.
    #[must_use]
    pub fn naming(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The name that the certificate of a server at `host` must have.
    pub(crate) fn name_at<'a>(&'a self, host: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(host)
    }

    /// Trusts whom the system trusts; makes full handshakes.
    ///
    /// # Errors
    /// The system's store of certificates is missing or empty.
    pub fn of_system() -> Result<Self, ChannelError> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = "this system has no certificates to trust (package ca-certificates); give the server's own";
            return Err(ChannelError::Tls(why.to_owned()));
        }
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self, ChannelError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| ChannelError::Tls(error.to_string()))?;
        let witness = Arc::new(Witness::new(verifier));
        let base = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as _)
            .with_no_client_auth();
        Ok(Self {
            base: Arc::new(base),
            witness,
            memory: None,
            early_data: false,
            name: None,
            turns: Turns::default(),
        })
    }

    /// Remembers sessions, so that a later handshake with the same server is a short one.
    #[must_use]
    pub fn with_resumption(mut self) -> Self {
        self.memory = Some(Arc::default());
        self
    }

    /// Sends requests before a resumed handshake is over (0-RTT, QUIC and HTTP/3 only), and marks them as safe to replay:
    /// whoever records them on the way can have them served again (RFC 8446, section 8). Needs resumption.
    #[must_use]
    pub fn with_early_data(mut self) -> Self {
        self.early_data = true;
        self
    }

    /// The same trust and switches, with a memory of its own.
    #[must_use]
    pub fn forgetful(&self) -> Self {
        let fresh = Self {
            memory: None,
            ..self.clone()
        };
        match self.memory {
            Some(_) => fresh.with_resumption(),
            None => fresh,
        }
    }

    /// Whether requests go out before the handshake is over.
    pub fn sends_early_data(&self) -> bool {
        self.early_data && self.memory.is_some()
    }

    /// Turns for handshakes over QUIC.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Who checks the certificates of all handshakes.
    pub(crate) fn witness(&self) -> &Arc<Witness> {
        &self.witness
    }

    /// Settings for the protocols in `alpn`, the preferred one first.
    pub(crate) fn config(&self, alpn: &[&[u8]]) -> Result<rustls::ClientConfig, ChannelError> {
        let mut config = rustls::ClientConfig::clone(&self.base);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = match &self.memory {
            Some(memory) => Resumption::store(memory.of(alpn)),
            None => Resumption::disabled(),
        };
        config.enable_early_data = self.early_data;
        Ok(config)
    }
}

/// Makes a TLS connection of a TCP one. `host` is whom the certificate must name.
pub(crate) async fn connect(
    stream: Stamped,
    tls: &ClientTls,
    host: &str,
    alpn: &[&[u8]],
) -> Result<Socket, ChannelError> {
    let refused = |reason: String| ChannelError::Handshake {
        address: host.to_owned(),
        protocol: "TLS",
        reason,
    };
    let name = tls.name_at(host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| refused(format!("'{name}' is no name that a certificate can have")))?;
    let mut config = tls.config(alpn)?;
    // Over TCP requests wait for the handshake: what 0-RTT saves is measured on QUIC and HTTP/3.
    config.enable_early_data = false;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| refused(explained(&error.to_string())))?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Socket::tls(stream.into(), resumed, false))
}

/// A refusal with what to do about it, where the certificate is at fault.
pub(crate) fn explained(error: &str) -> String {
    let remedy = if error.contains("CaUsedAsEndEntity") {
        "; the certificate says that it is a CA's, as `openssl req -x509` makes it: add -addext basicConstraints=critical,CA:FALSE"
    } else if error.contains("UnknownIssuer") || error.contains("BadSignature") {
        "; trust the certificate that this server shows: a proxy's admin endpoint gives it at /certificate"
    } else if error.contains("NotValidForName") {
        "; the certificate is for other names: dial one of them, or make one for this address"
    } else if error.contains("InvalidContentType") || error.contains("corrupt message") {
        "; it does not speak TLS on this port"
    } else {
        ""
    };
    format!("{error}{remedy}")
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ChannelError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| ChannelError::Tls(format!("the certificate is not PEM: {error}")))?;
    if chain.is_empty() {
        let why = "the file has no certificate (-----BEGIN CERTIFICATE-----)";
        return Err(ChannelError::Tls(why.to_owned()));
    }
    Ok(chain)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Bytes that nobody can guess.
///
/// # Errors
/// The system has none.
pub(crate) fn random() -> Result<[u8; 8], ChannelError> {
    let mut bytes = [0; 8];
    let filled = provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| ChannelError::Tls("the system gives no random bytes".to_owned()))?;
    Ok(bytes)
}

fn unusable(error: rustls::Error) -> ChannelError {
    ChannelError::Tls(error.to_string())
}
