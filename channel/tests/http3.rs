//! The channels of the UDP port, both ends on loopback: `tokenlag/1` and HTTP/3.

mod udp;

use std::time::Duration;

use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{Channel, ChannelError, Dial, ExchangeError, ExchangeLimits};
use tokenlag_probes::{Clock, FailureKind, MonoClock, Transport};
use tokio::task::{spawn_local, yield_now};
use udp::{BOTH, ask, chunks, identity, request, run, server, server_with, text, tls};

#[test]
fn a_request_and_its_reply_pass_whole() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            let body = "b".repeat(300_000);
            let request = request(transport, "/v1/responses?pieces=2", &body);
            let mut reply = channel.open(&request).await.unwrap();
            assert_eq!(reply.status(), 200, "{transport}");
            let field = ("x-reply".to_owned(), "yes".into());
            assert!(reply.fields().contains(&field), "{transport}");
            let text = text(&chunks(&mut reply).await.unwrap());
            assert_eq!(text, body.repeat(2), "{transport}");

            let incoming = server.seen.requests.borrow_mut().pop().unwrap();
            assert_eq!(incoming.method(), "POST");
            assert_eq!(incoming.target(), "/v1/responses?pieces=2");
            assert_eq!(incoming.field("X-Name"), Some("value"));
            assert!(incoming.field("traceparent").is_some());
            assert_eq!(incoming.body, body);
            assert!(incoming.in_head <= incoming.in_body);
            channel.close().await;
        }
    });
}

#[test]
fn bytes_inside_are_those_of_the_streams_and_fewer_than_those_on_the_wire() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            ask(&channel, transport, "/", "x").await.unwrap();
            let before = channel.counters();
            let body = "b".repeat(10_000);
            let path = "/?pieces=3";
            ask(&channel, transport, path, &body).await.unwrap();
            let after = channel.counters();
            let sent = after.channel_bytes_sent - before.channel_bytes_sent;
            let received = after.channel_bytes_received - before.channel_bytes_received;
            // A head, and a few bytes around each piece.
            assert!((10_000..10_400).contains(&sent), "{transport}: {sent}");
            assert!(
                (30_000..30_200).contains(&received),
                "{transport}: {received}"
            );
            assert!(after.bytes_sent - before.bytes_sent > sent);
            assert!(after.bytes_received - before.bytes_received > received);
            assert_eq!(after.connections_opened, 1);
        }
    });
}

#[test]
fn more_exchanges_than_a_connection_has_streams_come_to_their_end() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            let exchanges: Vec<_> = (0..300)
                .map(|number| {
                    let channel = channel.clone();
                    spawn_local(async move {
                        let body = format!("number {number}");
                        let (text, _) = ask(&channel, transport, "/", &body).await.unwrap();
                        assert_eq!(text, body);
                    })
                })
                .collect();
            for exchange in exchanges {
                exchange.await.unwrap();
            }
            assert_eq!(channel.counters().connections_opened, 1, "{transport}");
        }
    });
}

#[test]
fn a_request_is_connected_once_it_has_a_stream_and_waits_for_one_with_a_limit() {
    run(async {
        let server = server();
        for transport in BOTH {
            let dial = Dial {
                idle_timeout: Duration::from_secs(1),
                ..server.dial.clone()
            };
            let channel = Channel::new(transport, dial);
            let request = request(transport, "/wait", "x");
            let mut running = Vec::new();
            // As many as a connection has streams.
            for _ in 0..256 {
                running.push(channel.open(&request).await.unwrap());
            }
            let late = channel.open(&request).await.unwrap_err();
            let what = "stream for the request";
            assert!(
                matches!(late, ChannelError::Timeout { what: waited_for, .. } if waited_for == what),
                "{transport}: {late}"
            );
            let (waiting, again) = (channel.clone(), request.clone());
            let next = spawn_local(async move { waiting.open(&again).await.unwrap() });
            yield_now().await;
            let freed = MonoClock.now();
            // The oldest replies end, and their streams with them. quinn allows further ones an eighth at a time.
            for reply in &mut running[..64] {
                server.seen.go_on.notify_one();
                while reply.next().await.unwrap().is_some() {}
            }
            let opening = next.await.unwrap().opening();
            assert!(opening.connected >= freed, "{transport}");
            assert!(opening.connected <= opening.written, "{transport}");
        }
    });
}

