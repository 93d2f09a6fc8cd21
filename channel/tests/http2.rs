//! HTTP/2, both ends on loopback, in clear and inside TLS.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use tokenlag_channel::accept::{Accepted, Acceptor};
use tokenlag_channel::http2::{Client, ClientReply, Exchange, ReplyWriter};
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{self, ClientTls, ServerTls};
use tokenlag_channel::{
    Ask, Channel, ChannelError, Chunk, Dial, ExchangeLimits, Reply, Request, Stamping,
};
use tokenlag_probes::{Clock, Encoding, FailureKind, MonoClock, Stamp, TraceId, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

/// Runs a test as the proxy runs: on one thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Serves every exchange on every connection with `deed`; gives where.
async fn server<D, F>(limits: ExchangeLimits, deed: D) -> Dial
where
    D: Fn(Exchange) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let identity = tls::self_signed(&["127.0.0.1"]).unwrap();
    let trust = ClientTls::trusting(identity.cert_pem.as_bytes()).unwrap();
    let tls = ServerTls {
        identity,
        resumption: true,
        early_data: false,
    };
    let limits = DoorLimits {
        exchange: limits,
        ..DoorLimits::default()
    };
    let acceptor = Acceptor::new(&tls, limits).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut dial = dial(&listener);
    dial.tls = Some(trust);
    let deed = Rc::new(deed);
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, deed) = (acceptor.clone(), Rc::clone(&deed));
            spawn_local(async move {
                let Ok(Accepted::Http2(connection)) = acceptor.accept(stream).await else {
                    return;
                };
                while let Some(exchange) = connection.next_exchange().await {
                    spawn_local(deed(exchange));
                }
            });
        }
    });
    dial
}

fn dial(listener: &TcpListener) -> Dial {
    Dial {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(5),
        tls: None,
        stamping: Stamping::default(),
        nagle: false,
    }
}

fn request(body: &str) -> Request {
    let ask = Ask {
        path: "/v1/responses",
        authority: "test",
        headers: &[("x-name".to_owned(), "value".to_owned())],
        body: body.as_bytes(),
        trace: TraceId::from_bits(1),
        encoding: Encoding::Events,
    };
    Request::render(Transport::Http2, &ask).unwrap()
}

async fn read_all(reply: &mut Reply) -> Result<Vec<Chunk>, ChannelError> {
    let mut chunks = Vec::new();
    while let Some(chunk) = reply.next().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn text(chunks: &[Chunk]) -> String {
    let bytes: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk.bytes.to_vec())
        .collect();
    String::from_utf8(bytes).unwrap()
}

async fn ask(channel: &Channel, body: &str) -> Result<String, ChannelError> {
    let mut reply = channel.open(&request(body)).await?;
    let chunks = read_all(&mut reply).await?;
    reply.finish().await?;
    Ok(text(&chunks))
}

/// Reads the request and answers with `events` copies of its body, each flushed by itself; gives the stamps.
async fn echo(exchange: Exchange, events: usize, gap: Duration) -> Vec<Stamp> {
    let (incoming, mut writer) = exchange.request().await.unwrap();
    assert_eq!(
        (incoming.method(), incoming.target()),
        ("POST", "/v1/responses")
    );
    assert_eq!(incoming.field("x-name"), Some("value"));
    assert!(incoming.in_head <= incoming.in_body);
    writer.head(200, &[("x-reply".to_owned(), Bytes::from_static(b"yes"))]);
    let mut stamps = Vec::new();
    for number in 0..events {
        writer.data(incoming.body.clone());
        if number + 1 == events {
            writer.end();
        }
        stamps.push(writer.flush().await.unwrap());
        sleep(gap).await;
    }
    writer.finish().await.unwrap();
    stamps
}

