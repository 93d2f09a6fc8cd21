//! Certificates in files: whom a client trusts, unless that is for the system's own store to say, and what a server shows.

use std::fs;
use std::path::Path;

use anyhow::Context;
use tokenlag_channel::accept::Acceptor;
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{ClientTls, Identity, ServerTls};

/// Trust in the certificates of a PEM file and in nobody else; without a file, in whom the system trusts.
///
/// # Errors
/// The file cannot be read or holds no certificate, or the system has none.
pub fn trusted(file: Option<&Path>) -> anyhow::Result<ClientTls> {
    let Some(path) = file else {
        return Ok(ClientTls::of_system()?);
    };
    let pem = fs::read(path)
        .with_context(|| format!("cannot read the certificate {}", path.display()))?;
    ClientTls::trusting(&pem).with_context(|| format!("{} cannot be trusted", path.display()))
}

/// What a server shows: the certificate chain of one PEM file with the key of another.
///
/// # Errors
/// A file cannot be read, or the two cannot be used together.
pub fn shown(cert: &Path, key: &Path) -> anyhow::Result<Identity> {
    let read = |file: &Path, what| {
        fs::read_to_string(file)
            .with_context(|| format!("cannot read the {what} {}", file.display()))
    };
    let identity = Identity {
        cert_pem: read(cert, "certificate")?,
        key_pem: read(key, "key")?,
    };
    // A server would find the same, and would not know the files any more.
    let tls = ServerTls {
        identity: identity.clone(),
        resumption: false,
        early_data: false,
    };
    Acceptor::new(&tls, DoorLimits::default()).with_context(|| {
        let (cert, key) = (cert.display(), key.display());
        format!("--cert {cert} with --key {key} cannot be used")
    })?;
    Ok(identity)
}
