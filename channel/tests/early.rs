//! Sessions that are resumed, and requests that leave before the handshake is over, on both protocols of the UDP port.

mod udp;

use std::net::SocketAddr;

use tokenlag_channel::quic::{Door, DoorLimits, SAFE_TO_REPLAY};
use tokenlag_channel::tls::{ClientTls, ServerTls};
use tokenlag_channel::{Channel, Counters, Dial};
use tokenlag_probes::Transport;
use tokio::task::spawn_local;
use udp::raw::{self, Gate};
use udp::{BOTH, Server, ask, identity, run, server, server_behind, server_with, tls};

/// Two exchanges on a channel of its own; gives what the channel counted.
async fn visit(server: &Server, transport: Transport, tls: &ClientTls) -> Counters {
    let channel = server.channel_with(transport, tls);
    for body in ["first", "second"] {
        let (text, _) = ask(&channel, transport, "/", body).await.unwrap();
        assert_eq!(text, body, "{transport}");
    }
    let counters = channel.counters();
    channel.close().await;
    assert_eq!(counters.connections_opened, 1, "{transport}");
    counters
}

fn address(server: &Server) -> SocketAddr {
    SocketAddr::new("127.0.0.1".parse().unwrap(), server.dial.port)
}

#[test]
fn a_session_is_resumed_where_both_ends_want_it() {
    run(async {
        for transport in BOTH {
            let server = server();
            let remembers = server.trust().with_resumption();
            let first = visit(&server, transport, &remembers).await;
            let second = visit(&server, transport, &remembers).await;
            let resumed = |counters: Counters| counters.handshakes_resumed;
            assert_eq!((resumed(first), resumed(second)), (0, 1), "{transport}");
            assert_eq!(second.early_data_accepted, 0, "{transport}");
            let fresh = visit(&server, transport, &remembers.forgetful()).await;
            assert_eq!(resumed(fresh), 0, "{transport}");
            visit(&server, transport, &server.trust()).await;
            let forgets = visit(&server, transport, &server.trust()).await;
            assert_eq!(resumed(forgets), 0, "{transport}");

            let forgets = ServerTls {
                resumption: false,
                ..tls(true)
            };
            let server = server_with(forgets, DoorLimits::default());
            let remembers = server.trust().with_resumption().with_early_data();
            visit(&server, transport, &remembers).await;
            let second = visit(&server, transport, &remembers).await;
            assert_eq!(resumed(second), 0, "{transport}");
            assert_eq!(second.early_data_accepted, 0, "{transport}");
        }
    });
}

#[test]
fn a_session_is_resumed_at_any_socket_of_a_door() {
    run(async {
        let tls = tls(true);
        let door = Door::new(&tls, DoorLimits::default()).unwrap();
        let [one, other] = [(); 2].map(|()| server_behind(&door, &tls.identity));
        for transport in BOTH {
            let early = one.trust().with_resumption().with_early_data();
            visit(&one, transport, &early).await;
            let counters = visit(&other, transport, &early).await;
            assert_eq!(counters.handshakes_resumed, 1, "{transport}");
            assert_eq!(counters.early_data_accepted, 1, "{transport}");
        }
    });
}

#[test]
fn what_one_protocol_remembers_the_other_does_not_use_up() {
    run(async {
        let server = server();
        let remembers = server.trust().with_resumption();
        visit(&server, Transport::Quic, &remembers).await;
        let other = visit(&server, Transport::Http3, &remembers).await;
        assert_eq!(other.handshakes_resumed, 0);
        let same = visit(&server, Transport::Quic, &remembers).await;
        assert_eq!(same.handshakes_resumed, 1);
    });
}

#[test]
fn early_data_is_taken_where_both_ends_want_it() {
    run(async {
        for transport in BOTH {
            let server = server_with(tls(true), DoorLimits::default());
            let early = server.trust().with_resumption().with_early_data();
            let first = visit(&server, transport, &early).await;
            assert_eq!(first.early_data_accepted, 0, "{transport}");
            let second = visit(&server, transport, &early).await;
            assert_eq!(second.handshakes_resumed, 1, "{transport}");
            assert_eq!(second.early_data_accepted, 1, "{transport}");
            // The mark is for the server that it is sent to.
            let requests = server.seen.requests.take();
            assert_eq!(requests.len(), 4);
            for request in &requests {
                assert_eq!(request.field(SAFE_TO_REPLAY), None, "{transport}");
            }
            let waits = server.trust().with_resumption();
            visit(&server, transport, &waits).await;
            let second = visit(&server, transport, &waits).await;
            assert_eq!(second.handshakes_resumed, 1, "{transport}");
            assert_eq!(second.early_data_accepted, 0, "{transport}");
        }
    });
}

