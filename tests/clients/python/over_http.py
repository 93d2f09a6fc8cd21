"""Drives a tokenlag backend over HTTP with the openai package: `over_http.py http://127.0.0.1:8080/v1`.

`--proxy` says that a proxy is before it, which keeps the conversations; `--trust FILE` what certificate it shows.

Exits 0 when every check holds, and prints last how many requests were made; else with the traceback of the first that
does not.
"""

import argparse
import ssl

import openai
from openai.types.responses import (
    ResponseCreatedEvent,
    ResponseIncompleteEvent,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
)

ENDLESS = {"ignore_eos": True}


def models(client):
    listed = [model.id for model in client.models.list()]
    assert len(listed) == 1, listed
    assert client.models.retrieve(listed[0]).owned_by == "tokenlag"
    return listed[0]


def completions(client, model):
    ask = dict(model=model, prompt="Once upon a time", max_tokens=24, temperature=0, extra_body=ENDLESS)
    whole = client.completions.create(**ask)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 24
    chunks = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 24
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0


def chat(client, model):
    ask = dict(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me a story."}],
        extra_body=ENDLESS,
    )
    sure = dict(ask, max_completion_tokens=24, temperature=0)
    whole = client.chat.completions.create(**sure)
    text = whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant" and whole.choices[0].finish_reason == "length"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 24

    chunks = list(client.chat.completions.create(**sure, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "length"

    stop = text[6:9]
    stopped = client.chat.completions.create(**sure, stop=[stop])
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"

    def sample(seed):
        reply = client.chat.completions.create(**ask, max_tokens=24, temperature=1, seed=seed)
        return reply.choices[0].message.content

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)

    with client.chat.completions.stream(**sure) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    assert "".join(deltas) == text


def responses(client, model, proxy):
    ask = dict(model=model, max_output_tokens=20, temperature=0, extra_body=ENDLESS)
    first = client.responses.create(**ask, input="Tell me a story.", instructions="Be brief.")
    assert first.status == "incomplete" and first.incomplete_details.reason == "max_output_tokens"
    assert first.usage.output_tokens == 20 and len(first.output_text) > 0

    again = dict(ask, input=[{"role": "user", "content": "And then?"}], instructions="Be brief.")
    again["previous_response_id"] = first.id
    second = client.responses.create(**again)
    # A reply that passes is not altered, and a backend that was sent all of it knows of no response before.
    assert second.previous_response_id == (None if proxy else first.id)
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 1

    events = list(client.responses.create(**again, stream=True))
    assert isinstance(events[0], ResponseCreatedEvent)
    assert isinstance(events[-1], ResponseIncompleteEvent)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if isinstance(event, ResponseTextDeltaEvent))
    assert text == second.output_text == events[-1].response.output_text
    (done,) = [event for event in events if isinstance(event, ResponseOutputItemDoneEvent)]
    assert done.item.content[0].text == text

    with client.responses.stream(**again) as stream:
        kinds = {event.type for event in stream}
    assert "response.output_text.delta" in kinds and "response.output_text.done" in kinds


def errors(client, model):
    def fails(kind, call, code, param):
        try:
            call()
        except kind as error:
            assert (error.code, error.param) == (code, param), error
            assert len(error.body["message"]) > 10, error
        else:
            raise AssertionError(f"no {kind.__name__}")

    user = [{"role": "user", "content": "Hi"}]
    bad, missing = openai.BadRequestError, openai.NotFoundError
    fails(bad, lambda: client.chat.completions.create(model=model, messages=user, n=2), None, "n")
    fails(bad, lambda: client.chat.completions.create(model=model, messages=[]), None, "messages")
    fails(
        bad,
        lambda: client.responses.create(model=model, input="Hi", previous_response_id="resp_none"),
        "previous_response_not_found",
        "previous_response_id",
    )
    fails(missing, lambda: client.models.retrieve("gpt-9"), "model_not_found", None)
    fails(missing, lambda: client.embeddings.create(model=model, input="Hi"), "not_found", None)


def main():
    requests = []
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--proxy", action="store_true")
    parser.add_argument("--trust")
    args = parser.parse_args()
    transport = openai.DefaultHttpxClient(
        verify=ssl.create_default_context(cafile=args.trust) if args.trust else True,
        event_hooks={"request": [requests.append]},
    )
    client = openai.OpenAI(base_url=args.base, api_key="none", max_retries=0, timeout=60, http_client=transport)
    model = models(client)
    for check in (completions, chat, lambda *over: responses(*over, args.proxy), errors):
        check(client, model)
    print(len(requests))


main()
