//! Requests, for the little that the command asks beside its load: health, models, stamps, profiles.

use std::time::Duration;

use anyhow::{Context, bail};
use tokenlag_channel::http::Connection;
use tokenlag_channel::http::render::{push_field, start_request};
use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{Dial, Stamping};
use tokenlag_loadgen::BaseUrl;

use crate::link::from_home;

/// The most that an answer may hold.
const BODY_LIMIT: usize = 256 << 20;

/// The body of `path` at `base`; over TLS where the address says so, from whom `trust` or else the system trusts.
///
/// # Errors
/// No connection, silence, or a status other than 200; says which.
pub async fn get(
    base: &BaseUrl,
    trust: Option<&ClientTls>,
    path: &str,
    headers: &[(String, String)],
    limit: Duration,
) -> anyhow::Result<Vec<u8>> {
    ask("GET", base, trust, path, headers, limit).await
}

/// The answer to a POST without a body to `path` at `base`, in clear.
///
/// # Errors
/// Those of [`get`].
pub async fn post(base: &BaseUrl, path: &str, limit: Duration) -> anyhow::Result<Vec<u8>> {
    ask("POST", base, None, path, &[], limit).await
}

async fn ask(
    method: &str,
    base: &BaseUrl,
    trust: Option<&ClientTls>,
    path: &str,
    headers: &[(String, String)],
    limit: Duration,
) -> anyhow::Result<Vec<u8>> {
    let scheme = if base.is_tls() { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", base.authority());
    let tls = match (base.is_tls(), trust) {
        (false, _) => None,
        (true, Some(trust)) => Some(trust.clone()),
        (true, None) => Some(ClientTls::of_system()?),
    };
    let work = request(method, base, tls, path, headers, limit);
    let (status, body) = tokio::time::timeout(limit, work)
        .await
        .with_context(|| format!("{method} {url}: no answer within {limit:?}"))??;
    if status != 200 {
        let excerpt: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        bail!("{method} {url}: status {status}: {}", excerpt.trim());
    }
    Ok(body)
}

async fn request(
    method: &str,
    base: &BaseUrl,
    tls: Option<ClientTls>,
    path: &str,
    headers: &[(String, String)],
    limit: Duration,
) -> anyhow::Result<(u16, Vec<u8>)> {
    let dial = Dial {
        host: base.host().to_owned(),
        port: base.port(),
        path: path.to_owned(),
        headers: Vec::new(),
        connect_timeout: limit,
        idle_timeout: limit,
        tls,
        stamping: Stamping::default(),
        nagle: false,
    };
    let mut wire = Vec::with_capacity(256);
    start_request(&mut wire, method, path, &base.authority());
    for (name, value) in headers {
        push_field(&mut wire, name.as_bytes(), value.as_bytes());
    }
    wire.extend_from_slice(b"connection: close\r\n\r\n");
    let mut connection = from_home(Connection::dial(&dial)).await??.connection;
    connection.send(&wire).await?;
    let mut response = connection.response(method, limit).await?;
    let mut body = Vec::new();
    while let Some(chunk) = connection.chunk(&mut response.body, limit).await? {
        body.extend_from_slice(&chunk.bytes);
        if body.len() > BODY_LIMIT {
            bail!("the answer is longer than {BODY_LIMIT} bytes");
        }
    }
    Ok((response.head.status, body))
}
