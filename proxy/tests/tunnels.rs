//! Upgrades that the proxy does not understand itself.

mod stack;

use stack::{Stack, raw, run};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\n";

/// A proxy in front of an upstream that reads one request and does as `act` says; gives all that the upstream read, too.
async fn through<F: Future<Output = TcpStream> + Send>(
    client: &[u8],
    act: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let unused = ScriptedBackend::start(Script::default()).unwrap();
    let stack = Stack::in_front_of(unused, upstream.parse().unwrap(), |options| options);
    let serve = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(stream.read_u8().await.unwrap());
        }
        let mut stream = act(stream).await;
        // Whatever else comes before the proxy lets go.
        let _ = stream.read_to_end(&mut read).await;
        String::from_utf8(read).unwrap()
    });
    let answer = raw(stack.addresses.listen, client).await;
    (answer, serve.await.unwrap())
}

#[test]
fn bytes_flow_both_ways_after_the_upgrade() {
    run(async {
        let client = format!("{ASK}hello");
        let (answer, read) = through(client.as_bytes(), |mut stream| async move {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            stream.shutdown().await.unwrap();
            // The client closes once it has seen the end.
            stream
        })
        .await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert!(read.contains("upgrade: odd/1"), "{read}");
    });
}

#[test]
fn a_refused_upgrade_opens_no_way_for_further_requests() {
    for (body, seen) in [
        ("content-length: 2\r\n\r\nno", "\r\n\r\nno"),
        (
            "transfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        ),
    ] {
        run(async {
            let client = format!("{ASK}GET /secret HTTP/1.1\r\nhost: a\r\n\r\n");
            let (answer, read) = through(client.as_bytes(), move |mut stream| async move {
                let answer = format!("HTTP/1.1 403 Forbidden\r\nx-why: because\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream
            })
            .await;
            assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
            assert!(answer.contains("x-why: because\r\n"), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            assert!(answer.ends_with(seen), "{answer}");
            assert!(!read.contains("/secret"), "{read}");
        });
    }
}
