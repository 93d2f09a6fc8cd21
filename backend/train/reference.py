"""Asks llama.cpp's server what it makes of the model, and writes it down for the engine's tests.

`python reference.py --server LLAMA_SERVER --label "..."` writes `backend/model/reference.json`: greedy continuations
of fixed prompts with the two likeliest tokens of each position, and token ids of strings that are hard to tokenize.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from strings import PROMPTS, TOKENIZE

HERE = Path(__file__).parent
NEW_TOKENS = 64
WINDOW = 256
START_SECONDS = 60


class Server:
    """A llama-server process on a free loopback port, one thread, no batching across requests; ends with the block."""

    def __init__(self, binary: Path, model: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.options = ["-t", "1", "-tb", "1", "-np", "1", "-c", str(WINDOW), "-fa", "off", "-ctk", "f32", "-ctv", "f32", "--no-repack"]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [binary, "-m", model, "--port", str(port), *self.options, "--no-ui"], stdout=self.log, stderr=self.log
        )

    def __enter__(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.ask("/health")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.__exit__()
        self.log.seek(0)
        raise SystemExit(f"llama-server did not start:\n{self.log.read()}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer to a GET, or to a POST of `body`."""
        request = urllib.request.Request(
            self.base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)

    def tokenize(self, text: str, parse_special: bool) -> list[int]:
        """Token ids, nothing added in front."""
        body = {"content": text, "add_special": False, "parse_special": parse_special}
        return self.ask("/tokenize", body)["tokens"]


def banned_ids(server: Server) -> list[int]:
    """The tokens that llama.cpp takes for an end of generation, which ignore_eos keeps from being chosen."""
    return sorted(server.tokenize("<|endoftext|><|im_end|>", parse_special=True))


def continuation(server: Server, text: str, banned: list[int]) -> dict[str, Any]:
    """Greedy continuation of one prompt, with the two likeliest tokens that may be chosen at each position."""
    prompt_ids = server.tokenize(text, parse_special=True)
    if len(prompt_ids) + NEW_TOKENS > WINDOW:
        raise SystemExit(f"prompt of {len(prompt_ids)} tokens leaves the window: {text!r}")
    reply = server.ask("/completion", {
        "prompt": prompt_ids, "n_predict": NEW_TOKENS, "temperature": 0, "top_k": 1, "samplers": ["top_k"],
        "cache_prompt": False, "ignore_eos": True, "n_probs": 5, "return_tokens": True,
    })
    positions = reply["completion_probabilities"]
    if not len(reply["tokens"]) == len(positions) == NEW_TOKENS:
        raise SystemExit(f"{len(reply['tokens'])} tokens, {len(positions)} positions for {text!r}")
    top = [
        [[entry["id"], round(entry["logprob"], 5)] for entry in position["top_logprobs"] if entry["id"] not in banned][:2]
        for position in positions
    ]
    if [pair[0][0] for pair in top] != reply["tokens"]:
        raise SystemExit(f"not the likeliest tokens for {text!r}")
    return {"text": text, "prompt_ids": prompt_ids, "ids": reply["tokens"], "continuation": reply["content"], "top2": top}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, required=True, help="a llama-server binary")
    parser.add_argument("--label", required=True, help="where the binary is from, such as a package and its version")
    parser.add_argument("--model", type=Path, default=HERE.parent / "model/tokenlag-tiny.gguf")
    parser.add_argument("--out", type=Path, default=HERE.parent / "model/reference.json")
    args = parser.parse_args()

    version = subprocess.run([args.server, "--version"], capture_output=True, text=True, check=True)
    with Server(args.server, args.model) as server:
        banned = banned_ids(server)
        result = {
            "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
            "llama_cpp": f"{args.label}; {' '.join((version.stdout + version.stderr).split())}",
            "server_options": server.options,
            "sampling": "greedy, ignore_eos; top2 leaves the banned ids out, its logprobs are of the softmax over all ids",
            "banned_ids": banned,
            "prompts": [continuation(server, text, banned) for text in PROMPTS],
            "tokenize": [
                {
                    "text": text,
                    "ids": server.tokenize(text, parse_special=False),
                    "ids_parse_special": server.tokenize(text, parse_special=True),
                }
                for text in TOKENIZE
            ],
        }
    args.out.write_text(dump(result))
    gaps = [pair[0][1] - pair[1][1] for prompt in result["prompts"] for pair in prompt["top2"]]
    print(f"{len(result['prompts'])} prompts, smallest gap {min(gaps):.5f} nats, {sum(gap < 0.01 for gap in gaps)} below 0.01")


def dump(result: dict[str, Any]) -> str:
    """JSON with one line per prompt and per string, so that a change shows in a diff."""
    def lines(items: list[Any]) -> str:
        return "[\n  " + ",\n  ".join(json.dumps(item, separators=(",", ":")) for item in items) + "\n ]"

    entries = [
        f' "{key}": {lines(value) if key in ("prompts", "tokenize") else json.dumps(value)}' for key, value in result.items()
    ]
    return "{\n" + ",\n".join(entries) + "\n}\n"


if __name__ == "__main__":
    main()
