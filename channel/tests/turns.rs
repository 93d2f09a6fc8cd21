//! Clients over UDP that begin together take turns to make their handshakes.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tokenlag_channel::tls::{ClientTls, self_signed};
use tokenlag_channel::{Channel, Dial, Stamping};
use tokenlag_probes::Transport;
use tokio::task::{AbortHandle, LocalSet, spawn_local, yield_now};

const CLIENTS: usize = 100;
/// Handshakes that may be under way at a time.
const TURNS: usize = 64;

/// The clients that `socket` was sent something by.
fn seen(socket: &UdpSocket, clients: &mut HashSet<SocketAddr>) {
    while let Ok((_, client)) = socket.recv_from(&mut [0; 2_048]) {
        clients.insert(client);
    }
}

async fn check(transport: Transport) {
    // It never answers, so nobody's turn is over by itself.
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let identity = self_signed(&["127.0.0.1"]).unwrap();
    let dial = Dial {
        host: address.ip().to_string(),
        port: address.port(),
        path: "/".to_owned(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        tls: Some(ClientTls::trusting(identity.cert_pem.as_bytes()).unwrap()),
        stamping: Stamping::default(),
    };
    let begin = |_| {
        let channel = Channel::new(transport, dial.clone());
        let task = spawn_local(async move { drop(channel.connect().await) });
        task.abort_handle()
    };
    let mut waiting: Vec<AbortHandle> = (0..CLIENTS).map(begin).collect();
    let mut clients = HashSet::new();
    while clients.len() < TURNS {
        yield_now().await;
        seen(&server, &mut clients);
    }
    for _ in 0..1_000 {
        yield_now().await;
        seen(&server, &mut clients);
    }
    assert_eq!(clients.len(), TURNS, "{transport}");
    // Who gives up leaves its turn to the next.
    for gone in 1..=10 {
        waiting.remove(0).abort();
        while clients.len() < TURNS + gone {
            yield_now().await;
            seen(&server, &mut clients);
        }
    }
    assert_eq!(clients.len(), TURNS + 10, "{transport}");
}

#[test]
fn so_many_handshakes_are_under_way_at_a_time() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        for transport in [Transport::Quic, Transport::Http3] {
            check(transport).await;
        }
    });
}
