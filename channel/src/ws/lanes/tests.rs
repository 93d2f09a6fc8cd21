//! Sessions that share a WebSocket, against a server that says what the test tells it to.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokenlag_probes::{Encoding, FailureKind, TraceId, Transport};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;
use crate::accept::{Accepted, Acceptor};
use crate::quic::DoorLimits;
use crate::tls::{ClientTls, ServerTls, self_signed};
use crate::ws::{Farewell, Received, Text, Upgrade, WebSocket};
use crate::{Ask, Channel, ChannelError, Dial, Reply, Request};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server's door.
struct Door {
    listener: TcpListener,
    acceptor: Acceptor,
    certificate: String,
}

impl Door {
    async fn open() -> Self {
        let identity = self_signed(&["127.0.0.1"]).unwrap();
        let certificate = identity.cert_pem.clone();
        let tls = ServerTls {
            identity,
            resumption: false,
            early_data: false,
        };
        Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            acceptor: Acceptor::new(&tls, DoorLimits::default()).unwrap(),
            certificate,
        }
    }

    async fn next(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let Ok(Accepted::Http1(mut connection)) = self.acceptor.accept(stream).await else {
            panic!("no HTTP/1.1");
        };
        let incoming = connection.next_request().await.unwrap().unwrap();
        let upgrade = Upgrade::of(&incoming.head).unwrap();
        Peer(upgrade.grant(connection, [], PATIENCE).await.unwrap())
    }

    fn channel(&self, tls: bool) -> Channel {
        let trust = || ClientTls::trusting(self.certificate.as_bytes()).unwrap();
        let dial = Dial {
            host: "127.0.0.1".to_owned(),
            port: self.listener.local_addr().unwrap().port(),
            path: "/v1/responses".to_owned(),
            headers: Vec::new(),
            connect_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            tls: tls.then(trust),
            stamping: crate::Stamping::default(),
            nagle: false,
        };
        Channel::shared(Transport::Ws, dial)
    }
}

/// The server's end of a connection.
struct Peer(WebSocket);

impl Peer {
    /// The next create: its lane and what it asks.
    async fn asked(&self) -> (String, String) {
        let Ok(Received::Text { text, .. }) = self.0.receive().await else {
            panic!("no create");
        };
        let create: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(create["type"], "response.create");
        let text_of = |name: &str| create[name].as_str().unwrap().to_owned();
        (text_of("stream_id"), text_of("input"))
    }

    async fn say(&self, events: impl IntoIterator<Item = Value>) {
        let texts = events.into_iter().map(|event| event.to_string().into());
        self.0.send(texts).await.unwrap();
    }
}

fn delta(lane: &str, text: &str) -> Value {
    json!({"type": "response.output_text.delta", "delta": text, "stream_id": lane})
}

fn completed(lane: &str) -> Value {
    json!({"stream_id": lane, "type": "response.completed", "response": {"id": lane}})
}

fn request(input: &str) -> Request {
    let body = json!({"input": input}).to_string();
    let ask = Ask {
        path: "/v1/responses",
        authority: "127.0.0.1",
        headers: &[],
        body: body.as_bytes(),
        trace: TraceId::from_bits(1),
        encoding: Encoding::Events,
    };
    Request::render(Transport::Ws, &ask).unwrap()
}

async fn open(session: &Channel, input: &str) -> Reply {
    let mut request = request(input);
    session.address(&mut request).unwrap();
    session.open(&request).await.unwrap()
}

/// The next event, and the ordinal of its read.
async fn next(reply: &mut Reply) -> (Value, u32) {
    let chunk = reply.next().await.unwrap().unwrap();
    assert!(reply.opening().written <= chunk.at);
    assert!(reply.head().is_some_and(|head| head <= chunk.at));
    (serde_json::from_slice(&chunk.bytes).unwrap(), chunk.ordinal)
}

