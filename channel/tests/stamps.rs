//! Who stamps what comes: a client that is kept from its reads sees by the kernel's stamps when it came, by its own when it read.

mod udp;

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use tokenlag_channel::{Channel, Dial, Reply, Stamping};
use tokenlag_probes::{Clock, MonoClock, Stamp, StampSource, Transport};
use tokio::sync::{mpsc as signals, oneshot};
use tokio::task::spawn_local;

/// How long the client is kept from reading what came.
const HELD_UP: Duration = Duration::from_millis(30);

/// What a server logs: just before its reply's last write, and when it lets the client go on.
#[derive(Clone, Copy)]
struct Log {
    last_write: Stamp,
    released: Stamp,
}

/// The server's side of the signals.
struct Signals {
    /// The request is there, and nothing of a reply was written.
    asked: oneshot::Sender<()>,
    /// The client's thread does nothing from here on.
    held: signals::UnboundedReceiver<()>,
    /// The client may go on.
    log: mpsc::Sender<Log>,
}

/// Asks over `channel` with the client's thread stopped from before the reply is written until the server says.
async fn ask(
    channel: &Channel,
    transport: Transport,
    asked: oneshot::Receiver<()>,
    held: signals::UnboundedSender<()>,
    log: mpsc::Receiver<Log>,
) -> (Reply, Log) {
    let holding = spawn_local(async move {
        asked.await.unwrap();
        held.send(()).unwrap();
        log.recv().unwrap()
    });
    let request = udp::request(transport, "/wait?pieces=0", "hello");
    let reply = channel.open(&request).await.unwrap();
    (reply, holding.await.unwrap())
}

/// What a client of `dial` with stamps from `source` takes for the arrival of the reply's head, beside the server's log.
fn head_at(
    transport: Transport,
    source: StampSource,
    serve: impl FnOnce(oneshot::Sender<Dial>, Signals) + Send + 'static,
) -> (Stamp, Log, Stamping) {
    let (dials, dialled) = oneshot::channel();
    let (asked, was_asked) = oneshot::channel();
    let (hold, held) = signals::unbounded_channel();
    let (logs, log) = mpsc::channel();
    let signals = Signals {
        asked,
        held,
        log: logs,
    };
    let server = std::thread::spawn(move || serve(dials, signals));
    let stamping = Stamping::new(source);
    let mut seen = None;
    udp::run(async {
        let dial = Dial {
            stamping: stamping.clone(),
            ..dialled.await.unwrap()
        };
        let channel = Channel::new(transport, dial);
        channel.connect().await.unwrap();
        let (reply, log) = ask(&channel, transport, was_asked, hold, log).await;
        seen = reply.head().zip(Some(log));
        reply.finish().await.unwrap();
        channel.close().await;
    });
    server.join().unwrap();
    let (head, log) = seen.unwrap();
    (head, log, stamping)
}

/// A server that writes its reply in three pieces, all of which one read will return.
fn serve_tcp(dials: oneshot::Sender<Dial>, mut signals: Signals) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        tls: None,
        stamping: Stamping::default(),
        nagle: false,
    };
    dials.send(dial).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"hello") {
        let mut room = [0; 1024];
        let count = stream.read(&mut room).unwrap();
        request.extend_from_slice(&room[..count]);
    }
    signals.asked.send(()).unwrap();
    signals.held.blocking_recv().unwrap();
    let mut last_write = Stamp::default();
    for piece in ["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", "tok", "ens"] {
        // Apart by more than the stamps' own error.
        std::thread::sleep(Duration::from_millis(2));
        last_write = MonoClock.now();
        stream.write_all(piece.as_bytes()).unwrap();
    }
    std::thread::sleep(HELD_UP);
    let released = MonoClock.now();
    signals
        .log
        .send(Log {
            last_write,
            released,
        })
        .unwrap();
    // The client closes first.
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

fn serve_udp(dials: oneshot::Sender<Dial>, mut signals: Signals) {
    udp::run(async move {
        let server = udp::server();
        dials.send(server.dial.clone()).unwrap();
        server.seen.requests(1).await;
        signals.asked.send(()).unwrap();
        signals.held.recv().await.unwrap();
        let last_write = MonoClock.now();
        server.seen.go_on.notify_one();
        tokio::time::sleep(HELD_UP).await;
        let released = MonoClock.now();
        signals
            .log
            .send(Log {
                last_write,
                released,
            })
            .unwrap();
        server.seen.verdict().await;
    });
}

fn check(transport: Transport, serve: fn(oneshot::Sender<Dial>, Signals)) {
    let (at, log, stamping) = head_at(transport, StampSource::User, serve);
    assert!(at >= log.released, "{transport}: it could not read before");
    assert_eq!(
        stamping.take(),
        Default::default(),
        "nothing is known of receipts"
    );

    let (at, log, stamping) = head_at(transport, StampSource::Kernel, serve);
    let taken = stamping.take();
    if taken.stamped() == 0 {
        // A system whose kernel gives no stamps: the reads' own stand in, and each is counted.
        assert!(at >= log.released && taken.unstamped > 0, "{transport}");
        return;
    }
    // What lay there for so long is told.
    let held_up = log.released.since(log.last_write);
    let longest = taken.spans.last().unwrap().0;
    assert!(
        longest as f64 > held_up as f64 * 0.9,
        "{transport}: {taken:?}"
    );
    assert!(at >= log.last_write, "{transport}");
    // Over QUIC a later datagram may have come before the stream was read: an upper bound.
    assert!(at < log.released || transport != Transport::Http);
}

#[test]
fn a_read_of_tcp_has_the_kernels_stamp_of_its_last_segment() {
    check(Transport::Http, serve_tcp);
}

#[test]
fn a_datagram_has_the_kernels_stamp_over_both_channels_on_quic() {
    check(Transport::Quic, serve_udp);
    check(Transport::Http3, serve_udp);
}
