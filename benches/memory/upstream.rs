//! The upstream, in a process of its own: answers at once, or begins its answer and holds it open where the request says `hold`.

use std::io::Write;
use std::process::ExitCode;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The argument by which this process is started so.
pub const WORD: &str = "upstream";

/// What a request says whose answer is to be held open.
pub const HOLD: &str = "hold";

const BEGUN: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\"}}\n\n\
    data: {\"type\":\"response.output_text.delta\",\"delta\":\"word\"}\n\n";
const ENDED: &str = "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\"output\":[],\
    \"usage\":{\"input_tokens\":1,\"output_tokens\":1,\"total_tokens\":2}}}\n\n";

/// Serves until standard input ends, so until whoever started it does.
pub fn serve() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        let Ok(listener) = TcpListener::bind("127.0.0.1:0").await else {
            return ExitCode::FAILURE;
        };
        let Ok(address) = listener.local_addr() else {
            return ExitCode::FAILURE;
        };
        println!("{address}");
        if std::io::stdout().flush().is_err() {
            return ExitCode::FAILURE;
        }
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                // A connection that fails is the proxy's to tell of.
                tokio::spawn(async move { answer(stream).await });
            }
        }
    })
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut inbox = Vec::new();
    loop {
        let Some(length) = whole(&inbox) else {
            if stream.read_buf(&mut inbox).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let request = String::from_utf8_lossy(&inbox[..length]).into_owned();
        inbox.drain(..length);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut reply = format!("{head}{:x}\r\n{BEGUN}\r\n", BEGUN.len());
        if !request.contains(HOLD) {
            reply.push_str(&format!("{:x}\r\n{ENDED}\r\n0\r\n\r\n", ENDED.len()));
        }
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// How long the first request is, once it is whole.
fn whole(inbox: &[u8]) -> Option<usize> {
    let head = inbox.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&inbox[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    let end = head + length.unwrap_or(0);
    (inbox.len() >= end).then_some(end)
}
