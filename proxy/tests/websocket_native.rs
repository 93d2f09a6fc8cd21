//! An upstream that speaks WebSocket itself: here another proxy, in front of the scripted backend.

mod socket;
mod stack;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use socket::{
    Raw, connect, connect_with, create, event, event_of_type, frame, id, is_last, last_event, next,
    refused, say, turn,
};
use stack::{Stack, get, run, trace};
use tokenlag_probes::{FailureKind, Outcome};
use tokenlag_proxy::{UpstreamApi, WsLimits};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Message};

const SLOW: &str = "ttft=0,gap=0,stall=2:400ms";

/// A proxy in front of another address.
fn in_front_of(address: std::net::SocketAddr, adjust: impl FnOnce(&mut WsLimits)) -> Stack {
    let unused = ScriptedBackend::start(Script::default()).unwrap();
    let upstream = format!("http://{address}").parse().unwrap();
    Stack::in_front_of(unused, upstream, |mut options| {
        options.upstream_api = UpstreamApi::WebSocket;
        adjust(&mut options.websocket);
        options
    })
}

/// A proxy in front of a proxy in front of the backend: the near one first.
fn pair(script: &str) -> (Stack, Stack) {
    let far = socket::start(script);
    let near = in_front_of(far.addresses.listen, |_| {});
    (near, far)
}

#[test]
fn messages_pass_as_they_are_and_each_response_is_booked() {
    let (near, far) = pair("ttft=5ms,gap=1ms");
    run(async {
        let mut socket = connect(&near).await;
        for (number, lane) in [None, Some("a")].into_iter().enumerate() {
            let name = trace(number as u128 + 1);
            let mut message = create(lane, "hi", None);
            message["client_metadata"] =
                json!({"ws_request_header_traceparent": name.traceparent()});
            let done = turn(&mut socket, &message).await;
            id(&done);
            assert_eq!(done["stream_id"].as_str(), lane);
            let seen = near.record(name).await;
            let inner = far.record(name).await;
            assert_eq!((&*seen.channel, seen.outcome), ("ws", Outcome::Complete));
            assert_eq!(seen.out_token.len(), 3);
            assert_eq!(seen.up_token.len(), 3);
            assert_eq!(seen.usage, inner.usage);
            // One clock: what the near one wrote the far one read, and the other way round.
            let order = [seen.in_body, seen.up_written.unwrap(), inner.in_body];
            assert!(order.is_sorted(), "{order:?}");
            for ((written, read), out) in inner
                .out_token
                .iter()
                .zip(&seen.up_token)
                .zip(&seen.out_token)
            {
                assert!(written < read && read <= out);
            }
            assert!(seen.up_end.unwrap() >= *inner.out_token.last().unwrap());
        }
        // The conversation is the upstream's.
        let first = turn(&mut socket, &create(Some("a"), "one", None)).await;
        far.backend.take_requests();
        id(&turn(&mut socket, &create(Some("a"), "two", Some(id(&first)))).await);
        let body: Value = serde_json::from_slice(&far.backend.take_requests()[0].body).unwrap();
        assert_eq!(body["input"].as_array().unwrap().len(), 3);
        assert!(near.backend.requests().is_empty());
        // So are its refusals, word for word, and what is no create passes too.
        let error = turn(&mut socket, &create(Some("b"), "x", Some("resp_no"))).await;
        assert_eq!(error["error"]["code"], "previous_response_not_found");
        assert_eq!(error["stream_id"], "b");
        say(&mut socket, &json!({"type": "response.sing"})).await;
        assert_eq!(event(&mut socket).await["error"]["param"], "type");
        socket
            .send(Message::Binary(Bytes::from_static(b"x")))
            .await
            .unwrap();
        assert_eq!(event(&mut socket).await["type"], "error");
    });
}

#[test]
fn what_the_upstream_speaks_is_found_out_and_shown() {
    let far = Stack::start("ttft=0,gap=0");
    let unused = ScriptedBackend::start(Script::default()).unwrap();
    let upstream = format!("http://{}", far.addresses.listen).parse().unwrap();
    let near = Stack::in_front_of(unused, upstream, |mut options| {
        options.upstream_api = UpstreamApi::Auto;
        options
    });
    run(async {
        let mut socket = connect(&near).await;
        id(&turn(&mut socket, &create(None, "hi", None)).await);
        let (_, config) = get(near.addresses.admin, "/config").await;
        assert!(config.contains("\"websocket\""), "{config}");
    });
}