#[test]
fn many_exchanges_share_a_connection_and_each_byte_has_its_stamp() {
    for encrypted in [false, true] {
        run(async {
            let deed = |exchange| async move {
                echo(exchange, 20, Duration::from_millis(1)).await;
            };
            let mut dial = server(ExchangeLimits::default(), deed).await;
            dial.tls = dial.tls.filter(|_| encrypted);
            let channel = Channel::new(Transport::Http2, dial);
            channel.connect().await.unwrap();
            let ended = Rc::new(Cell::new(0));
            let mut running = tokio::task::JoinSet::new();
            for number in 0..50 {
                let (channel, ended) = (channel.clone(), Rc::clone(&ended));
                running.spawn_local(async move {
                    let body = format!("body {number};");
                    let mut reply = channel.open(&request(&body)).await.unwrap();
                    let opening = reply.opening();
                    let head = reply.head().unwrap();
                    assert_eq!(reply.status(), 200);
                    assert!(opening.connected <= opening.written && opening.written < head);
                    let fields = reply.fields();
                    assert!(
                        fields.contains(&("x-reply".to_owned(), "yes".into())),
                        "{fields:?}"
                    );
                    let chunks = read_all(&mut reply).await.unwrap();
                    reply.finish().await.unwrap();
                    assert_eq!(text(&chunks), body.repeat(20));
                    let mut before = head;
                    let mut ordinal = None;
                    for chunk in &chunks {
                        assert!(chunk.at >= before, "stamps go forward");
                        // A stamp is a read's.
                        assert_eq!(
                            chunk.at == before,
                            ordinal == Some(chunk.ordinal) || chunk.at == head
                        );
                        (before, ordinal) = (chunk.at, Some(chunk.ordinal));
                    }
                    assert!(
                        chunks.len() > 5,
                        "the events did not come as one: {}",
                        chunks.len()
                    );
                    ended.set(ended.get() + 1);
                });
            }
            while let Some(joined) = running.join_next().await {
                joined.unwrap();
            }
            assert_eq!(ended.get(), 50);
            let counters = channel.counters();
            assert_eq!(counters.connections_opened, 1);
            let encryption = counters.bytes_received - counters.channel_bytes_received;
            assert_eq!(encryption > 0, encrypted, "{counters:?}");
            channel.close().await;
        });
    }
}

#[test]
fn who_waits_alone_is_served_when_others_join_and_others_when_it_gives_up() {
    run(async {
        let (asked, answer) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (told, held) = (Rc::clone(&asked), Rc::clone(&answer));
        let dial = server(ExchangeLimits::default(), move |exchange| {
            let (told, held) = (Rc::clone(&told), Rc::clone(&held));
            async move {
                let (incoming, mut writer) = exchange.request().await.unwrap();
                if &incoming.body[..] == b"slow" {
                    told.notify_one();
                    held.notified().await;
                }
                writer.head(200, &[]);
                writer.data(incoming.body);
                // A client that gave up takes no reply.
                let _ = writer.finish().await;
            }
        })
        .await;
        let channel = Rc::new(Channel::new(Transport::Http2, dial));
        let alone = Rc::clone(&channel);
        let slow = spawn_local(async move { ask(&alone, "slow").await });
        asked.notified().await;
        // It waits alone, and is joined by others whose replies come first.
        for _ in 0..3 {
            assert_eq!(ask(&channel, "quick").await.unwrap(), "quick");
        }
        answer.notify_one();
        assert_eq!(slow.await.unwrap().unwrap(), "slow");

        let alone = Rc::clone(&channel);
        let slow = spawn_local(async move { ask(&alone, "slow").await });
        asked.notified().await;
        let joined = Rc::clone(&channel);
        let other = spawn_local(async move { ask(&joined, "slow").await });
        asked.notified().await;
        slow.abort();
        assert!(slow.await.unwrap_err().is_cancelled());
        answer.notify_one();
        tokio::task::yield_now().await;
        answer.notify_one();
        assert_eq!(other.await.unwrap().unwrap(), "slow");
        assert_eq!(channel.counters().connections_opened, 1);
    });
}

#[test]
fn a_write_is_stamped_before_it_is_read() {
    run(async {
        let out = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&out);
        let dial = server(ExchangeLimits::default(), move |exchange| {
            let seen = Rc::clone(&seen);
            async move {
                let stamps = echo(exchange, 30, Duration::from_millis(2)).await;
                seen.borrow_mut().extend(stamps);
            }
        });
        let mut dial = dial.await;
        dial.tls = None;
        let channel = Channel::new(Transport::Http2, dial);
        let mut reply = channel.open(&request("event")).await.unwrap();
        let chunks = read_all(&mut reply).await.unwrap();
        reply.finish().await.unwrap();
        while out.borrow().len() < 30 {
            tokio::task::yield_now().await;
        }
        let out = out.borrow();
        assert!(out.is_sorted());
        assert_eq!(chunks.len(), 30);
        for (out, chunk) in out.iter().zip(&chunks) {
            assert!(*out <= chunk.at, "{out:?} and {:?}", chunk.at);
        }
    });
}