/// Why nothing more of a reply comes.
async fn trouble(reply: &mut Reply) -> ChannelError {
    loop {
        if let Err(error) = reply.next().await {
            return error;
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Lets `serve` and `ask` have their turns.
fn both(serve: impl AsyncFnOnce(Door), ask: impl AsyncFnOnce(Channel)) {
    run(async {
        let door = Door::open().await;
        let channel = door.channel(false);
        tokio::join!(serve(door), ask(channel));
    });
}

#[test]
fn sessions_have_lanes_of_one_connection_and_each_gets_its_own_events() {
    for tls in [false, true] {
        run(async {
            let door = Door::open().await;
            let channel = door.channel(tls);
            let serving = async {
                let peer = door.next().await;
                let (one, asked) = peer.asked().await;
                assert_eq!(asked, "one");
                let (two, asked) = peer.asked().await;
                assert_eq!(asked, "two");
                assert_ne!(one, two);
                // In one write, and so for each lane in one read.
                peer.say([delta(&one, "a"), delta(&two, "b"), delta(&one, "c")])
                    .await;
                // The next is in another.
                let (again, asked) = peer.asked().await;
                assert_eq!(
                    (&again, &*asked),
                    (&two, "three"),
                    "a session keeps its lane"
                );
                peer.say([delta(&again, "d"), completed(&again), completed(&one)])
                    .await;
                peer
            };
            let asking = async {
                let (one, two) = (channel.for_session(), channel.for_session());
                let mut first = open(&one, "one").await;
                let mut second = open(&two, "two").await;
                assert!(first.opening().transport_connected.is_some());
                assert!(second.opening().transport_connected.is_none());
                let (event, ordinal) = next(&mut second).await;
                assert_eq!((&event["delta"], ordinal), (&json!("b"), 0));
                second.finish().await.unwrap();
                let mut third = open(&two, "three").await;
                assert_eq!(next(&mut third).await.0["delta"], "d");
                assert_eq!(next(&mut third).await.0["type"], "response.completed");
                third.finish().await.unwrap();
                for (text, read) in [("a", 0), ("c", 0)] {
                    let (event, ordinal) = next(&mut first).await;
                    assert_eq!((&event["delta"], ordinal), (&json!(text), read));
                }
                let (event, ordinal) = next(&mut first).await;
                assert_eq!((&event["type"], ordinal), (&json!("response.completed"), 1));
                first.finish().await.unwrap();
                let counters = channel.counters();
                assert_eq!(counters.connections_opened, 1);
                assert_eq!(counters.bytes_sent > counters.channel_bytes_sent, tls);
                assert_eq!(one.counters(), counters);
                channel.close().await;
            };
            let (peer, ()) = tokio::join!(serving, asking);
            assert!(matches!(peer.0.receive().await, Ok(Received::Closed(_))));
        });
    }
}

#[test]
fn a_reply_that_is_given_up_leaves_its_lane_to_the_server_and_the_others_go_on() {
    both(
        async |door| {
            let peer = door.next().await;
            let (kept, _) = peer.asked().await;
            let (given_up, _) = peer.asked().await;
            peer.say([delta(&given_up, "x")]).await;
            // Whoever asks then, asks in another lane, whether it is the same session or not.
            let (third, _) = peer.asked().await;
            assert!(third != kept && third != given_up);
            peer.say([
                delta(&given_up, "late"),
                delta(&kept, "y"),
                completed(&given_up),
                completed(&third),
            ])
            .await;
            // The lane is free again by now.
            let (fourth, _) = peer.asked().await;
            assert_eq!(fourth, given_up);
            peer.say([delta(&fourth, "new"), completed(&kept)]).await;
        },
        async |channel| {
            let (keeps, gives_up) = (channel.for_session(), channel.for_session());
            let mut kept = open(&keeps, "a").await;
            let mut given_up = open(&gives_up, "b").await;
            next(&mut given_up).await;
            drop(given_up);
            let mut third = open(&gives_up, "c").await;
            assert_eq!(next(&mut third).await.0["type"], "response.completed");
            third.finish().await.unwrap();
            assert_eq!(next(&mut kept).await.0["delta"], "y");
            let fourth = channel.for_session();
            let mut fourth = open(&fourth, "d").await;
            assert_eq!(next(&mut fourth).await.0["delta"], "new");
            assert_eq!(next(&mut kept).await.0["type"], "response.completed");
            assert_eq!(channel.counters().connections_opened, 1);
        },
    );
}

#[test]
fn a_connection_that_dies_fails_each_lane_with_one_error_after_what_had_come() {
    for close in [true, false] {
        both(
            async move |door| {
                let peer = door.next().await;
                let (one, _) = peer.asked().await;
                let (two, _) = peer.asked().await;
                peer.say([delta(&one, "a"), delta(&two, "b")]).await;
                if close {
                    let farewell = Farewell::new(Farewell::GOING_AWAY, "that is all");
                    peer.0.close(Some(&farewell)).await;
                } else {
                    drop(peer);
                }
                // The sessions go on with another.
                let peer = door.next().await;
                let (lane, _) = peer.asked().await;
                assert_eq!(lane, one);
                peer.say([completed(&lane)]).await;
            },
            async move |channel| {
                let sessions = [channel.for_session(), channel.for_session()];
                let mut replies = [open(&sessions[0], "1").await, open(&sessions[1], "2").await];
                for (reply, text) in replies.iter_mut().zip(["a", "b"]) {
                    assert_eq!(next(reply).await.0["delta"], text);
                    let error = trouble(reply).await;
                    assert_eq!(error.kind(), FailureKind::ConnectionLost);
                    let says = match close {
                        true => "close frame 1001: that is all",
                        false => "end of stream",
                    };
                    assert!(error.to_string().contains(says), "{error}");
                }
                drop(replies);
                let mut reply = open(&sessions[0], "3").await;
                assert_eq!(next(&mut reply).await.0["type"], "response.completed");
                assert_eq!(channel.counters().connections_opened, 2);
            },
        );
    }
}

/// What a server says breaks the protocol: all who wait are told `why`, and so is the server.
fn check_broken(said: impl AsRef<str>, why: &'static str) {
    let said: Text = said.as_ref().into();
    both(
        async move |door| {
            let peer = door.next().await;
            peer.asked().await;
            peer.asked().await;
            peer.0.send([said]).await.unwrap();
            let Ok(Received::Closed(Some(farewell))) = peer.0.receive().await else {
                panic!("no farewell");
            };
            assert_eq!(farewell.code, Farewell::PROTOCOL);
        },
        async move |channel| {
            let sessions = [channel.for_session(), channel.for_session()];
            for reply in &mut [open(&sessions[0], "1").await, open(&sessions[1], "2").await] {
                let error = trouble(reply).await;
                assert_eq!(error.kind(), FailureKind::Protocol);
                assert!(error.to_string().contains(why), "{error}");
            }
        },
    );
}

#[test]
fn an_event_that_concerns_nobody_is_an_error() {
    check_broken(delta("lane-9", "x").to_string(), "for the lane \"lane-9\"");
    check_broken(
        delta("lane-00", "x").to_string(),
        "for the lane \"lane-00\"",
    );
    check_broken(delta("main", "x").to_string(), "nothing was asked");
    check_broken("nonsense", "not a JSON object");
    let of_no_lane = json!({"type": "response.created"}).to_string();
    check_broken(of_no_lane, "do without --multiplex");
}

#[test]
fn what_names_no_lane_is_told_to_all_and_an_error_ends_the_connection() {
    both(
        async |door| {
            let peer = door.next().await;
            peer.asked().await;
            peer.asked().await;
            let limits = json!({"type": "codex.rate_limits"});
            let error = json!({"type": "error", "status": 400, "error": {"code": "aged"}});
            peer.say([limits, error]).await;
            let other = door.next().await;
            let (lane, _) = other.asked().await;
            other.say([completed(&lane)]).await;
        },
        async |channel| {
            let sessions = [channel.for_session(), channel.for_session()];
            let mut replies = [open(&sessions[0], "1").await, open(&sessions[1], "2").await];
            for reply in &mut replies {
                assert_eq!(next(reply).await.0["type"], "codex.rate_limits");
                assert_eq!(next(reply).await.0["error"]["code"], "aged");
            }
            for reply in replies {
                reply.finish().await.unwrap();
            }
            let mut reply = open(&sessions[1], "3").await;
            assert_eq!(next(&mut reply).await.0["type"], "response.completed");
        },
    );
}

#[test]
fn a_connection_that_one_lane_is_told_to_leave_is_left_by_all() {
    both(
        async |door| {
            let peer = door.next().await;
            let (busy, _) = peer.asked().await;
            let (refused, _) = peer.asked().await;
            let code = json!({"code": "websocket_connection_limit_reached"});
            peer.say([
                json!({"type": "error", "stream_id": refused, "status": 400, "error": code}),
            ])
            .await;
            let other = door.next().await;
            let (lane, asked) = other.asked().await;
            assert_eq!((lane, &*asked), (refused.clone(), "3"));
            other.say([completed(&refused)]).await;
            // What was under way there ends there.
            peer.say([delta(&busy, "late"), completed(&busy)]).await;
        },
        async |channel| {
            let sessions = [channel.for_session(), channel.for_session()];
            let mut busy = open(&sessions[0], "1").await;
            let mut refused = open(&sessions[1], "2").await;
            assert_eq!(next(&mut refused).await.0["type"], "error");
            refused.finish().await.unwrap();
            let mut again = open(&sessions[1], "3").await;
            assert_eq!(next(&mut again).await.0["type"], "response.completed");
            assert_eq!(next(&mut busy).await.0["delta"], "late");
            assert_eq!(channel.counters().connections_opened, 2);
        },
    );
}

#[test]
fn sessions_after_a_full_connection_was_lost_share_the_next() {
    both(
        async |door| {
            for _ in 0..2 {
                let peer = door.next().await;
                for _ in 0..SIDE_BY_SIDE {
                    peer.asked().await;
                }
            }
        },
        async |channel| {
            for round in 1..=2 {
                let sessions: Vec<_> = (0..SIDE_BY_SIDE).map(|_| channel.for_session()).collect();
                let mut replies = Vec::new();
                for session in &sessions {
                    replies.push(open(session, "x").await);
                }
                for reply in &mut replies {
                    assert_eq!(trouble(reply).await.kind(), FailureKind::ConnectionLost);
                }
                assert_eq!(channel.counters().connections_opened, round);
            }
            let Channel::WsLanes(client) = &channel else {
                panic!("no lanes");
            };
            assert_eq!(client.groups(), 1);
        },
    );
}

#[test]
fn a_lane_that_nobody_reads_is_cut_off_and_the_others_are_not() {
    const EVENTS: usize = 2 * UNREAD / 100_000;
    both(
        async |door| {
            let peer = door.next().await;
            let (slow, _) = peer.asked().await;
            let (quick, _) = peer.asked().await;
            let long = "x".repeat(100_000);
            for _ in 0..EVENTS {
                peer.say([delta(&slow, &long)]).await;
            }
            peer.say([delta(&quick, "read"), completed(&quick)]).await;
            // The lane is used no more until the response has ended.
            let (third, _) = peer.asked().await;
            assert_ne!(third, slow);
            peer.say([completed(&slow), completed(&third)]).await;
            let (fourth, _) = peer.asked().await;
            assert_eq!(fourth, slow);
            peer.say([completed(&fourth)]).await;
        },
        async |channel| {
            let (slow, quick) = (channel.for_session(), channel.for_session());
            let mut unread = open(&slow, "1").await;
            let mut read = open(&quick, "2").await;
            assert_eq!(next(&mut read).await.0["delta"], "read");
            let error = trouble(&mut unread).await;
            assert!(
                matches!(error, ChannelError::Unread { most: UNREAD, .. }),
                "{error}"
            );
            drop(unread);
            let mut third = open(&slow, "3").await;
            assert_eq!(next(&mut third).await.0["type"], "response.completed");
            let fourth = channel.for_session();
            let mut fourth = open(&fourth, "4").await;
            assert_eq!(next(&mut fourth).await.0["type"], "response.completed");
        },
    );
}

#[test]
fn the_seventeenth_session_has_another_connection() {
    both(
        async |door| {
            let (first, second) = (door.next().await, door.next().await);
            let mut lanes = Vec::new();
            for _ in 0..SIDE_BY_SIDE {
                lanes.push(first.asked().await.0);
            }
            let (other, _) = second.asked().await;
            assert_eq!(other, lanes[0]);
            lanes.sort();
            lanes.dedup();
            assert_eq!(lanes.len(), SIDE_BY_SIDE as usize);
            second.say([completed(&other)]).await;
            for lane in &lanes {
                first.say([completed(lane)]).await;
            }
        },
        async |channel| {
            let sessions: Vec<_> = (0..=SIDE_BY_SIDE).map(|_| channel.for_session()).collect();
            let mut replies = Vec::new();
            for session in &sessions {
                replies.push(open(session, "x").await);
            }
            for reply in &mut replies {
                assert_eq!(next(reply).await.0["type"], "response.completed");
            }
            assert_eq!(channel.counters().connections_opened, 2);
        },
    );
}

#[test]
fn exchanges_of_one_session_take_turns() {
    both(
        async |door| {
            let peer = door.next().await;
            for expected in ["1", "2"] {
                let (lane, asked) = peer.asked().await;
                assert_eq!((&*lane, &*asked), ("lane-0", expected));
                peer.say([completed(&lane)]).await;
            }
        },
        async |channel| {
            let mut first = open(&channel, "1").await;
            let second = async {
                let mut second = open(&channel, "2").await;
                next(&mut second).await
            };
            let ending = async {
                let (event, _) = next(&mut first).await;
                first.finish().await.unwrap();
                event
            };
            let (second, first) = tokio::join!(second, ending);
            assert_eq!((second.0, second.1), (first, 0));
        },
    );
}

#[test]
fn a_request_that_was_given_up_half_sent_is_sent_to_its_end() {
    run(async {
        let door = Door::open().await;
        let channel = door.channel(false);
        let (keeps, gives_up) = (channel.for_session(), channel.for_session());
        let (peer, mut kept) = tokio::join!(door.next(), open(&keeps, "kept"));
        let (kept_lane, _) = peer.asked().await;
        // More than all buffers hold: it stays half sent for as long as nobody reads it.
        let long = "x".repeat(32 << 20);
        let request = request(&long);
        let mut opening = Box::pin(gives_up.open(&request));
        let before = channel.counters().bytes_sent;
        while channel.counters().bytes_sent == before {
            tokio::select! {
                biased;
                _ = &mut opening => panic!("all of it left"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(opening);
        let (lane, asked) = peer.asked().await;
        assert_eq!(asked.len(), long.len());
        assert_ne!(lane, kept_lane);
        peer.say([
            delta(&lane, "for nobody"),
            completed(&lane),
            completed(&kept_lane),
        ])
        .await;
        assert_eq!(next(&mut kept).await.0["type"], "response.completed");
    });
}

#[test]
fn without_lanes_a_request_names_none() {
    let plain = request("hello");
    let mut addressed = plain.clone();
    addressed.put_into_lane("lane-3").unwrap();
    addressed.put_into_lane("lane-4").unwrap();
    assert!(!plain.message().unwrap().contains("stream_id"));
    assert!(addressed.message().is_err());
    let text = addressed.in_lane("lane-4").unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&read["stream_id"], &read["input"]),
        (&json!("lane-4"), &json!("hello"))
    );
    assert_eq!(addressed.len(), text.len());
}

#[test]
fn names_are_known_as_they_are_written() {
    for lane in 0..NAMES as u8 {
        assert_eq!(lane_of(&name(lane)), Some(lane.into()));
    }
    for other in [
        "lane-32", "lane-+1", "lane-01", "lane--1", "lane-", "lane", "", "Lane-1",
    ] {
        assert_eq!(lane_of(other), None, "{other}");
    }
}