#[test]
fn lanes_interleave_and_each_has_its_own_stamps() {
    let (near, far) = pair(SLOW);
    run(async {
        let mut socket = connect(&near).await;
        let named = |lane: &str, number: u128| {
            let name = trace(number);
            let mut message = create(Some(lane), "hi", None);
            message["client_metadata"] =
                json!({"ws_request_header_traceparent": name.traceparent()});
            (name, message)
        };
        let (slow, message) = named("slow", 10);
        say(&mut socket, &message).await;
        event_of_type(&mut socket, "response.created").await;
        far.backend
            .set_script(Script::default().with("ttft=0,gap=0").unwrap());
        let (quick, message) = named("quick", 11);
        say(&mut socket, &message).await;
        assert_eq!(last_event(&mut socket).await["stream_id"], "quick");
        assert_eq!(last_event(&mut socket).await["stream_id"], "slow");
        let (slow, quick) = (near.record(slow).await, near.record(quick).await);
        assert_eq!((slow.out_token.len(), quick.out_token.len()), (3, 3));
        assert!(slow.out_token[2] > quick.out_token[2]);
        assert!(slow.out_token[0] < quick.out_token[0]);
    });
}

/// An upstream of one connection: opens the WebSocket with these fields, then does as `act` says with the bare socket.
async fn upstream<F: Future<Output = ()> + Send>(
    answer: &'static str,
    act: impl FnOnce(tokio::net::TcpStream, String) -> F + Send + 'static,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut key = head
            .lines()
            .filter_map(|line| line.strip_prefix("sec-websocket-key: "));
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(
            key.next().unwrap().as_bytes(),
        );
        let answer = answer.replace("ACCEPT", &accept);
        stream.write_all(answer.as_bytes()).await.unwrap();
        act(stream, head).await;
    });
    address
}

const OPENED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                      sec-websocket-accept: ACCEPT\r\nx-codex-turn-state: t1\r\n\r\n";

