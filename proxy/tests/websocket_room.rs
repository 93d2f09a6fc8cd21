//! The memory that WebSockets may take, one by one and all together, and what becomes of a client that wants more.

mod socket;
mod stack;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use socket::{
    Raw, Socket, connect, create, event_of_type, frame, id, is_last, limited, refused, say, turn,
};
use stack::{IDLE, Stack, get, run};
use tokenlag_probes::StateAt;
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Bytes, Message};

const SLOW: &str = "ttft=0,gap=0,stall=2:400ms";
const TEXT: u8 = 0x81;

/// A proxy whose requests have so much room together.
fn in_room(room: usize, state_at: StateAt) -> Stack {
    let backend = ScriptedBackend::start(Script::default().with("ttft=0,gap=0").unwrap()).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, |mut options| {
        options.limits.room = room;
        options.state_at = state_at;
        options
    })
}

/// What the requests at the TCP port hold.
async fn held(stack: &Stack) -> u64 {
    let (_, metrics) = get(stack.addresses.admin, "/metrics").await;
    let series = "tokenlag_requests_held_bytes{door=\"tcp\"} ";
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series));
    value.expect("the series is there").parse().unwrap()
}

/// Returns when they hold nothing.
async fn nothing_is_held(stack: &Stack) {
    for _ in 0..400 {
        if held(stack).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} bytes are held", held(stack).await);
}

fn warm_up(length: usize, previous: Option<&str>) -> Value {
    let mut create = create(None, &"x".repeat(length), previous);
    create["generate"] = json!(false);
    create
}

