//! Upgrades that are not ours to understand: the upstream decides, and after its 101 bytes flow both ways untouched.

use std::io;

use tokenlag_channel::http::render::{push_field, start_request, start_response};
use tokenlag_channel::http::{Connection, RequestHead, ServerConnection};
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::http::answer;
use crate::failure::Failure;
use crate::worker::Worker;

/// Serves a request that asks for an upgrade, to the connection's end.
pub(crate) async fn serve(worker: &Worker, mut client: ServerConnection, head: &RequestHead) {
    let upstream = match worker.pool.take().await {
        Ok((upstream, _)) => upstream,
        Err(error) => {
            // The client may be gone already.
            let _ = answer(&mut client, &Failure::of_upstream(&error)).await;
            return;
        }
    };
    // Either end may hang up; the other is then closed too, which is all there is to say.
    let _ = pass(worker, client, upstream, head).await;
}

async fn pass(
    worker: &Worker,
    mut client: ServerConnection,
    mut upstream: Connection,
    head: &RequestHead,
) -> io::Result<()> {
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
    upstream.send(&request).await.map_err(io::Error::other)?;
    let response = upstream
        .response(&head.method, worker.pool.idle_timeout())
        .await;
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            answer(&mut client, &Failure::of_upstream(&error)).await?;
            return Ok(());
        }
    };
    let mut answer = Vec::with_capacity(1024);
    start_response(&mut answer, response.head.status, &response.head.reason);
    for (name, value) in response.head.headers.iter() {
        push_field(&mut answer, name, value);
    }
    answer.extend_from_slice(b"\r\n");
    client.write_all(&answer).await?;

    let (mut client, early_up) = client.into_stream();
    let (mut upstream, early_down) = upstream.into_stream();
    upstream.write_all(&early_up).await?;
    client.write_all(&early_down).await?;
    // A refusal's body flows the same way, up to the upstream's close.
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