#[test]
fn the_opening_is_passed_on_but_for_what_concerns_one_connection() {
    run(async {
        let (sender, received) = tokio::sync::oneshot::channel();
        let far = upstream(OPENED, |stream, head| async move {
            sender.send(head).unwrap();
            // Held open until the client leaves.
            let mut stream = stream;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let near = in_front_of(far, |_| {});
        let (raw, answer) = Raw::open(
            &near,
            "authorization: Bearer k\r\nopenai-beta: responses_websockets=1\r\nsec-websocket-extensions: permessage-deflate\r\n",
        )
        .await;
        assert!(answer.contains("x-codex-turn-state: t1\r\n"), "{answer}");
        assert_eq!(
            answer.matches("sec-websocket-accept").count(),
            1,
            "{answer}"
        );
        let head = received.await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get /v1/responses http/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: bearer k\r\n"), "{head}");
        assert!(
            head.contains("openai-beta: responses_websockets=1\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("host: {far}\r\n")), "{head}");
        assert!(!head.contains("extensions"), "{head}");
        assert_eq!(head.matches("sec-websocket-key").count(), 1, "{head}");
        drop(raw);
    });
}

#[test]
fn a_refusal_of_the_upstream_is_the_clients() {
    run(async {
        let far = upstream(
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 11\r\nwww-authenticate: Bearer\r\n\r\nwrong key\r\n",
            |_, _| async {},
        )
        .await;
        let near = in_front_of(far, |_| {});
        let (mut raw, answer) = Raw::open(&near, "").await;
        assert!(
            answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
            "{answer}"
        );
        assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
        let mut body = String::new();
        raw.0.read_to_string(&mut body).await.unwrap();
        assert_eq!(body, "wrong key\r\n");
    });
}

#[test]
fn farewells_pass_with_their_codes() {
    run(async {
        // The upstream's to the client.
        let far = upstream(OPENED, |mut stream, _| async move {
            stream.write_all(b"\x88\x06\x0f\xa1busy").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let near = in_front_of(far, |_| {});
        let mut socket = connect(&near).await;
        let farewell = next(&mut socket).await.unwrap_err().unwrap();
        assert_eq!(
            (u16::from(farewell.code), farewell.reason.as_str()),
            (4001, "busy")
        );

        // The client's to the upstream.
        let (sender, received) = tokio::sync::oneshot::channel();
        let far = upstream(OPENED, |mut stream, _| async move {
            let mut frame = Vec::new();
            let _ = stream.read_to_end(&mut frame).await;
            sender.send(frame).unwrap();
        })
        .await;
        let near = in_front_of(far, |_| {});
        let mut socket = connect(&near).await;
        let frame = CloseFrame {
            code: CloseCode::Library(4002),
            reason: "done".into(),
        };
        socket.close(Some(frame)).await.unwrap();
        let seen = received.await.unwrap();
        assert_eq!(seen[0], 0x88);
        let mask = &seen[2..6];
        let payload: Vec<_> = seen[6..]
            .iter()
            .zip(mask.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        assert_eq!(payload, b"\x0f\xa2done");
    });
}

#[test]
fn an_upstream_that_is_lost_is_told_in_each_lane() {
    run(async {
        let far = upstream(OPENED, |stream, _| async move {
            // Both creates, then nothing more.
            let mut far = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            for _ in 0..2 {
                far.next().await.unwrap().unwrap();
            }
        })
        .await;
        let near = in_front_of(far, |_| {});
        let mut socket = connect(&near).await;
        let name = trace(20);
        let mut message = create(Some("a"), "hi", None);
        message["client_metadata"] = json!({"ws_request_header_traceparent": name.traceparent()});
        say(&mut socket, &message).await;
        say(&mut socket, &create(None, "hi", None)).await;
        let mut lanes = Vec::new();
        for _ in 0..2 {
            let error = last_event(&mut socket).await;
            assert_eq!(
                (&error["status"], &error["error"]["code"]),
                (&json!(502), &json!("upstream_lost"))
            );
            lanes.push(error["stream_id"].as_str().map(str::to_owned));
        }
        lanes.sort();
        assert_eq!(lanes, [None, Some("a".to_owned())]);
        let farewell = next(&mut socket).await.unwrap_err().unwrap();
        assert_eq!(farewell.code, CloseCode::Error);
        let outcome = near.record(name).await.outcome;
        assert_eq!(outcome, Outcome::Failed(FailureKind::ConnectionLost));
    });
}

#[test]
fn who_breaks_the_protocol_is_told_and_the_other_end_is_let_go() {
    let (near, far) = pair("");
    run(async {
        let (mut raw, _) = Raw::open(&near, "").await;
        raw.send(&frame(0x83, b"x")).await;
        assert_eq!(raw.close_code().await, 1002);
        assert_eq!(refused(&near, "protocol").await, 1);
        assert_eq!(refused(&far, "protocol").await, 0);
    });
}

#[test]
fn a_silent_client_and_a_silent_upstream_are_given_up() {
    let silence = |limits: &mut WsLimits| limits.silence = Duration::from_millis(60);
    let message = create(None, "hi", None).to_string();
    run(async {
        let far = socket::start("ttft=0,gap=0,stall=2:4s");
        let near = in_front_of(far.addresses.listen, silence);
        let (mut raw, _) = Raw::open(&near, "").await;
        raw.send(&frame(0x81, message.as_bytes())).await;
        let mut pings = 0;
        while let Some((first, _)) = raw.frame().await {
            pings += u32::from(first == 0x89);
        }
        assert_eq!(pings, 2);
        assert_eq!(refused(&near, "silent").await, 1);

        let far = upstream(OPENED, |stream, _| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        })
        .await;
        let near = in_front_of(far, silence);
        let mut socket = connect(&near).await;
        say(&mut socket, &create(None, "hi", None)).await;
        assert_eq!(event(&mut socket).await["error"]["code"], "upstream_lost");
        let farewell = next(&mut socket).await.unwrap_err().unwrap();
        assert_eq!(farewell.code, CloseCode::Error);
        assert_eq!(refused(&near, "silent").await, 1);
    });
}

#[test]
fn a_shutdown_waits_for_what_is_under_way() {
    let (mut near, _far) = pair(SLOW);
    run(async {
        let mut socket = connect(&near).await;
        say(&mut socket, &create(Some("a"), "hi", None)).await;
        event_of_type(&mut socket, "response.created").await;
        let drained = near.begin_shutdown();
        // Who asks for more during the drain is told so.
        let error = loop {
            say(&mut socket, &json!({"type": "response.create", "stream_id": "late", "previous_response_id": "no"})).await;
            let event = event(&mut socket).await;
            if event["error"]["code"] == "server_shutting_down" {
                break event;
            }
            assert!(!is_last(&event) || event["stream_id"] == "late", "{event}");
        };
        assert_eq!(
            (&error["status"], &error["stream_id"]),
            (&json!(503), &json!("late"))
        );
        loop {
            match next(&mut socket).await {
                Ok(event) if is_last(&event) && event["stream_id"] == "a" => {
                    assert_eq!(event["type"], "response.completed");
                    break;
                }
                Ok(_) => {}
                Err(farewell) => panic!("{farewell:?}"),
            }
        }
        let farewell = loop {
            if let Err(farewell) = next(&mut socket).await {
                break farewell.unwrap();
            }
        };
        assert_eq!(farewell.code, CloseCode::Away);
        drop(socket);
        drained.join().unwrap();
    });
}

#[test]
fn headers_of_the_client_reach_the_backend_through_both() {
    let (near, far) = pair("ttft=0,gap=0");
    run(async {
        let mut socket = connect_with(&near, &[("authorization", "Bearer k")]).await;
        id(&turn(&mut socket, &create(None, "hi", None)).await);
        let asked = far.backend.requests();
        assert_eq!(asked[0].header("authorization"), Some("Bearer k"));
    });
}

#[test]
fn a_message_that_is_never_whole_is_not_waited_for() {
    let far = socket::start("ttft=0,gap=0");
    let near = in_front_of(far.addresses.listen, |limits| {
        limits.message = Duration::from_millis(200);
    });
    run(async {
        let mut other = connect(&near).await;
        let (mut raw, _) = Raw::open(&near, "").await;
        raw.send(&frame(0x81, &[b' '; 100])[..50]).await;
        assert_eq!(raw.close_code().await, 1008);
        assert_eq!(refused(&near, "slow").await, 1);
        id(&turn(&mut other, &create(None, "hi", None)).await);
    });
}
