//! The life of a WebSocket: signs of life, slow clients, old age, shutdown, and what a response took.

mod socket;
mod stack;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use socket::{
    Raw, all_read, connect, connect_with, create, event, event_of_type, frame, id, last_event,
    limited, next, refused, say, turn,
};
use stack::{IDLE, exchange, run, trace};
use tokenlag_probes::{Encoding, Outcome, Transport};
use tokenlag_scripted::SCRIPT_HEADER;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

const SLOW: &str = "ttft=0,gap=0,stall=2:400ms";

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;

#[test]
fn a_ping_is_answered_while_a_reply_streams() {
    let stack = socket::start(SLOW);
    run(async {
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(None, "hi", None)).await;
        event_of_type(&mut socket, "response.created").await;
        socket
            .send(Message::Ping(Bytes::from_static(b"?")))
            .await
            .unwrap();
        let mut ponged = false;
        loop {
            match timeout(IDLE, socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
            {
                Message::Pong(payload) => {
                    assert_eq!(&payload[..], b"?");
                    ponged = true;
                }
                Message::Text(text) if text.contains("response.completed") => break,
                _ => {}
            }
        }
        assert!(ponged, "the pong came before the reply's end");
    });
}

const PONG: u8 = 0x8a;

/// Waits for a ping; events before it are passed over. False at the end of the stream.
async fn pinged(raw: &mut Raw) -> bool {
    while let Some((first, _)) = raw.frame().await {
        if first == PING {
            return true;
        }
    }
    false
}

#[test]
fn a_client_that_shows_no_sign_of_life_during_a_response_is_given_up() {
    let stack = limited("ttft=0,gap=0,stall=2:4s", |limits| {
        limits.silence = Duration::from_millis(60);
    });
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        let name = trace(1);
        let mut message = create(None, "hi", None);
        message["client_metadata"] = json!({"ws_request_header_traceparent": name.traceparent()});
        raw.send(&frame(TEXT, message.to_string().as_bytes())).await;
        // It answers the first ping, with whatever, and none after that.
        assert!(pinged(&mut raw).await);
        raw.send(&frame(PONG, b"")).await;
        assert!(pinged(&mut raw).await);
        assert!(pinged(&mut raw).await);
        assert!(!pinged(&mut raw).await);
        assert_eq!(refused(&stack, "silent").await, 1);
        assert_eq!(stack.record(name).await.outcome, Outcome::Cancelled);
    });
}

#[test]
fn a_client_may_be_silent_between_responses() {
    let stack = limited("ttft=0,gap=0", |limits| {
        limits.silence = Duration::from_millis(20);
    });
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        for _ in 0..5 {
            assert!(pinged(&mut raw).await);
        }
        let message = create(None, "hi", None).to_string();
        raw.send(&frame(TEXT, message.as_bytes())).await;
        while raw.frame().await.expect("it was not given up").0 != TEXT {}
        assert_eq!(refused(&stack, "silent").await, 0);
    });
}

