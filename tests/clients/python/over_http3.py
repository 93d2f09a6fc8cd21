"""Follows a tokenlag proxy's Alt-Svc with niquests: `over_http3.py https://127.0.0.1:8081/v1 --trust FILE`.

The first request goes over TCP, as nothing is known yet, and what its reply announces takes the others to HTTP/3. Exits 0
when every check holds, and prints last how many requests went over which version; else with a traceback.
"""

import argparse
import json

import niquests

VERSIONS = {11: "http", 20: "http2", 30: "http3"}
ASK = {"model": "tokenlag-tiny", "input": "Tell me a story.", "max_output_tokens": 20, "ignore_eos": True}


def events(reply):
    """The events of a stream, as they come."""
    for line in reply.iter_lines():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--trust")
    args = parser.parse_args()
    # Nobody but the proxy is to be asked about its certificate.
    session = niquests.Session(revocation_configuration=None)
    # Nor may the environment name others to be trusted.
    session.trust_env = False
    went = []

    def ask(method, path, **options):
        reply = session.request(method, args.base + path, verify=args.trust, timeout=60, **options)
        reply.raise_for_status()
        went.append(VERSIONS[reply.http_version])
        return reply

    first = ask("GET", "/models")
    assert first.headers["alt-svc"].startswith('h3=":'), first.headers
    whole = ask("POST", "/responses", json=dict(ASK, temperature=0)).json()
    assert whole["usage"]["output_tokens"] == 20, whole

    got = list(events(ask("POST", "/responses", json=dict(ASK, temperature=0, stream=True), stream=True)))
    assert [event["sequence_number"] for event in got] == list(range(len(got)))
    text = "".join(event["delta"] for event in got if event["type"] == "response.output_text.delta")
    assert text == whole["output"][0]["content"][0]["text"], text
    assert got[-1]["type"] == "response.incomplete", got[-1]

    # A header that is no small one (niquests' own limit is 4 KiB), and a body in many frames.
    long = dict(ASK, input="Tell me a story. " * 20_000, max_output_tokens=1)
    assert ask("POST", "/responses", json=long, headers={"x-long": "x" * 3_000}).json()["id"]
    print(" ".join(went))


main()
