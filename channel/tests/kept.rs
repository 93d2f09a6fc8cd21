//! A kept HTTP connection that the server gives up: asked again once where it was idle, never where it was at work.

use std::time::Duration;

use tokenlag_channel::{Ask, Channel, ChannelError, Dial, Request, Stamping};
use tokenlag_probes::{Encoding, FailureKind, TraceId, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers one request, and leaves the next one on the connection without an answer, `pause` after it came.
async fn serve_one_and_close(stream: &mut TcpStream, pause: Duration) {
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    stream.write_all(ANSWER).await.unwrap();
    assert!(stream.read(&mut request).await.unwrap() > 0);
    tokio::time::sleep(pause).await;
}

async fn ask(channel: &Channel) -> Result<u16, ChannelError> {
    let ask = Ask {
        path: "/v1/responses",
        authority: "test",
        headers: &[],
        body: b"{}",
        trace: TraceId::from_bits(1),
        encoding: Encoding::Events,
    };
    let request = Request::render(Transport::Http, &ask)?;
    let reply = channel.open(&request).await?;
    let status = reply.status();
    reply.finish().await?;
    Ok(status)
}

/// Two requests in a row to a server that closes the connection on the second: what becomes of it.
async fn second_request(pause: Duration) -> (Result<u16, ChannelError>, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(5),
        tls: None,
        stamping: Stamping::default(),
        nagle: false,
    };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve_one_and_close(&mut stream, pause).await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        serve_one_and_close(&mut stream, pause).await;
    };
    let client = async {
        let channel = Channel::new(Transport::Http, dial);
        assert_eq!(ask(&channel).await.unwrap(), 200);
        let second = ask(&channel).await;
        (second, channel.counters().connections_opened)
    };
    tokio::select! {
        () = serve => panic!("the server ended first"),
        seen = client => seen,
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_idle_connection_that_was_closed_is_replaced() {
    let (second, connections) = second_request(Duration::ZERO).await;
    assert_eq!((second.unwrap(), connections), (200, 2));
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_dies_at_work_is_not_asked_again() {
    let (second, connections) = second_request(Duration::from_millis(400)).await;
    assert_eq!(second.unwrap_err().kind(), FailureKind::ConnectionLost);
    assert_eq!(connections, 1);
}