#[test]
fn what_breaks_off_looks_so_to_either_end() {
    run(async {
        let given_up = Rc::new(Notify::new());
        let told = Rc::clone(&given_up);
        let dial = server(ExchangeLimits::default(), move |exchange| {
            let told = Rc::clone(&told);
            async move {
                let (incoming, mut writer) = exchange.request().await.unwrap();
                writer.head(200, &[]);
                writer.data(Bytes::from_static(b"some"));
                writer.flush().await.unwrap();
                match &incoming.body[..] {
                    b"break" => drop(writer),
                    b"hang" => {
                        writer.given_up().await;
                        writer.data(Bytes::from_static(b"more"));
                        assert!(writer.flush().await.is_err());
                        told.notify_one();
                    }
                    _ => writer.finish().await.unwrap(),
                }
            }
        });
        let channel = Channel::new(Transport::Http2, dial.await);
        let error = ask(&channel, "break").await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ConnectionLost, "{error}");
        let mut reply = channel.open(&request("hang")).await.unwrap();
        assert_eq!(&reply.next().await.unwrap().unwrap().bytes[..], b"some");
        drop(reply);
        given_up.notified().await;
        assert_eq!(ask(&channel, "end").await.unwrap(), "some");
        assert_eq!(channel.counters().connections_opened, 1);
    });
}

#[test]
fn a_slow_reader_slows_the_writer() {
    run(async {
        const PIECE: usize = 64 * 1024;
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        let dial = server(ExchangeLimits::default(), move |exchange| {
            let count = Rc::clone(&count);
            async move {
                let (_, mut writer) = exchange.request().await.unwrap();
                writer.head(200, &[]);
                for _ in 0..500 {
                    writer.data(vec![b'x'; PIECE].into());
                    writer.flush().await.unwrap();
                    count.set(count.get() + PIECE);
                }
                writer.finish().await.unwrap();
            }
        });
        let channel = Channel::new(Transport::Http2, dial.await);
        let mut reply = channel.open(&request("x")).await.unwrap();
        // The window of a stream, and what the sockets hold.
        let mut before = usize::MAX;
        while before != sent.get() || before < 4 << 20 {
            before = sent.get();
            sleep(Duration::from_millis(50)).await;
        }
        assert!((4 << 20..24 << 20).contains(&before), "{before}");
        let chunks = read_all(&mut reply).await.unwrap();
        let all: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        assert_eq!(all, 500 * PIECE);
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    run(async {
        let limits = ExchangeLimits {
            stalled: Duration::from_millis(100),
            ..ExchangeLimits::default()
        };
        let failed = Rc::new(Notify::new());
        let told = Rc::clone(&failed);
        let dial = server(limits, move |exchange| {
            let told = Rc::clone(&told);
            async move {
                let (_, mut writer) = exchange.request().await.unwrap();
                writer.head(200, &[]);
                let error = loop {
                    writer.data(vec![b'x'; 1 << 20].into());
                    if let Err(error) = writer.flush().await {
                        break error;
                    }
                };
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
                told.notify_one();
            }
        });
        let channel = Channel::new(Transport::Http2, dial.await);
        let mut reply = channel.open(&request("x")).await.unwrap();
        failed.notified().await;
        assert!(read_all(&mut reply).await.is_err());
    });
}

#[test]
fn a_whole_reply_that_its_client_does_not_take_is_taken_back() {
    // More than the windows and the sockets hold, at once; and what little follows when they are full.
    for pieces in [vec![64 << 20], vec![64 << 20, 5]] {
        run(async move {
            let limits = ExchangeLimits {
                stalled: Duration::from_millis(100),
                ..ExchangeLimits::default()
            };
            let failed = Rc::new(Notify::new());
            let told = Rc::clone(&failed);
            let dial = server(limits, move |exchange| {
                let (told, pieces) = (Rc::clone(&told), pieces.clone());
                async move {
                    let (_, mut writer) = exchange.request().await.unwrap();
                    writer.head(200, &[]);
                    for (number, length) in pieces.iter().enumerate() {
                        writer.data(vec![b'x'; *length].into());
                        if number + 1 == pieces.len() {
                            writer.end();
                        }
                        let error = writer.flush().await.unwrap_err();
                        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
                    }
                    drop(writer);
                    told.notify_one();
                }
            });
            let channel = Channel::new(Transport::Http2, dial.await);
            let mut reply = channel.open(&request("x")).await.unwrap();
            failed.notified().await;
            let read = read_all(&mut reply).await;
            assert!(read.is_err(), "it must not look whole");
        });
    }
}

#[test]
fn a_request_that_stops_half_way_is_not_waited_for() {
    run(async {
        let limits = ExchangeLimits {
            idle: Duration::from_millis(50),
            body: 1000,
            ..ExchangeLimits::default()
        };
        let dial = server(limits, |exchange| async {
            let (error, mut writer) = exchange.request().await.unwrap_err();
            writer.head(error.status().unwrap(), &[]);
            writer.finish().await.unwrap();
        });
        let dial = dial.await;
        let stream = TcpStream::connect(("127.0.0.1", dial.port)).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        spawn_local(async {
            let _ = connection.await;
        });
        for (body, status) in [(10, 408), (1001, 413)] {
            let request = http::Request::post("http://test/").body(()).unwrap();
            let (response, mut sending) = send.send_request(request, false).unwrap();
            sending.send_data(vec![0; body].into(), false).unwrap();
            assert_eq!(response.await.unwrap().status(), status);
        }
    });
}

/// A server of the library's own, on each connection with its deed.
async fn bare_server<F>(
    settings: h2::server::Builder,
    deeds: Vec<fn(h2::server::Connection<TcpStream, Bytes>) -> F>,
) -> Dial
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dial = dial(&listener);
    spawn_local(async move {
        for deed in deeds {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = settings.handshake(stream).await.unwrap();
            spawn_local(deed(connection));
        }
    });
    dial
}

type Bare = h2::server::Connection<TcpStream, Bytes>;

/// Answers everything that comes.
async fn answer_all(mut connection: Bare) {
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut sending = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
    }
}