/// Sends a ping; true where a terminal event comes before its pong.
async fn event_comes_before_pong(socket: &mut Socket) -> bool {
    socket.send(Message::Ping(Bytes::new())).await.unwrap();
    loop {
        match timeout(IDLE, socket.next()).await.expect("in time") {
            Some(Ok(Message::Pong(_))) => return false,
            Some(Ok(Message::Text(text))) => {
                if is_last(&serde_json::from_str(&text).unwrap()) {
                    return true;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_more_than_256_creates_wait_and_the_rest_is_not_read() {
    for (waiting, unread) in [(255, false), (256, true)] {
        let stack = socket::start(SLOW);
        run(async {
            let mut socket = connect(&stack).await;
            say(&mut socket, &create(None, "hi", None)).await;
            event_of_type(&mut socket, "response.created").await;
            stack
                .backend
                .set_script(Script::default().with("ttft=0,gap=0").unwrap());
            for _ in 0..waiting {
                say(&mut socket, &create(None, "hi", None)).await;
            }
            assert_eq!(
                event_comes_before_pong(&mut socket).await,
                unread,
                "{waiting}"
            );
        });
    }
}

#[test]
fn creates_of_a_connection_that_hold_too_much_stop_its_reading() {
    let stack = limited(SLOW, |limits| limits.held = 2000);
    run(async {
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(Some("a"), &"x".repeat(1000), None)).await;
        event_of_type(&mut socket, "response.created").await;
        assert!(!event_comes_before_pong(&mut socket).await);
        let mut socket = connect(&stack).await;
        for lane in ["a", "b"] {
            say(&mut socket, &create(Some(lane), &"x".repeat(1000), None)).await;
        }
        assert!(event_comes_before_pong(&mut socket).await);
    });
}

#[test]
fn a_message_for_which_there_is_no_room_ends_its_connection_before_it_is_whole() {
    let stack = in_room(64 * 1024, StateAt::Proxy);
    run(async {
        let mut other = connect(&stack).await;
        let (mut raw, _) = Raw::open(&stack, "").await;
        // The close comes before the rest is sent.
        let bytes = frame(TEXT, &[b' '; 200_000]);
        raw.send(&bytes[..100_000]).await;
        assert_eq!(raw.close_code().await, 1013);
        assert_eq!(refused(&stack, "no_room").await, 1);
        nothing_is_held(&stack).await;
        id(&turn(&mut other, &create(None, "hi", None)).await);
    });
}

#[test]
fn a_create_for_which_there_is_no_room_is_told_so_and_its_connection_lives_on() {
    let stack = in_room(5000, StateAt::Proxy);
    run(async {
        let mut socket = connect(&stack).await;
        // The message has room, what goes upstream beside it has not.
        let mut large = create(Some("a"), &"x".repeat(3000), None);
        for refusals in 1..3 {
            let error = turn(&mut socket, &large).await;
            assert_eq!(
                (&error["error"]["code"], &error["status"]),
                (&json!("no_room"), &json!(503))
            );
            assert_eq!(error["stream_id"], "a");
            assert_eq!(refused(&stack, "no_room").await, refusals);
            // Nor has this one.
            large["input"] = json!("x".repeat(6000));
        }
        assert!(stack.backend.requests().is_empty());
        id(&turn(&mut socket, &create(Some("a"), "hi", None)).await);
        drop(socket);
        nothing_is_held(&stack).await;
    });
}

#[test]
fn what_connections_keep_counts_for_the_room_of_all() {
    let stack = in_room(10_000, StateAt::Proxy);
    run(async {
        let mut first = connect(&stack).await;
        id(&turn(&mut first, &warm_up(4000, None)).await);
        assert!(held(&stack).await > 4000);
        let mut second = connect(&stack).await;
        let error = turn(&mut second, &warm_up(4000, None)).await;
        assert_eq!(error["error"]["code"], "no_room", "{error}");
        drop(first);
        nothing_is_held(&stack).await;
        id(&turn(&mut second, &warm_up(4000, None)).await);
    });
}

#[test]
fn warm_ups_of_a_chain_share_what_they_go_on_from() {
    let stack = in_room(1 << 30, StateAt::Upstream);
    run(async {
        let mut socket = connect(&stack).await;
        let mut last: Option<String> = None;
        for _ in 0..40 {
            let done = turn(&mut socket, &warm_up(10_000, last.as_deref())).await;
            last = Some(id(&done).to_owned());
        }
        let held = held(&stack).await;
        assert!((400_000..500_000).contains(&held), "{held}");
        id(&turn(&mut socket, &create(None, "go", last.as_deref())).await);
        let body: Value = serde_json::from_slice(&stack.backend.take_requests()[0].body).unwrap();
        assert_eq!(body["input"].as_array().unwrap().len(), 41);
        assert!(body.get("previous_response_id").is_none());
        nothing_is_held(&stack).await;
    });
}

#[test]
fn a_chain_of_warm_ups_has_a_longest_length() {
    let stack = in_room(1 << 30, StateAt::Upstream);
    run(async {
        let mut socket = connect(&stack).await;
        let mut last: Option<String> = None;
        for number in 1.. {
            let done = turn(&mut socket, &warm_up(15 << 20, last.as_deref())).await;
            if done["type"] == "error" {
                assert_eq!(number, 5);
                assert_eq!(done["error"]["code"], "conversation_too_large", "{done}");
                break;
            }
            last = Some(id(&done).to_owned());
        }
        assert_eq!(refused(&stack, "too_much_kept").await, 1);
        // It took what it went on from with it.
        nothing_is_held(&stack).await;
        id(&turn(&mut socket, &create(None, "hi", None)).await);
    });
}

#[test]
fn a_large_create_keeps_its_place_in_its_lane() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        // Read on another thread, and what follows in the same breath waits for it.
        for input in ["x".repeat(3 << 20), "small".to_owned()] {
            let text = create(Some("a"), &input, None).to_string();
            socket.feed(Message::text(text)).await.unwrap();
        }
        socket.flush().await.unwrap();
        let first = event_of_type(&mut socket, "response.completed").await;
        let second = event_of_type(&mut socket, "response.completed").await;
        assert_eq!(
            (&first["stream_id"], &second["stream_id"]),
            (&json!("a"), &json!("a"))
        );
        let lengths: Vec<_> = stack
            .backend
            .requests()
            .iter()
            .map(|asked| asked.body.len())
            .collect();
        assert!(lengths[0] >= 1 << 20 && lengths[1] < 1000, "{lengths:?}");
        // It was read whole: the next can go on from it.
        let next = turn(&mut socket, &create(Some("a"), "on", Some(id(&second)))).await;
        id(&next);
        // What is wrong with a large message is told as with any other.
        let mut bad = create(Some("a"), &"x".repeat(2 << 20), None);
        bad["generate"] = json!("yes");
        let error = turn(&mut socket, &bad).await;
        assert_eq!(
            (&error["stream_id"], &error["error"]["param"]),
            (&json!("a"), &json!("generate"))
        );
    });
}
