//! Certificates and TLS settings: given files, or a self-signed certificate made for one run.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::ChannelError;

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

/// A server's settings for one protocol.
pub(crate) fn server(
    identity: &Identity,
    alpn: &[u8],
) -> Result<rustls::ServerConfig, ChannelError> {
    let chain = certificates(identity.cert_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| ChannelError::Tls(format!("the key is no PEM private key: {error}")))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| ChannelError::Tls(format!("certificate and key do not fit: {error}")))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// A client's settings for one protocol: it trusts the certificates in `trust` (PEM) and nobody else.
pub(crate) fn client(trust: &[u8], alpn: &[u8]) -> Result<rustls::ClientConfig, ChannelError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(trust)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
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

fn unusable(error: rustls::Error) -> ChannelError {
    ChannelError::Tls(error.to_string())
}
