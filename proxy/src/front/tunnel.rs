//! Upgrades that are not ours to understand: the upstream decides, and after its 101 bytes flow both ways untouched, for as
//! long as both ends keep them flowing. After any other answer nothing more of the client reaches the upstream.

use std::io;

use tokenlag_channel::http::body::{LAST_CHUNK, push_chunk};
use tokenlag_channel::http::render::{push_field, start_request, start_response};
use tokenlag_channel::http::{Connection, Framing, RequestHead, Response, ServerConnection};
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::http::answer;
use crate::failure::Failure;
use crate::worker::Worker;

/// Serves a request that asks for an upgrade, to the connection's end.
pub(crate) async fn serve(worker: &Worker, mut client: ServerConnection, head: &RequestHead) {
    let (upstream, response) = match ask(worker, head).await {
        Ok(asked) => asked,
        Err(failure) => {
            // The client may be gone already.
            let _ = answer(&mut client, &failure).await;
            return;
        }
    };
    // Either end may hang up; the other is then closed too, which is all there is to say.
    let _ = match response.head.status {
        101 => join(client, upstream, response).await,
        _ => pass_refusal(worker, client, head, upstream, response).await,
    };
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

async fn join(
    mut client: ServerConnection,
    upstream: Connection,
    response: Response,
) -> io::Result<()> {
    let mut answer = Vec::with_capacity(1024);
    start_response(&mut answer, 101, &response.head.reason);
    for (name, value) in response.head.headers.iter() {
        push_field(&mut answer, name, value);
    }
    answer.extend_from_slice(b"\r\n");
    client.write_all(&answer).await?;

    let (mut client, early_up) = client.into_stream();
    let (mut upstream, early_down) = upstream.into_stream();
    upstream.write_all(&early_up).await?;
    client.write_all(&early_down).await?;
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
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
        .chunk(&mut response, idle)
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