#[test]
fn a_reply_that_begins_before_its_request_was_sent_is_told_apart() {
    run(async {
        let deed: fn(Bare) -> _ = |connection| answer_all(connection);
        let dial = bare_server(h2::server::Builder::new(), vec![deed]).await;
        let channel = Channel::new(Transport::Http2, dial);
        // More than the window that the server never widens.
        for (length, overlapped) in [(10_000, false), (200_000, true)] {
            let request = request(&"b".repeat(length));
            let reply = channel.open(&request).await.unwrap();
            assert_eq!(reply.opening().overlapped, overlapped, "{length}");
        }
    });
}

#[test]
fn exchanges_wait_for_a_stream_that_the_server_allows() {
    run(async {
        let mut settings = h2::server::Builder::new();
        settings.max_concurrent_streams(2);
        let deed: fn(Bare) -> _ = |mut connection| {
            let running = Rc::new(Cell::new(0));
            async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    running.set(running.get() + 1);
                    assert!(running.get() <= 2);
                    let running = Rc::clone(&running);
                    spawn_local(async move {
                        sleep(Duration::from_millis(5)).await;
                        let head = http::Response::new(());
                        let mut sending = respond.send_response(head, false).unwrap();
                        running.set(running.get() - 1);
                        sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
                    });
                }
            }
        };
        let dial = bare_server(settings, vec![deed]).await;
        let channel = Channel::new(Transport::Http2, dial);
        // The server's settings come with the first exchange.
        assert_eq!(ask(&channel, "first").await.unwrap(), "ok");
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let channel = channel.clone();
            running.spawn_local(async move { ask(&channel, "x").await });
        }
        while let Some(joined) = running.join_next().await {
            assert_eq!(joined.unwrap().unwrap(), "ok");
        }
        assert_eq!(channel.counters().connections_opened, 1);
    });
}

#[test]
fn a_request_is_connected_once_it_has_a_stream_and_waits_for_one_with_a_limit() {
    run(async {
        let mut settings = h2::server::Builder::new();
        settings.max_concurrent_streams(1);
        let deed: fn(Bare) -> _ = |connection| answer_all(connection);
        let dial = Dial {
            idle_timeout: Duration::from_millis(500),
            ..bare_server(settings, vec![deed]).await
        };
        let channel = Channel::new(Transport::Http2, dial);
        assert_eq!(ask(&channel, "first").await.unwrap(), "ok");
        // Its stream is taken for as long as it is there.
        let running = channel.open(&request("x")).await.unwrap();
        let late = channel.open(&request("x")).await.unwrap_err();
        let what = "stream for the request";
        assert!(
            matches!(late, ChannelError::Timeout { what: waited_for, .. } if waited_for == what),
            "{late}"
        );
        let waiting = channel.clone();
        let next = spawn_local(async move { waiting.open(&request("x")).await.unwrap() });
        tokio::task::yield_now().await;
        let freed = MonoClock.now();
        drop(running);
        assert!(next.await.unwrap().opening().connected >= freed);
    });
}

