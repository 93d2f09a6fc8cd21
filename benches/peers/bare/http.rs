//! A relay of HTTP/1.1 by hyper alone: each client's connection has one to the upstream.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Relays until it is ended.
pub async fn relay(upstream: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the relay by hyper: {error}");
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
    let dialled = TcpStream::connect(upstream).await?;
    dialled.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(dialled)).await?;
    spawn_local(connection);
    let sender = Rc::new(RefCell::new(Some(sender)));
    let service = service_fn(move |request| pass(Rc::clone(&sender), request));
    let server = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(client), service);
    Ok(server.await?)
}

/// Sends a request on, and its response back; the bodies stream by themselves.
async fn pass(
    sender: Rc<RefCell<Option<SendRequest<Incoming>>>>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    // A connection carries one request after the other.
    let taken = sender.borrow_mut().take();
    let mut ready = taken.ok_or("the connection is in use")?;
    ready.ready().await?;
    let response = ready.send_request(request).await?;
    *sender.borrow_mut() = Some(ready);
    Ok(response)
}
