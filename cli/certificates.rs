//! Certificates that the user gives as files.

use std::fs;
use std::path::Path;

use anyhow::Context;
use tokenlag_channel::tls::ClientTls;

/// Trust in the certificates of a PEM file, and in nobody else.
///
/// # Errors
/// It cannot be read, or holds no certificate.
pub fn trusted(path: &Path) -> anyhow::Result<ClientTls> {
    let pem = fs::read(path)
        .with_context(|| format!("cannot read the certificate {}", path.display()))?;
    ClientTls::trusting(&pem).with_context(|| format!("{} cannot be trusted", path.display()))
}