#[test]
fn who_gives_up_in_line_leaves_the_stream_to_the_next() {
    run(async {
        let mut settings = h2::server::Builder::new();
        settings.max_concurrent_streams(1);
        let deed: fn(Bare) -> _ = |connection| answer_all(connection);
        let dial = bare_server(settings, vec![deed]).await;
        let channel = Channel::new(Transport::Http2, dial);
        assert_eq!(ask(&channel, "first").await.unwrap(), "ok");
        let running = channel.open(&request("x")).await.unwrap();
        let asked = request("x");
        let mut impatient = Box::pin(channel.open(&asked));
        let pending = poll_fn(|context| Poll::Ready(impatient.as_mut().poll(context).is_pending()));
        assert!(pending.await);
        let patient = channel.clone();
        let patient = spawn_local(async move { ask(&patient, "x").await });
        tokio::task::yield_now().await;
        // The stream is offered to the one who came first, and no longer wants it.
        drop(running);
        drop(impatient);
        assert_eq!(patient.await.unwrap().unwrap(), "ok");
        assert_eq!(channel.counters().connections_opened, 1);
    });
}

#[test]
fn what_a_server_refuses_or_leaves_untouched_is_asked_again() {
    /// Refuses the first stream.
    async fn refuse(mut connection: Bare) {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(Reason::REFUSED_STREAM);
        answer_all(connection).await;
    }
    /// Answers one exchange and says goodbye.
    async fn leave(mut connection: Bare) {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut sending = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
        connection.graceful_shutdown();
        while connection.accept().await.is_some() {}
    }
    /// Answers one exchange, and closes the connection when the next one comes.
    async fn vanish(mut connection: Bare) {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut sending = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
        drop(sending);
        let _ = connection.accept().await;
    }
    type Deed = fn(Bare) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;
    run(async {
        let deeds: Vec<Deed> = vec![|connection| Box::pin(refuse(connection))];
        let channel = Channel::new(
            Transport::Http2,
            bare_server(h2::server::Builder::new(), deeds).await,
        );
        assert_eq!(ask(&channel, "refused").await.unwrap(), "ok");
        assert_eq!(channel.counters().connections_opened, 1);

        for deed in [
            (|connection| Box::pin(leave(connection))) as Deed,
            |connection| Box::pin(vanish(connection)),
        ] {
            let deeds: Vec<Deed> = vec![deed, |connection| Box::pin(answer_all(connection))];
            let channel = Channel::new(
                Transport::Http2,
                bare_server(h2::server::Builder::new(), deeds).await,
            );
            assert_eq!(ask(&channel, "first").await.unwrap(), "ok");
            assert_eq!(ask(&channel, "second").await.unwrap(), "ok");
            assert_eq!(channel.counters().connections_opened, 2);
        }
    });
}

#[test]
fn a_server_that_dies_at_work_is_not_asked_again() {
    /// Answers one exchange, works on the next one, and dies of it.
    async fn die(mut connection: Bare) {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut sending = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
        drop(sending);
        let _second = connection.accept().await.unwrap().unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(400), connection.accept()).await;
    }
    run(async {
        let dial = bare_server(h2::server::Builder::new(), vec![die]).await;
        let channel = Channel::new(Transport::Http2, dial);
        assert_eq!(ask(&channel, "first").await.unwrap(), "ok");
        let error = ask(&channel, "second").await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ConnectionLost, "{error}");
        assert_eq!(channel.counters().connections_opened, 1);
    });
}

#[test]
fn a_server_without_http2_is_told_apart() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(dial(&listener));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 24];
            stream.read_exact(&mut some).await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let _ = stream.read(&mut some).await;
            std::future::pending::<()>().await;
        };
        let opened: Result<Box<ClientReply>, ChannelError> = tokio::select! {
            () = serve => unreachable!(),
            opened = async { client.open(&request("x")).await } => opened,
        };
        let error = opened.map(drop).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Protocol, "{error}");
        assert!(error.to_string().contains("HTTP/2"), "{error}");
    });
}

