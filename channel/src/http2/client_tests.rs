//! What a client books of its connection below the bytes, beside what the kernel says of the same socket.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokenlag_probes::{Encoding, SocketCounts, TraceId, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::accept::{Accepted, Acceptor};
use crate::quic::DoorLimits;
use crate::segments::Segments;
use crate::socket::{Socket, Stamped};
use crate::tls::{ServerTls, self_signed};
use crate::{Ask, Stamping};

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each request with so many pieces of its body, each in a write of its own.
async fn serve(listener: TcpListener, pieces: usize) {
    let tls = ServerTls {
        identity: self_signed(&["localhost"]).unwrap(),
        resumption: false,
        early_data: false,
    };
    let acceptor = Acceptor::new(&tls, DoorLimits::default()).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let Ok(Accepted::Http2(connection)) = acceptor.accept(stream).await else {
        panic!("no HTTP/2");
    };
    while let Some(exchange) = connection.next_exchange().await {
        spawn_local(async move {
            let (incoming, mut writer) = exchange.request().await.unwrap();
            writer.head(200, &[]);
            for _ in 0..pieces {
                writer.data(incoming.body.clone());
                writer.flush().await.unwrap();
            }
            writer.finish().await.unwrap();
        });
    }
}

/// A client whose one connection has a socket that is seen here, too.
async fn client(port: u16) -> (Client, std::net::TcpStream) {
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port,
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        tls: None,
        stamping: Stamping::default(),
        nagle: false,
    };
    let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    let seen = stream.try_clone().unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let socket = Socket::clear(Stamped::watched(stream, dial.stamping.watch()));
    let client = Client::new(dial);
    let make = async || Ok((Live::over(socket, &client.0.past).await.unwrap(), ()));
    client.0.live.get(|_| true, make).await.unwrap();
    (client, seen)
}

async fn ask(client: &Client) {
    let ask = Ask {
        path: "/v1/responses",
        authority: "test",
        headers: &[],
        body: b"a token",
        trace: TraceId::from_bits(1),
        encoding: Encoding::Events,
    };
    let request = Request::render(Transport::Http2, &ask).unwrap();
    client.open(&request).await.unwrap().finish().await.unwrap();
}

fn segments(counts: &SocketCounts) -> (u64, u64) {
    (counts.packets_sent, counts.packets_received)
}

#[tokio::test]
async fn right_after_an_exchange_who_asks_is_told_what_the_kernel_says() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let test = async {
        spawn_local(serve(listener, 30));
        let (client, seen) = client(port).await;
        let kernel = || {
            let found = Segments::of(&seen).unwrap();
            (u64::from(found.sent), u64::from(found.received))
        };
        let mut last = 0;
        for _ in 0..5 {
            ask(&client).await;
            let before = kernel();
            let counters = client.counters();
            let booked = client.0.dial.stamping.watch().so_far();
            let after = kernel();
            let (sent, received) = segments(&booked);
            // An acknowledgement may leave or come meanwhile.
            assert!(
                (before.0..=after.0).contains(&sent),
                "{before:?} {booked:?}"
            );
            assert!(
                (before.1..=after.1).contains(&received),
                "{before:?} {booked:?}"
            );
            assert_eq!(
                (booked.reads, booked.writes),
                (counters.reads, counters.writes)
            );
            assert!(counters.reads > last, "{counters:?}");
            last = counters.reads;
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn who_only_counts_does_not_look() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let test = async {
        spawn_local(serve(listener, 1));
        let (client, _seen) = client(port).await;
        ask(&client).await;
        client.counters();
        let watch = client.0.dial.stamping.watch().clone();
        let booked = watch.so_far();
        // Nor does any write before then.
        assert!(watch.is_due(MonoClock.now() + Duration::from_secs(3_600)));
        ask(&client).await;
        let counters = client.counted();
        assert_eq!(watch.so_far(), booked);
        assert!(counters.reads > booked.reads && counters.writes > booked.writes);
        client.counters();
        assert_eq!(watch.so_far().writes, client.counted().writes);
    };
    LocalSet::new().run_until(test).await;
}
