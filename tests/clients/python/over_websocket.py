"""Drives a tokenlag proxy's WebSocket with the openai package: `over_websocket.py http://127.0.0.1:8081/v1 [--trust FILE]`.

Exits 0 when every check holds, and prints last how many messages asked for a response; else with the traceback of the
first that does not.
"""

import argparse
import ssl

import openai

ENDS = ("response.completed", "response.incomplete", "response.failed", "error")
SURE = dict(model="tokenlag-tiny", temperature=0, max_output_tokens=20, store=False)
asked = 0


def user(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def ask(connection, **create):
    global asked
    asked += 1
    connection.response.create(**SURE, **create)


def events(connection):
    """What comes, up to the end of one response."""
    got = []
    while not got or got[-1].type not in ENDS:
        got.append(connection.recv())
    return got


def in_order(events):
    """Not every upstream numbers its events; one that does, counts from 0."""
    numbers = [event.sequence_number for event in events]
    return numbers in (list(range(len(events))), [None] * len(events))


def response(connection, **create):
    """The finished response, once its events have told the same."""
    ask(connection, **create)
    got = events(connection)
    assert got[0].type == "response.created", got[0]
    assert in_order(got), got
    last = got[-1].response
    assert last.id == got[0].response.id and last.status in ("completed", "incomplete"), last
    text = "".join(event.delta for event in got if event.type == "response.output_text.delta")
    assert text == last.output_text, (text, last)
    done = [event.item for event in got if event.type == "response.output_item.done"]
    assert [item.id for item in done] == [item.id for item in last.output]
    return last


def continuation(connection):
    first = response(connection, input=[user("Tell me a story.")])
    assert len(first.output_text) > 0 and first.usage.output_tokens > 0, first
    only_new = response(connection, input=[user("And then?")], previous_response_id=first.id)
    said = [item.to_dict() for item in first.output]
    whole = response(connection, input=[user("Tell me a story."), *said, user("And then?")])
    # What the server kept is what the client would have sent.
    assert only_new.usage.input_tokens == whole.usage.input_tokens > first.usage.total_tokens
    assert only_new.output_text == whole.output_text


def warm_up(connection):
    ready = response(connection, input=[user("Be brief.")], generate=False)
    assert ready.output == [] and ready.status == "completed", ready
    then = response(connection, input=[user("Well?")], previous_response_id=ready.id)
    whole = response(connection, input=[user("Be brief."), user("Well?")])
    assert then.output_text == whole.output_text
    assert then.usage.input_tokens == whole.usage.input_tokens


def tools(connection):
    tool = {
        "type": "function",
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {}},
    }
    called = [
        user("Look!"),
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "Nothing to be seen."},
    ]
    # A tool that is not called, and one whose call the client answers: both are part of the conversation.
    assert response(connection, input=[user("Look!")], tools=[tool]).usage.output_tokens > 0
    assert response(connection, input=called, tools=[tool]).usage.output_tokens > 0


def missing(connection):
    ask(connection, input=[user("And?")], previous_response_id="resp_of_nobody")
    (error,) = events(connection)
    assert error.type == "error" and error.status == 400, error
    assert error.error.code == "previous_response_not_found", error
    assert error.error.param == "previous_response_id", error


def lanes(connection):
    """Two lanes at once: each in its own order, and what each says is what it would have said alone."""
    questions = {"left": "Tell me a story.", "right": "Count to ten."}
    alone = {lane: response(connection, input=[user(text)]).output_text for lane, text in questions.items()}
    for lane, text in questions.items():
        ask(connection, input=[user(text)], stream_id=lane)
    got = {lane: [] for lane in questions}
    while any(not events or events[-1].type not in ENDS for events in got.values()):
        event = connection.recv()
        got[event.stream_id].append(event)
    for lane, events in got.items():
        assert in_order(events), lane
        assert events[-1].response.output_text == alone[lane], lane
    # A lane goes on from what it said itself.
    ask(connection, input=[user("And?")], stream_id="left", previous_response_id=got["left"][-1].response.id)
    then = []
    while not then or then[-1].type not in ENDS:
        then.append(connection.recv())
    assert {event.stream_id for event in then} == {"left"}
    assert then[-1].type != "error", then[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--trust")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.base, api_key="none", max_retries=0, timeout=60)
    options = {"ssl": ssl.create_default_context(cafile=args.trust)} if args.trust else {}
    # The package offers permessage-deflate only where it is told to.
    for compression in (None, "deflate"):
        options["compression"] = compression
        with client.responses.connect(websocket_connection_options=options, max_retries=0) as connection:
            for check in (continuation, warm_up, tools):
                check(connection)
                print(f"{check.__name__}, compression {compression}: good")
    with client.responses.connect(websocket_connection_options=options, max_retries=0) as connection:
        # What follows a refusal shows that the connection lives on.
        for check in (missing, lanes):
            check(connection)
            print(f"{check.__name__}: good")
    print(asked)


main()
