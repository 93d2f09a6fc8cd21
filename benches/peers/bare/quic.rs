//! A relay of QUIC streams by quinn alone: chunk by chunk, both ways, whatever they carry.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokenlag_channel::quic::ALPN;
use tokio::task::spawn_local;

/// As our channels announce them.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

type Failure = Box<dyn std::error::Error>;

/// Relays until it is ended. The files: its certificate and key, and whom it trusts upstream.
pub async fn relay(upstream: SocketAddr, files: [Vec<u8>; 3]) -> Result<(), String> {
    let run = async {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let (server, client) = configurations(files)?;
        let listening = quinn::Endpoint::server(server, any)?;
        let mut dialling = quinn::Endpoint::client(any)?;
        dialling.set_default_client_config(client);
        super::announce(listening.local_addr()?);
        while let Some(incoming) = listening.accept().await {
            let dialling = dialling.clone();
            spawn_local(async move {
                // Whoever is cut off finds out.
                let _ = serve(incoming, &dialling, upstream).await;
            });
        }
        Ok::<_, Failure>(())
    };
    run.await
        .map_err(|error| format!("the relay by quinn: {error}"))
}

fn configurations(
    files: [Vec<u8>; 3],
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), Failure> {
    let [certificate, key, trust] = files;
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    for trusted in CertificateDer::pem_slice_iter(&trust) {
        roots.add(trusted?)?;
    }
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(Duration::from_secs(15)))
        .datagram_receive_buffer_size(None)
        .send_window(STREAM_WINDOW.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into());
    let transport = Arc::new(transport);
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(Arc::clone(&transport));
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport);
    Ok((server, client))
}

async fn serve(
    incoming: quinn::Incoming,
    dialling: &quinn::Endpoint,
    upstream: SocketAddr,
) -> Result<(), Failure> {
    let client = incoming.await?;
    let server = dialling.connect(upstream, "localhost")?.await?;
    loop {
        let (to_client, from_client) = client.accept_bi().await?;
        let (to_server, from_server) = server.open_bi().await?;
        spawn_local(pass(from_client, to_server));
        spawn_local(pass(from_server, to_client));
    }
}

/// One way of a stream, to its end; one that is cut off is cut off on the other side too.
async fn pass(mut from: RecvStream, mut to: SendStream) {
    loop {
        // A stream that is closed already needs neither.
        match from.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                if to.write_chunk(chunk.bytes).await.is_err() {
                    return;
                }
            }
            Ok(None) => return to.finish().unwrap_or_default(),
            Err(_) => return to.reset(0u32.into()).unwrap_or_default(),
        }
    }
}
