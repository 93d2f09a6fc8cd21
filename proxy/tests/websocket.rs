//! The Responses API over WebSocket, with a client that is not ours.

mod socket;
mod stack;

use socket::{connect, create, event, id, last_event, say};
use stack::run;

#[test]
fn events_are_those_of_http_and_in_order() {
    let stack = socket::start("gap=0ms");
    run(async {
        let mut socket = connect(&stack).await;
        say(&mut socket, &create(None, "hi", None)).await;
        let mut types = Vec::new();
        for number in 0.. {
            let event = event(&mut socket).await;
            assert_eq!(event["sequence_number"], number, "{event}");
            types.push(event["type"].as_str().unwrap().to_owned());
            if event["type"] == "response.completed" {
                break;
            }
        }
        types.dedup();
        assert_eq!(
            types,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
    });
}

#[test]
fn as_many_creates_may_be_sent_ahead_as_a_client_likes() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        // More than wait at a time: the rest is read as room comes.
        for _ in 0..400 {
            say(&mut socket, &create(None, "hi", None)).await;
        }
        for _ in 0..400 {
            id(&last_event(&mut socket).await);
        }
        assert_eq!(stack.backend.requests().len(), 400);
    });
}