#[test]
fn streams_that_are_taken_back_in_a_row_end_the_connection_and_are_counted() {
    run(async {
        let identity = tls::self_signed(&["127.0.0.1"]).unwrap();
        let tls = ServerTls {
            identity,
            resumption: false,
            early_data: false,
        };
        let acceptor = Acceptor::new(&tls, DoorLimits::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let attack = async {
            // Bare frames: the library's client would be too polite.
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut bytes = tokenlag_channel::http2::frames::PREFACE.to_vec();
            bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
            // :method GET, :scheme http, :path / of HPACK's static table, and an authority.
            let head = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
            for number in 0..10_000u32 {
                let id = (2 * number + 1).to_be_bytes();
                bytes.extend([0, 0, head.len() as u8, 1, 0x5]);
                bytes.extend(id);
                bytes.extend(head);
                bytes.extend([0, 0, 4, 3, 0]);
                bytes.extend(id);
                bytes.extend(8u32.to_be_bytes());
            }
            let _ = stream.write_all(&bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        };
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(Accepted::Http2(connection)) = acceptor.accept(stream).await else {
                panic!("it is HTTP/2");
            };
            let mut served = 0;
            while let Some(exchange) = connection.next_exchange().await {
                served += 1;
                drop(exchange);
            }
            assert!(served < 100, "{served}");
            assert_eq!(connection.verdict(), Some("enhance_your_calm"));
        };
        tokio::join!(attack, serve);
    });
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_served() {
    run(async {
        let release = Rc::new(Notify::new());
        let waiting = Rc::clone(&release);
        let dial = server(ExchangeLimits::default(), move |exchange| {
            let waiting = Rc::clone(&waiting);
            async move {
                let (_, mut writer): (_, ReplyWriter) = exchange.request().await.unwrap();
                waiting.notified().await;
                writer.head(204, &[]);
                writer.finish().await.unwrap();
            }
        });
        let dial = dial.await;
        let stream = TcpStream::connect(("127.0.0.1", dial.port)).await.unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_max_send_streams(400)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        let mut responses = Vec::new();
        for _ in 0..300 {
            let request = http::Request::get("http://test/").body(()).unwrap();
            let (response, _) = send.clone().send_request(request, true).unwrap();
            responses.push(response);
        }
        spawn_local(async {
            let _ = connection.await;
        });
        let mut refused = 0;
        for response in responses.split_off(256) {
            let error = response.await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
            refused += 1;
        }
        assert_eq!(refused, 44);
        release.notify_waiters();
        for response in responses {
            assert_eq!(response.await.unwrap().status(), 204);
        }
    });
}

#[test]
fn a_request_with_fields_of_one_connection_is_refused_unseen() {
    run(async {
        let deed = |_| async { panic!("nothing was asked") };
        let dial = server(ExchangeLimits::default(), deed).await;
        let fields = [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
        ];
        for (name, value) in fields {
            let mut stream = TcpStream::connect(("127.0.0.1", dial.port)).await.unwrap();
            let mut bytes = tokenlag_channel::http2::frames::PREFACE.to_vec();
            bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
            // :method GET, :scheme http, :path / of HPACK's static table, an authority, and a literal field.
            let mut head = vec![0x82, 0x86, 0x84, 0x41, 1, b'a', 0, name.len() as u8];
            head.extend(name.as_bytes());
            head.push(value.len() as u8);
            head.extend(value.as_bytes());
            bytes.extend([0, 0, head.len() as u8, 1, 0x5, 0, 0, 0, 1]);
            bytes.extend(head);
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            // RST_STREAM with PROTOCOL_ERROR.
            let refused = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1];
            assert!(
                answer.windows(refused.len()).any(|bytes| bytes == refused),
                "{name}: {answer:?}"
            );
        }
    });
}

#[test]
fn a_head_that_stays_half_ends_the_connection() {
    run(async {
        let limits = ExchangeLimits {
            head: Duration::from_millis(50),
            ..ExchangeLimits::default()
        };
        let dial = server(limits, |_| async { panic!("nothing was asked") }).await;
        let mut stream = TcpStream::connect(("127.0.0.1", dial.port)).await.unwrap();
        let mut bytes = tokenlag_channel::http2::frames::PREFACE.to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 6, 1, 0x1, 0, 0, 0, 1, 0x82, 0x86]);
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        // GOAWAY with ENHANCE_YOUR_CALM comes last.
        let end = &answer[answer.len() - 17..];
        assert_eq!((end[3], end[16]), (7, 0xb), "{end:?}");
    });
}
