"""Checks that torch and llama.cpp see the same model: `python check.py --work-dir ...` compares with reference.json.

Each recorded continuation is read by the torch model with the file's dequantized weights. Logprobs differ by some
hundredths of a nat, since llama.cpp quantizes activations too; a wrong rotation or permutation differs by nats.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

import export
from model import Config, Model

HERE = Path(__file__).parent
MAX_DIFFERENCE = 0.2  # nats, of the largest difference between two logprobs


@torch.no_grad()
def compare(model: Model, prompt: dict[str, Any], banned: list[int]) -> tuple[int, float]:
    """How many of the tokens torch would have chosen too, and the largest difference of a logprob in nats."""
    first = len(prompt["prompt_ids"]) - 1
    logits = model(torch.tensor([prompt["prompt_ids"] + prompt["ids"]]))[0, first:-1]
    logprobs = torch.log_softmax(logits, dim=-1)
    difference = max(
        abs(logprobs[position, token].item() - logprob)
        for position, pairs in enumerate(prompt["top2"])
        for token, logprob in pairs
    )
    logprobs[:, banned] = -torch.inf
    return int((logprobs.argmax(dim=-1) == torch.tensor(prompt["ids"])).sum()), difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=HERE.parents[1] / "target/train", help="has tokenizer.json")
    parser.add_argument("--model-dir", type=Path, default=HERE.parent / "model")
    args = parser.parse_args()

    reference = json.loads((args.model_dir / "reference.json").read_text())
    tokenizer = Tokenizer.from_file(str(args.work_dir / "tokenizer.json"))
    texts = [(entry["text"], entry["ids_parse_special"]) for entry in reference["tokenize"]]
    texts += [(prompt["text"], prompt["prompt_ids"]) for prompt in reference["prompts"]]
    mistaken = [text for text, ids in texts if tokenizer.encode(text).ids != ids]

    model = Model(Config())
    model.load_state_dict(export.read_weights(args.model_dir / "tokenlag-tiny.gguf"))
    results = [compare(model, prompt, reference["banned_ids"]) for prompt in reference["prompts"]]
    same, worst = sum(same for same, _ in results), max(difference for _, difference in results)
    total = sum(len(prompt["ids"]) for prompt in reference["prompts"])
    print(f"{same} of {total} tokens alike, logprobs within {worst:.3f} nats, {len(mistaken)} of {len(texts)} texts tokenized otherwise")
    if mistaken or worst > MAX_DIFFERENCE:
        raise SystemExit(f"not the same model; texts tokenized otherwise: {mistaken}")


if __name__ == "__main__":
    main()
