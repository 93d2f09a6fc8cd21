//! Whom the load generator trusts: files that the user gives, or the system's own store.

use std::fs;
use std::path::Path;

use anyhow::Context;
use tokenlag_channel::tls::ClientTls;

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
