//! Clients over UDP that begin together take turns to make their handshakes.

mod udp;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::time::Duration;

use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{ClientTls, self_signed};
use tokenlag_channel::{Channel, Dial, Stamping};
use tokenlag_probes::Transport;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use udp::{BOTH, ask, run, server_with, tls};

const CLIENTS: usize = 100;
/// Handshakes that may be under way at a time.
const TURNS: usize = 64;

/// The clients that `socket` was sent something by.
fn seen(socket: &UdpSocket, clients: &mut HashSet<SocketAddr>) {
    while let Ok((_, client)) = socket.recv_from(&mut [0; 2_048]) {
        clients.insert(client);
    }
}

/// A server that never answers, so that nobody's turn is over by itself, and how to dial it.
fn mute(tls: ClientTls) -> (UdpSocket, Dial) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let dial = Dial {
        host: address.ip().to_string(),
        port: address.port(),
        path: "/".to_owned(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        tls: Some(tls),
        stamping: Stamping::default(),
        nagle: false,
    };
    (server, dial)
}

fn begin(transport: Transport, dial: &Dial) -> AbortHandle {
    let channel = Channel::new(transport, dial.clone());
    let task = spawn_local(async move { drop(channel.connect().await) });
    task.abort_handle()
}

/// Waits for so many clients, and that no more of them come.
async fn are_no_more_than(count: usize, socket: &UdpSocket, clients: &mut HashSet<SocketAddr>) {
    while clients.len() < count {
        yield_now().await;
        seen(socket, clients);
    }
    for _ in 0..1_000 {
        yield_now().await;
        seen(socket, clients);
    }
    assert_eq!(clients.len(), count);
}

async fn check(transport: Transport) {
    let identity = self_signed(&["127.0.0.1"]).unwrap();
    let tls = ClientTls::trusting(identity.cert_pem.as_bytes()).unwrap();
    let (server, dial) = mute(tls);
    let mut waiting = Vec::from_iter((0..CLIENTS).map(|_| begin(transport, &dial)));
    let mut clients = HashSet::new();
    are_no_more_than(TURNS, &server, &mut clients).await;
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
    run(async {
        for transport in BOTH {
            check(transport).await;
        }
    });
}

#[test]
fn one_with_early_data_has_its_turn_until_it_is_over() {
    run(async {
        for transport in BOTH {
            let server = server_with(tls(true), DoorLimits::default());
            let early = server.trust().with_resumption().with_early_data();
            let first = server.channel_with(transport, &early);
            ask(&first, transport, "/", "first").await.unwrap();
            // The session is good for the same name at any port.
            let (mute, dial) = mute(early);
            let channel = Channel::new(transport, dial.clone());
            channel.connect().await.unwrap();
            let _waiting = Vec::from_iter((0..CLIENTS).map(|_| begin(transport, &dial)));
            are_no_more_than(TURNS, &mute, &mut HashSet::new()).await;
        }
    });
}

#[test]
fn a_channel_waits_for_its_turn_before_it_dials_where_it_has_to() {
    run(async {
        for transport in BOTH {
            let server = server_with(tls(false), DoorLimits::default());
            let trust = server.trust();
            let there = server.channel_with(transport, &trust);
            there.connect().await.unwrap();
            let (mute, dial) = mute(trust.clone());
            let mut waiting = Vec::from_iter((0..TURNS).map(|_| begin(transport, &dial)));
            are_no_more_than(TURNS, &mute, &mut HashSet::new()).await;
            // One that has its connection needs no turn.
            drop(there.turn().await.unwrap());
            let anew = server.channel_with(transport, &trust);
            {
                let mut turn = pin!(anew.turn());
                for _ in 0..100 {
                    tokio::select! {
                        biased;
                        _ = &mut turn => panic!("{transport}: nobody is done"),
                        () = yield_now() => {}
                    }
                }
                waiting.pop().unwrap().abort();
                let _turn = turn.await.unwrap();
                // It is this channel's, which dials with it.
                anew.connect().await.unwrap();
            }
            assert_eq!(anew.counters().connections_opened, 1, "{transport}");
        }
    });
}