#[test]
fn a_reply_to_early_data_needs_no_more_of_the_client_than_its_first_flight() {
    run(async {
        for transport in BOTH {
            let server = server_with(tls(true), DoorLimits::default());
            let early = server.trust().with_resumption().with_early_data();
            visit(&server, transport, &early).await;
            let gate = Gate::before(address(&server)).await;
            let dial = Dial {
                port: gate.address.port(),
                tls: Some(early),
                ..server.dial.clone()
            };
            let channel = Channel::new(transport, dial);
            let (text, connected) = ask(&channel, transport, "/", "early").await.unwrap();
            assert_eq!(text, "early", "{transport}");
            let head = server.seen.requests.borrow().last().unwrap().in_head;
            assert!(
                connected <= head,
                "{transport}: the request went out at once"
            );
            gate.open();
            let (text, _) = ask(&channel, transport, "/", "later").await.unwrap();
            assert_eq!(text, "later", "{transport}");
            let counters = channel.counters();
            assert_eq!(counters.early_data_accepted, 1, "{transport}");
        }
    });
}

#[test]
fn early_data_that_is_not_marked_waits_until_the_client_is_known_to_be_there() {
    run(async {
        for transport in BOTH {
            let server = server_with(tls(true), DoorLimits::default());
            let certificate = server.certificate.clone();
            let alpn: &[u8] = match transport {
                Transport::Quic => b"tokenlag/1",
                _ => b"h3",
            };
            let render = |target, fields: &[_]| match transport {
                Transport::Quic => raw::frames(target, fields),
                _ => raw::headers(target, fields),
            };
            let client = raw::client(&certificate, alpn);
            let remembered = client.connect(address(&server), "127.0.0.1").unwrap();
            let remembered = remembered.await.unwrap();
            exchange(&remembered, render("/", &[])).await;

            let gate = Gate::before(address(&server)).await;
            let connecting = client.connect(gate.address, "127.0.0.1").unwrap();
            let (connection, _accepted) = connecting.into_0rtt().ok().unwrap();
            let risky = {
                let (connection, request) = (connection.clone(), render("/risky", &[]));
                spawn_local(async move { exchange(&connection, request).await })
            };
            let mark = [(SAFE_TO_REPLAY, "1")];
            exchange(&connection, render("/safe", &mark)).await;
            let served = |server: &Server| {
                let requests = server.seen.requests.borrow();
                let targets = requests.iter().map(|request| request.target().to_owned());
                targets.collect::<Vec<_>>()
            };
            assert_eq!(served(&server), ["/", "/safe"], "{transport}");
            assert!(!risky.is_finished(), "{transport}");
            gate.open();
            risky.await.unwrap();
            assert_eq!(served(&server), ["/", "/safe", "/risky"], "{transport}");
        }
    });
}

/// Sends a request and reads its reply to the end.
async fn exchange(connection: &quinn::Connection, request: Vec<u8>) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&request).await.unwrap();
    send.finish().unwrap();
    assert!(!recv.read_to_end(10_000).await.unwrap().is_empty());
}

#[test]
fn early_data_that_is_not_taken_is_sent_again() {
    run(async {
        for transport in BOTH {
            for takes in [true, false] {
                let identity = identity();
                let tls = |early_data| ServerTls {
                    identity: identity.clone(),
                    resumption: true,
                    early_data,
                };
                let before = server_with(tls(true), DoorLimits::default());
                let early = before.trust().with_resumption().with_early_data();
                visit(&before, transport, &early).await;
                // One that was started anew, and knows nothing of the session.
                let after = server_with(tls(takes), DoorLimits::default());
                let counters = visit(&after, transport, &early).await;
                assert_eq!(counters.early_data_accepted, 0, "{transport}");
                assert_eq!(counters.handshakes_resumed, 0, "{transport}");
                let requests = after.seen.requests.borrow();
                assert_eq!(requests.len(), 2, "{transport}: each was served once");
            }
        }
    });
}
