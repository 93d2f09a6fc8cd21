//! Lanes of one WebSocket: their order, their limits, and what each can go on from.

mod socket;
mod stack;

use serde_json::{Value, json};
use socket::{
    all_read, connect, create, event, event_of_type, id, is_last, last_event, refused, say, turn,
};
use stack::{Stack, run};
use tokenlag_proxy::{StateAt, UpstreamApi};
use tokenlag_scripted::{Script, ScriptedBackend};

/// A reply that stays under way until somebody has looked at it.
const SLOW: &str = "ttft=0,gap=0,stall=2:400ms";

fn script(line: &str) -> Script {
    Script::default().with(line).unwrap()
}

/// The texts of a request's input, in order.
fn texts(body: &[u8]) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap();
    assert!(body.get("previous_response_id").is_none(), "{body}");
    assert!(body.get("stream_id").is_none(), "{body}");
    match &body["input"] {
        Value::String(text) => vec![text.clone()],
        items => items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["content"][0]["text"].as_str().unwrap().to_owned())
            .collect(),
    }
}

#[test]
fn lanes_run_side_by_side_and_events_say_theirs() {
    let stack = socket::start(SLOW);
    run(async {
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(Some("slow"), "one", None)).await;
        say(&mut socket, &create(None, "two", None)).await;
        for _ in 0..2 {
            event_of_type(&mut socket, "response.created").await;
        }
        stack.backend.set_script(script("ttft=0,gap=0"));
        say(&mut socket, &create(Some("quick"), "three", None)).await;
        let mut ended = Vec::new();
        while ended.len() < 3 {
            let event = event(&mut socket).await;
            match event.get("stream_id").map(|lane| lane.as_str().unwrap()) {
                None | Some("slow" | "quick") => {}
                other => panic!("{other:?}"),
            }
            if is_last(&event) {
                ended.push(event["stream_id"].clone());
            }
        }
        assert_eq!(ended[0], "quick");
        assert!(ended.contains(&json!("slow")) && ended.contains(&Value::Null));
    });
}

#[test]
fn one_lane_is_served_in_order() {
    let stack = socket::start("ttft=30ms,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        for input in ["one", "two", "three"] {
            say(&mut socket, &create(Some("a"), input, None)).await;
        }
        // What cannot be served is said in its turn, so that it ends no answer before it.
        say(
            &mut socket,
            &json!({"type": "response.sing", "stream_id": "a"}),
        )
        .await;
        say(&mut socket, &create(Some("a"), "four", None)).await;
        for number in 1..=3 {
            let created = event(&mut socket).await;
            assert_eq!(created["type"], "response.created", "{created}");
            assert_eq!(stack.backend.requests().len(), number);
            assert_eq!(last_event(&mut socket).await["type"], "response.completed");
        }
        let error = event(&mut socket).await;
        assert_eq!(
            (&error["type"], &error["stream_id"]),
            (&json!("error"), &json!("a"))
        );
        assert_eq!(last_event(&mut socket).await["type"], "response.completed");
        let asked = stack.backend.requests();
        let asked: Vec<_> = asked.iter().map(|request| texts(&request.body)).collect();
        assert_eq!(asked, [["one"], ["two"], ["three"], ["four"]]);
    });
}

#[test]
fn sixteen_responses_are_under_way_at_most() {
    let stack = socket::start("ttft=0,gap=0,stall=2:500ms");
    run(async {
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(Some("first"), "hi", None)).await;
        event_of_type(&mut socket, "response.created").await;
        // These end when the connection does: whatever the machine's pace, there is one end, which lets one more begin.
        stack.backend.set_script(script("ttft=0,gap=0,stall=2:1m"));
        for number in 1..20 {
            let lane = format!("lane{number}");
            say(&mut socket, &create(Some(&lane), "hi", None)).await;
        }
        let (mut begun, mut ended) = (1, 0);
        while (begun, ended) != (17, 1) {
            let event = event(&mut socket).await;
            begun += usize::from(event["type"] == "response.created");
            ended += usize::from(is_last(&event));
            assert!(begun - ended <= 16, "{begun} begun, {ended} ended");
        }
        // All the others were read, and wait.
        all_read(&mut socket).await;
        assert_eq!(stack.backend.requests().len(), 17);
    });
}

#[test]
fn a_connection_names_thirty_two_lanes_in_its_life() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        for number in 0..32 {
            let lane = format!("lane{number}");
            id(&turn(&mut socket, &create(Some(&lane), "hi", None)).await);
        }
        let error = turn(&mut socket, &create(Some("lane32"), "hi", None)).await;
        let message = error["error"]["message"].clone();
        assert_eq!(
            error,
            json!({"type": "error", "stream_id": "lane32", "status": 400, "error": {
                "type": "invalid_request_error", "code": "websocket_stream_limit_reached", "message": message,
                "param": "stream_id",
            }})
        );
        assert_eq!(refused(&stack, "lanes").await, 1);
        id(&turn(&mut socket, &create(Some("lane7"), "hi", None)).await);
        id(&turn(&mut socket, &create(None, "hi", None)).await);
        // Another connection has its own.
        let mut other = connect(&stack).await;
        id(&turn(&mut other, &create(Some("lane32"), "hi", None)).await);
    });
}

