//! A relay of WebSocket by tungstenite alone: message by message, both ways.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// Relays until it is ended.
pub async fn relay(upstream: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the relay by tungstenite: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(failed)?;
    super::announce(listener.local_addr().map_err(failed)?);
    loop {
        let (client, _) = listener.accept().await.map_err(failed)?;
        client.set_nodelay(true).map_err(failed)?;
        spawn_local(async move {
            // Whoever is cut off finds out.
            let _ = serve(client, upstream).await;
        });
    }
}

async fn serve(client: TcpStream, upstream: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let mut asked = None;
    // The library's own type of a refusal is large.
    #[allow(clippy::result_large_err)]
    let note = |request: &Request, response: Response| {
        asked = Some((
            request.uri().to_string(),
            request.headers().get("traceparent").cloned(),
        ));
        Ok(response)
    };
    let mut client = tokio_tungstenite::accept_hdr_async(client, note).await?;
    let (path, trace) = asked.ok_or("an opening without a request")?;
    let dialled = TcpStream::connect(upstream).await?;
    dialled.set_nodelay(true)?;
    let mut opening = format!("ws://{upstream}{path}").into_client_request()?;
    if let Some(trace) = trace {
        opening.headers_mut().insert("traceparent", trace);
    }
    let (mut server, _) = tokio_tungstenite::client_async(opening, dialled).await?;
    loop {
        tokio::select! {
            message = client.next() => match message {
                Some(message) => server.send(message?).await?,
                None => return Ok(()),
            },
            message = server.next() => match message {
                Some(message) => client.send(message?).await?,
                None => return Ok(()),
            },
        }
    }
}