#[test]
fn a_reply_that_breaks_off_brings_what_there_was_and_looks_cut_off() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            let request = request(transport, "/cut?pieces=3", "some");
            let mut reply = channel.open(&request).await.unwrap();
            let mut text = String::new();
            let cut = loop {
                match reply.next().await {
                    Ok(Some(chunk)) => text += std::str::from_utf8(&chunk.bytes).unwrap(),
                    Ok(None) => panic!("{transport}: it looks whole"),
                    Err(cut) => break cut,
                }
            };
            assert_eq!(cut.kind(), FailureKind::ConnectionLost, "{transport}");
            assert_eq!(text, "somesomesome", "{transport}: what was sent arrives");
            let (text, _) = ask(&channel, transport, "/", "whole").await.unwrap();
            assert_eq!(text, "whole", "{transport}");
            assert_eq!(channel.counters().connections_opened, 1, "{transport}");
        }
    });
}

#[test]
fn a_client_that_gives_up_is_noticed() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            let request = request(transport, "/wait", "x");
            let mut reply = channel.open(&request).await.unwrap();
            assert!(reply.next().await.unwrap().is_some());
            drop(reply);
            server.seen.given_up.notified().await;
            let (text, _) = ask(&channel, transport, "/", "y").await.unwrap();
            assert_eq!(text, "y");
            assert_eq!(channel.counters().connections_opened, 1, "{transport}");
        }
    });
}

#[test]
fn an_upload_that_is_given_up_ends_its_own_exchange_only() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            ask(&channel, transport, "/", "x").await.unwrap();
            let before = channel.counters().bytes_sent;
            // More than fits into the windows.
            let request = request(transport, "/", &"b".repeat(20_000_000));
            let under_way = async {
                while channel.counters().bytes_sent < before + 500_000 {
                    yield_now().await;
                }
            };
            tokio::select! {
                reply = channel.open(&request) => panic!("{transport}: {reply:?}"),
                () = under_way => {}
            }
            server.seen.errors(1).await;
            let error = server.seen.errors.borrow_mut().pop();
            assert!(
                matches!(error, Some(ExchangeError::Gone(_))),
                "{transport}: {error:?}"
            );
            let (text, _) = ask(&channel, transport, "/", "y").await.unwrap();
            assert_eq!(text, "y", "{transport}");
            assert_eq!(channel.counters().connections_opened, 1, "{transport}");
        }
    });
}

#[test]
fn each_piece_has_the_stamp_of_the_read_that_brought_it() {
    run(async {
        let server = server();
        for transport in BOTH {
            let channel = server.channel(transport);
            let request = request(transport, "/?pieces=200", &"b".repeat(700));
            let mut reply = channel.open(&request).await.unwrap();
            let opening = reply.opening();
            assert!(!opening.overlapped);
            assert!(opening.resolved.unwrap() <= opening.connected);
            assert!(opening.connected <= opening.written);
            assert!(opening.written <= reply.head().unwrap());
            let chunks = chunks(&mut reply).await.unwrap();
            assert_eq!(text(&chunks).len(), 140_000);
            assert!(reply.head().unwrap() <= chunks[0].at);
            for pair in chunks.windows(2) {
                assert!(pair[0].at <= pair[1].at, "{transport}");
                assert!(pair[0].ordinal <= pair[1].ordinal, "{transport}");
                // What one read brought has one stamp, and the next read has another ordinal.
                assert_eq!(
                    pair[0].ordinal == pair[1].ordinal,
                    pair[0].at == pair[1].at,
                    "{transport}"
                );
            }
        }
    });
}

#[test]
fn a_server_that_leaves_ends_what_runs_and_the_next_exchange_goes_elsewhere() {
    run(async {
        for transport in BOTH {
            let server = server();
            let channel = server.channel(transport);
            let request = request(transport, "/wait", "x");
            let mut running = channel.open(&request).await.unwrap();
            assert!(running.next().await.unwrap().is_some());
            server.seen.leave.notify_one();
            let (text, _) = ask(&channel, transport, "/", "elsewhere").await.unwrap();
            assert_eq!(text, "elsewhere", "{transport}");
            assert_eq!(server.seen.connections.get(), 2, "{transport}");
            server.seen.go_on.notify_one();
            assert!(running.next().await.unwrap().is_none(), "{transport}");
        }
    });
}