#[test]
fn a_message_that_comes_byte_by_byte_is_not_waited_for_without_end() {
    let stack = limited("ttft=0,gap=0", |limits| {
        limits.message = Duration::from_millis(200);
    });
    run(async {
        let mut other = connect(&stack).await;
        let (raw, _) = Raw::open(&stack, "").await;
        let (reading, mut writing) = raw.0.into_split();
        let bytes = frame(TEXT, &[b' '; 4096]);
        let drip = async {
            for byte in bytes {
                if tokio::io::AsyncWriteExt::write_all(&mut writing, &[byte])
                    .await
                    .is_err()
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let close = async {
            let mut answer = Vec::new();
            let mut reading = reading;
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer).await;
            answer
        };
        let answer = tokio::select! {
            answer = close => answer,
            () = drip => panic!("all of it was waited for"),
        };
        assert_eq!(answer[2..4], 1008_u16.to_be_bytes());
        assert_eq!(refused(&stack, "slow").await, 1);
        id(&turn(&mut other, &create(None, "hi", None)).await);
    });
}

#[test]
fn a_client_of_ours_goes_on_where_its_idle_connection_was_ended() {
    let stack = limited("ttft=0,gap=0", |limits| {
        limits.age = Duration::from_millis(100)
    });
    run(async {
        let channel = stack.channel(Transport::Ws);
        for opened in 1..=2 {
            let way = (Transport::Ws, Encoding::Events);
            let body = stack::create("hi", 3);
            let seen = exchange(&channel, way, trace(3), &body, &[]).await.unwrap();
            assert_eq!(seen.outcome, Some(Outcome::Complete));
            assert_eq!(channel.counters().connections_opened, opened);
            // Until it is told, and gone.
            while refused(&stack, "aged").await < opened {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up_and_others_do_not_notice() {
    let stack = limited(
        "ttft=0,gap=0,tokens=100000,events_per_write=500",
        |limits| {
            limits.stalled = Duration::from_millis(300);
        },
    );
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        let name = trace(1);
        let mut message = create(Some("a"), "hi", None);
        message["client_metadata"] = json!({"ws_request_header_traceparent": name.traceparent()});
        raw.send(&frame(TEXT, message.to_string().as_bytes())).await;
        // Another lane of the same connection waits with it.
        raw.send(&frame(
            TEXT,
            create(Some("b"), "hi", None).to_string().as_bytes(),
        ))
        .await;
        // Another connection does not.
        let mut other = connect_with(&stack, &[(SCRIPT_HEADER, "tokens=3")]).await;
        id(&turn(&mut other, &create(None, "hi", None)).await);
        assert_eq!(stack.record(name).await.outcome, Outcome::Cancelled);
        assert_eq!(refused(&stack, "stalled").await, 1);
    });
}

#[test]
fn pings_of_a_client_that_takes_no_pongs_do_not_pile_up() {
    let stack = limited("", |limits| limits.stalled = Duration::from_millis(300));
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        let pings = frame(PING, &[b'x'; 125]).repeat(10_000);
        // The proxy stops reading once its pongs are stuck, and gives the client up: the writes fail in the end.
        let flood = async {
            while tokio::io::AsyncWriteExt::write_all(&mut raw.0, &pings)
                .await
                .is_ok()
            {}
        };
        timeout(IDLE * 4, flood).await.expect("the flood is ended");
        assert_eq!(refused(&stack, "stalled").await, 1);
    });
}

#[test]
fn an_old_connection_ends_when_its_last_response_has() {
    let stack = limited(SLOW, |limits| limits.age = Duration::from_millis(150));
    run(async {
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(Some("a"), "hi", None)).await;
        event_of_type(&mut socket, "response.created").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Creates that come now are told so, in their lanes' turn, and the response under way goes on.
        say(&mut socket, &create(Some("a"), "late", None)).await;
        say(&mut socket, &create(Some("b"), "late", None)).await;
        let refusal = last_event(&mut socket).await;
        let limit_reached = |lane: Option<&str>| {
            let mut event = json!({"type": "error", "status": 400, "error": {
                "type": "invalid_request_error", "code": "websocket_connection_limit_reached",
                "message": refusal["error"]["message"].clone(), "param": null,
            }});
            if let Some(lane) = lane {
                event["stream_id"] = json!(lane);
            }
            event
        };
        assert_eq!(refusal, limit_reached(Some("b")));
        assert_eq!(last_event(&mut socket).await["type"], "response.completed");
        assert_eq!(event(&mut socket).await, limit_reached(Some("a")));
        assert_eq!(event(&mut socket).await, limit_reached(None));
        let farewell = next(&mut socket).await.unwrap_err().unwrap();
        assert_eq!(farewell.code, CloseCode::Away);
        assert_eq!(stack.backend.requests().len(), 1);
        assert_eq!(refused(&stack, "aged").await, 1);
    });
}

#[test]
fn an_idle_old_connection_is_told_at_once() {
    let stack = limited("", |limits| limits.age = Duration::from_millis(50));
    run(async {
        let mut socket = connect(&stack).await;
        let error = event(&mut socket).await;
        assert_eq!(error["error"]["code"], "websocket_connection_limit_reached");
        assert!(next(&mut socket).await.is_err());
    });
}

#[test]
fn a_shutdown_finishes_what_is_under_way_and_takes_nothing_more() {
    let mut stack = socket::start(SLOW);
    run(async {
        let mut socket = connect(&stack).await;
        let mut idle = connect(&stack).await;
        say(&mut socket, &create(Some("a"), "hi", None)).await;
        say(&mut socket, &create(Some("a"), "waits", None)).await;
        all_read(&mut socket).await;
        let drained = stack.begin_shutdown();
        let farewell = next(&mut idle).await.unwrap_err().unwrap();
        assert_eq!(farewell.code, CloseCode::Away);
        say(&mut socket, &create(None, "late", None)).await;
        let late = last_event(&mut socket).await;
        let message = late["error"]["message"].clone();
        assert_eq!(
            late,
            json!({"type": "error", "status": 503, "error": {
                "type": "server_error", "code": "server_shutting_down", "message": message, "param": null,
            }})
        );
        for _ in 0..2 {
            let last = last_event(&mut socket).await;
            assert_eq!(
                (&last["type"], &last["stream_id"]),
                (&json!("response.completed"), &json!("a"))
            );
        }
        let farewell = next(&mut socket).await.unwrap_err().unwrap();
        assert_eq!(farewell.code, CloseCode::Away);
        drop((socket, idle));
        drained.join().unwrap();
    });
}

#[test]
fn who_asks_is_told_what_a_response_took_before_its_last_event() {
    let stack = socket::start("ttft=40ms,gap=10ms");
    run(async {
        let asked = [("x-responsesapi-include-timing-metrics", "true")];
        let mut socket = connect_with(&stack, &asked).await;
        say(&mut socket, &create(Some("a"), "hi", None)).await;
        let mut before = Value::Null;
        let last = loop {
            let event = event(&mut socket).await;
            if event["type"] == "response.completed" {
                break before;
            }
            before = event;
        };
        assert_eq!(last["type"], "responsesapi.websocket_timing", "{last}");
        assert_eq!(last["stream_id"], "a");
        let figure = |name: &str| last["timing_metrics"][name].as_f64().expect(name);
        let engine = figure("engine_service_total_ms");
        let first = figure("engine_service_ttft_total_ms");
        let between = figure("engine_service_tbt_across_engine_calls_ms");
        assert!(first >= 39.0, "{last}");
        assert!(engine >= first + 2.0 * between - 0.01, "{last}");
        // On a machine that is busy two tokens may leave together.
        assert!(between > 0.0, "{last}");
        assert!(figure("responses_duration_excl_engine_and_client_tool_time_ms") > 0.0);
        // Who does not ask is not told.
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(None, "hi", None)).await;
        loop {
            let event = event(&mut socket).await;
            assert_ne!(event["type"], "responsesapi.websocket_timing");
            if event["type"] == "response.completed" {
                break;
            }
        }
    });
}

#[test]
fn a_client_that_leaves_is_left() {
    let stack = socket::start("ttft=0,gap=0,stall=2:3s");
    run(async {
        let mut socket = connect(&stack).await;
        let name = trace(2);
        let mut message = create(Some("a"), "hi", None);
        message["client_metadata"] = json!({"ws_request_header_traceparent": name.traceparent()});
        say(&mut socket, &message).await;
        event_of_type(&mut socket, "response.created").await;
        drop(socket);
        assert_eq!(stack.record(name).await.outcome, Outcome::Cancelled);
    });
}
