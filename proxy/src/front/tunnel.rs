//! Upgrades that are not ours to understand: the upstream decides, and after its 101 bytes flow both ways untouched, for as
//! long as both ends keep them flowing. After any other answer nothing more of the client reaches the upstream. A tunnel has no
//! record, since nothing of it is understood; it is counted.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokenlag_channel::http::body::{LAST_CHUNK, push_chunk};
use tokenlag_channel::http::render::{push_field, start_request, start_response};
use tokenlag_channel::http::{Connection, Framing, RequestHead, Response, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::select;
use tokio::time::timeout;

use super::http::answer;
use crate::failure::Failure;
use crate::worker::Worker;

/// The most that is passed on at once, in bytes: two of these are held for each tunnel.
const PIECE: usize = 8 * 1024;

/// Serves a request that asks for an upgrade, to the connection's end.
pub(crate) async fn serve(worker: &Worker, mut client: ServerConnection, head: &RequestHead) {
    let metrics = &worker.book.metrics;
    let _open = metrics.begin_tunnel();
    let asked = select! {
        biased;
        asked = ask(worker, head) => asked,
        () = client.hung_up() => return metrics.tunnel_ended("cancelled"),
        () = worker.draining() => Err(shutting_down()),
    };
    let (upstream, response) = match asked {
        Ok(asked) => asked,
        Err(failure) => {
            metrics.tunnel_ended("failed");
            // The client may be gone already.
            let _ = answer(&mut client, &failure).await;
            return client.close_after_answer().await;
        }
    };
    let end = if response.head.status == 101 {
        let stalled = worker.websocket.stalled;
        match join(client, upstream, response, stalled).await {
            Ok(()) => "closed",
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                metrics.refused("http1", "stalled");
                "stalled"
            }
            // Either end may hang up; the other is then closed too, which is all there is to say.
            Err(_) => "lost",
        }
    } else {
        // As before.
        let _ = pass_refusal(worker, client, head, upstream, response).await;
        "refused"
    };
    metrics.tunnel_ended(end);
}

fn shutting_down() -> Failure {
    Failure {
        status: 503,
        reason: "Service Unavailable",
        code: "server_shutting_down",
        message: "the proxy is shutting down and opens no further tunnel: connect again".to_owned(),
    }
}

/// Asks the upstream on a connection of its own, which is used up either way.
async fn ask(worker: &Worker, head: &RequestHead) -> Result<(Connection, Response), Failure> {
    let mut request = Vec::with_capacity(1024);
    let target = worker.upstream.path(&head.target);
    let authority = worker.upstream.authority();
    start_request(&mut request, &head.method, &target, &authority);
    for (name, value) in head.headers.iter() {
        if !name.eq_ignore_ascii_case(b"host") {
            push_field(&mut request, name, value);
        }
    }
    request.extend_from_slice(b"\r\n");
    let asked = async {
        // It becomes another protocol's, whose bytes nobody counts.
        let dialled = Connection::dial(worker.pool.dialled()).await?;
        let mut upstream = dialled.connection;
        upstream.send(&request).await?;
        let idle = worker.pool.idle_timeout();
        let response = upstream.response(&head.method, idle).await?;
        Ok((upstream, response))
    };
    asked.await.map_err(|error| Failure::of_upstream(&error))
}

/// Joins both ends until each has said that it sends no more.
///
/// # Errors
/// An end is gone, or took not one byte for `stalled` ([`io::ErrorKind::TimedOut`]).
async fn join(
    mut client: ServerConnection,
    upstream: Connection,
    response: Response,
    stalled: Duration,
) -> io::Result<()> {
    let mut answer = Vec::with_capacity(1024);
    start_response(&mut answer, 101, &response.head.reason);
    for (name, value) in response.head.headers.iter() {
        push_field(&mut answer, name, value);
    }
    answer.extend_from_slice(b"\r\n");
    client.write_all(&answer).await?;

    let (client, early_up) = client.into_stream();
    let (upstream, early_down) = upstream.into_stream();
    let (mut from_client, mut to_client) = split(client);
    let (mut from_upstream, mut to_upstream) = split(upstream);
    tokio::try_join!(
        copy(early_up, &mut from_client, &mut to_upstream, stalled),
        copy(early_down, &mut from_upstream, &mut to_client, stalled),
    )?;
    Ok(())
}

/// Passes bytes on, `early` ones first, and then the end.
async fn copy(
    early: BytesMut,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    stalled: Duration,
) -> io::Result<()> {
    write(to, &early, stalled).await?;
    let mut room = vec![0; PIECE];
    loop {
        let count = from.read(&mut room).await?;
        if count == 0 {
            return timeout(stalled, to.shutdown()).await?;
        }
        write(to, &room[..count], stalled).await?;
    }
}

/// Writes all, as long as some of it is taken.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stalled: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(stalled, to.write(bytes)).await?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    timeout(stalled, to.flush()).await?
}

/// Passes an answer on that upgrades nothing, and closes the connection after it.
async fn pass_refusal(
    worker: &Worker,
    mut client: ServerConnection,
    head: &RequestHead,
    mut upstream: Connection,
    mut response: Response,
) -> io::Result<()> {
    let framing = response.head.framing(&head.method);
    let chunked = framing == Ok(Framing::Chunked) && head.version == 1;
    let mut out = Vec::with_capacity(1024);
    start_response(&mut out, response.head.status, &response.head.reason);
    for (name, value) in response.head.headers.end_to_end() {
        push_field(&mut out, name, value);
    }
    if chunked {
        push_field(&mut out, b"transfer-encoding", b"chunked");
    }
    push_field(&mut out, b"connection", b"close");
    out.extend_from_slice(b"\r\n");
    let idle = worker.pool.idle_timeout();
    // A body that breaks off looks so: the connection is closed inside it.
    while let Some(chunk) = upstream
        .chunk(&mut response.body, idle)
        .await
        .map_err(io::Error::other)?
    {
        if chunked {
            push_chunk(&mut out, &chunk.bytes);
        } else {
            out.extend_from_slice(&chunk.bytes);
        }
        client.write_all(&out).await?;
        out.clear();
    }
    if chunked {
        out.extend_from_slice(LAST_CHUNK);
    }
    client.write_all(&out).await?;
    client.close_after_answer().await;
    Ok(())
}