#[test]
fn clients_prove_their_addresses_where_many_come_at_once() {
    run(async {
        let limits = DoorLimits {
            crowd: 0,
            ..DoorLimits::default()
        };
        let server = server_with(tls(false), limits);
        for transport in BOTH {
            let channel = server.channel(transport);
            ask(&channel, transport, "/", "x").await.unwrap();
            // Nobody was refused: the client came again with the proof.
            assert_eq!(server.seen.refusals.take(), [None], "{transport}");
            assert_eq!(channel.counters().connections_opened, 1);
        }
    });
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_from_other_failures() {
    run(async {
        // With early data the connection is there before the client has judged the certificate.
        for server in [server(), server_with(tls(true), DoorLimits::default())] {
            let stranger = ClientTls::trusting(identity().cert_pem.as_bytes()).unwrap();
            for transport in BOTH {
                let channel = server.channel_with(transport, &stranger);
                let error = channel.connect().await.unwrap_err();
                assert!(
                    matches!(error, ChannelError::Handshake { .. }),
                    "{transport}: {error}"
                );
                let verdict = server.seen.verdict().await;
                assert_eq!(verdict, Some("certificate"), "{transport}");
            }
        }
    });
}

#[test]
fn a_client_without_certificates_to_trust_is_told_so() {
    run(async {
        let server = server();
        for transport in BOTH {
            let mut dial = server.dial.clone();
            dial.tls = None;
            let channel = Channel::new(transport, dial);
            let error = channel.connect().await.unwrap_err();
            assert!(matches!(error, ChannelError::Tls(_)), "{transport}");
        }
    });
}

#[test]
fn a_connection_beyond_the_limit_is_refused() {
    run(async {
        let limits = DoorLimits {
            connections: 1,
            ..DoorLimits::default()
        };
        let server = server_with(tls(false), limits);
        let first = server.channel(Transport::Quic);
        ask(&first, Transport::Quic, "/", "x").await.unwrap();
        let second = server.channel(Transport::Http3);
        second.connect().await.unwrap_err();
        assert_eq!(server.seen.verdict().await, Some("full"));
        ask(&first, Transport::Quic, "/", "y").await.unwrap();
    });
}

#[test]
fn a_reply_that_comes_before_the_request_is_taken_is_read() {
    run(async {
        let limits = DoorLimits {
            exchange: ExchangeLimits {
                body: 100_000,
                ..ExchangeLimits::default()
            },
            ..DoorLimits::default()
        };
        let server = server_with(tls(false), limits);
        // A request that does not notice that it was stopped would notice it at its own limit.
        let dial = Dial {
            idle_timeout: Duration::from_secs(3600),
            ..server.dial.clone()
        };
        for transport in BOTH {
            let channel = Channel::new(transport, dial.clone());
            // More than fits into the windows: only a part is ever sent.
            let body = "b".repeat(30_000_000);
            let request = request(transport, "/", &body);
            let reply = channel.open(&request).await.unwrap();
            assert_eq!(reply.status(), 413, "{transport}");
            assert!(reply.opening().overlapped, "{transport}");
            drop(reply);
            let (text, _) = ask(&channel, transport, "/", "x").await.unwrap();
            assert_eq!(text, "x", "{transport}");
            assert_eq!(channel.counters().connections_opened, 1, "{transport}");
        }
    });
}

#[test]
fn an_exchange_that_meets_a_server_which_just_left_is_sent_again() {
    run(async {
        for transport in BOTH {
            let server = server();
            let channel = server.channel(transport);
            ask(&channel, transport, "/", "x").await.unwrap();
            // The farewell lies in the socket when the next exchange begins.
            server.seen.hang_up.notify_one();
            server.seen.left.notified().await;
            let (text, _) = ask(&channel, transport, "/", "again").await.unwrap();
            assert_eq!(text, "again", "{transport}");
            assert_eq!(channel.counters().connections_opened, 2, "{transport}");
        }
    });
}
