//! One connection: requests in, replies out, until either side has had enough.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokenlag_probes::TraceId;

use crate::answer::{Answer, answer, error_body};
use crate::backend::Shared;
use crate::conductor::Play;
use crate::http::{self, Request, RequestReader};
use crate::journal::ReceivedRequest;
use crate::play::After;
use crate::wait;

/// Serves one connection to its end. Errors of the socket end it; they are the client's to notice.
pub(crate) fn serve(socket: &Arc<TcpStream>, number: u64, shared: &Shared) -> After {
    let mut stream: &TcpStream = socket;
    let mut reader = RequestReader::default();
    loop {
        let request = match reader.next(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return After::Close,
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    let body = error_body("invalid_request_error", &error.to_string(), None);
                    // The client may be gone already.
                    let _ = stream.write_all(&http::whole(400, &body, true));
                }
                return After::Close;
            }
        };
        match serve_one(socket, request, number, shared) {
            Ok(After::KeepAlive) => {}
            Ok(after) => return after,
            Err(_) => return After::Close,
        }
    }
}

fn serve_one(
    socket: &Arc<TcpStream>,
    request: Request,
    connection: u64,
    shared: &Shared,
) -> io::Result<After> {
    let trace = request
        .header("traceparent")
        .and_then(TraceId::from_traceparent);
    let close = request.wants_close();
    let received = ReceivedRequest {
        connection,
        at: request.read_at,
        method: request.method,
        path: request.path,
        headers: request.headers,
        body: request.body,
        trace,
    };
    match answer(&received, shared) {
        Answer::Whole { due, status, body } => {
            if !wait::until(due, &shared.stopping) {
                return Err(io::Error::other("the backend was told to stop"));
            }
            let mut stream: &TcpStream = socket;
            stream.write_all(&http::whole(status, &body, close))?;
            Ok(match close {
                true => After::Close,
                false => After::KeepAlive,
            })
        }
        Answer::Stream(playback) => {
            let (done, ended) = sync_channel(1);
            shared.play(Play {
                socket: Arc::clone(socket),
                playback: *playback,
                trace,
                close,
                done,
            })?;
            let stopped = |_| io::Error::other("the backend was told to stop");
            ended.recv().map_err(stopped)?
        }
    }
}