#[test]
fn a_lane_goes_on_from_its_latest_response_only() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        let first = turn(&mut socket, &create(Some("a"), "one", None)).await;
        let second = turn(&mut socket, &create(Some("a"), "two", Some(id(&first)))).await;
        let error = turn(&mut socket, &create(Some("a"), "again", Some(id(&first)))).await;
        assert_eq!(error["error"]["code"], "previous_response_not_found");
        // That failed, yet it named what was gone already: the latest is untouched.
        id(&turn(&mut socket, &create(Some("a"), "three", Some(id(&second)))).await);
        assert_eq!(texts(&stack.backend.requests()[2].body).len(), 5);
    });
}

#[test]
fn a_fork_holds_what_it_goes_on_from() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        let first = turn(&mut socket, &create(Some("main"), "one", None)).await;
        stack.backend.set_script(script(SLOW));
        say(
            &mut socket,
            &create(Some("critic"), "criticise", Some(id(&first))),
        )
        .await;
        event_of_type(&mut socket, "response.in_progress").await;
        stack.backend.set_script(script("ttft=0,gap=0"));
        let second = turn(&mut socket, &create(Some("main"), "two", Some(id(&first)))).await;
        assert_eq!(second["stream_id"], "main");
        let fork = last_event(&mut socket).await;
        assert_eq!(fork["stream_id"], "critic");
        stack.backend.take_requests();
        id(&turn(
            &mut socket,
            &create(Some("critic"), "more", Some(id(&fork))),
        )
        .await);
        let asked = texts(&stack.backend.take_requests()[0].body);
        assert_eq!(
            (asked.len(), &*asked[0], &*asked[2]),
            (5, "one", "criticise")
        );
        // The fork has ended, and the first response is nobody's latest any more.
        let error = turn(&mut socket, &create(Some("new"), "x", Some(id(&first)))).await;
        assert_eq!(error["error"]["code"], "previous_response_not_found");
        id(&turn(
            &mut socket,
            &create(Some("main"), "three", Some(id(&second))),
        )
        .await);
    });
}

#[test]
fn a_failure_takes_the_parent_of_its_own_lane_along() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        let first = turn(&mut socket, &create(Some("a"), "one", None)).await;
        stack.backend.set_script(script("status=500"));
        let error = turn(&mut socket, &create(Some("b"), "fork", Some(id(&first)))).await;
        assert_eq!(
            (&error["status"], &error["stream_id"]),
            (&json!(500), &json!("b"))
        );
        stack.backend.set_script(script("ttft=0,gap=0"));
        let second = turn(&mut socket, &create(Some("a"), "two", Some(id(&first)))).await;
        stack.backend.set_script(script("status=429"));
        let error = turn(&mut socket, &create(Some("a"), "three", Some(id(&second)))).await;
        assert_eq!(error["status"], 429);
        stack.backend.set_script(script("ttft=0,gap=0"));
        let error = turn(&mut socket, &create(Some("a"), "again", Some(id(&second)))).await;
        assert_eq!(error["error"]["code"], "previous_response_not_found");
        assert_eq!(error["stream_id"], "a");
    });
}

#[test]
fn a_warm_up_echoes_its_lane_and_can_be_built_on() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        let mut warm_up = create(Some("a"), "context", None);
        warm_up["generate"] = json!(false);
        say(&mut socket, &warm_up).await;
        for kind in [
            "response.created",
            "response.in_progress",
            "response.completed",
        ] {
            let event = event(&mut socket).await;
            assert_eq!(
                (&event["type"], &event["stream_id"]),
                (&json!(kind), &json!("a"))
            );
            if kind == "response.completed" {
                assert_eq!(event["response"]["output"], json!([]));
                id(&turn(&mut socket, &create(Some("a"), "go", Some(id(&event)))).await);
            }
        }
        let asked = stack.backend.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!(texts(&asked[0].body), ["context", "go"]);
    });
}

#[test]
fn a_warm_up_works_where_the_upstream_keeps_the_state() {
    let backend = ScriptedBackend::start(script("ttft=0,gap=0")).unwrap();
    let upstream = backend.url().parse().unwrap();
    let stack = Stack::in_front_of(backend, upstream, |mut options| {
        options.upstream_api = UpstreamApi::Responses;
        options.state_at = StateAt::Upstream;
        options
    });
    run(async {
        let mut socket = connect(&stack).await;
        for parent in [None, Some("resp_of_upstream")] {
            let mut warm_up = create(Some("a"), "context", parent);
            warm_up["generate"] = json!(false);
            let mut warm = turn(&mut socket, &warm_up).await;
            // A warm-up may go on from another.
            let mut further = create(Some("a"), "more", Some(id(&warm)));
            further["generate"] = json!(false);
            warm = turn(&mut socket, &further).await;
            id(&turn(&mut socket, &create(Some("a"), "go", Some(id(&warm)))).await);
            let asked = stack.backend.take_requests();
            assert_eq!(asked.len(), 1);
            let mut body: Value = serde_json::from_slice(&asked[0].body).unwrap();
            let named = body.as_object_mut().unwrap().remove("previous_response_id");
            assert_eq!(named, parent.map(|parent| json!(parent)));
            let body = body.to_string();
            assert_eq!(texts(body.as_bytes()), ["context", "more", "go"]);
        }
    });
}
