"""Trains the model and exports it: `python train.py` does all of it, from the crates' names to the GGUF file.

The learning rate warms up, stays, and falls linearly to zero over the last `--decay-steps`. Windows are drawn from the
training tokens by (seed, step), so a run that stopped goes on with `--resume` as if it had not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

# Threads that wait must not spin: beside other work that makes two threads slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import data
import export
from model import Config, Model
from muon import Muon

HERE = Path(__file__).parent
MATRIX_RATE, VECTOR_RATE = 0.02, 3e-3  # Muon for the layers' matrices, AdamW for the embedding and the norms
WEIGHT_DECAY = 0.05
CHECKPOINT_STEPS = 100


@dataclass(frozen=True)
class Run:
    """What decides the result, besides the data."""

    seed: int
    steps: int
    decay_steps: int
    warmup_steps: int
    batch: int


def rate_factor(run: Run, step: int) -> float:
    """Share of the full learning rate at a step."""
    return max(0.0, min((step + 1) / run.warmup_steps, (run.steps - step) / run.decay_steps, 1.0))


def windows(tokens: np.ndarray, run: Run, step: int, window: int) -> Tensor:
    """[batch, window + 1] ids from random places."""
    starts = np.random.default_rng([run.seed, step]).integers(0, len(tokens) - window - 1, run.batch)
    return torch.from_numpy(np.stack([tokens[s : s + window + 1] for s in starts]).astype(np.int64))


def loss_of(model: torch.nn.Module, batch: Tensor) -> Tensor:
    """Mean cross entropy in nats per token; batch is [batch, window + 1] ids."""
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def optimizers(model: Model) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest; no weight decay on norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("blk.")]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    return [
        Muon(matrices, lr=MATRIX_RATE, momentum=0.95, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(
            [{"params": [model.token_embd.weight], "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
            lr=VECTOR_RATE, betas=(0.9, 0.95),
        ),
    ]


@torch.no_grad()
def heldout_loss(model: torch.nn.Module, tokens: np.ndarray, window: int, limit: int | None = None) -> float:
    """Mean nats per token over consecutive windows (each token sees at most the window), or `limit` evenly spaced ones."""
    count = (len(tokens) - 1) // window
    chosen = np.linspace(0, count - 1, limit or count, dtype=np.int64)
    total = 0.0
    for first in range(0, len(chosen), 32):
        rows = [tokens[i * window : i * window + window + 1] for i in chosen[first : first + 32]]
        total += loss_of(model, torch.from_numpy(np.stack(rows).astype(np.int64))).item() * len(rows)
    return total / len(chosen)


def save(path: Path, model: Model, opts: list[torch.optim.Optimizer], step: int, seconds: float) -> None:
    """Writes a checkpoint that `--resume` can go on from, whole or not at all."""
    state = {"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "step": step, "seconds": seconds}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(run: Run, work_dir: Path, resume: bool) -> dict[str, float]:
    """Trains to `run.steps`, leaving `checkpoint.pt` in the work folder; returns steps, tokens and seconds."""
    tokens, heldout = np.load(work_dir / "train.npy"), np.load(work_dir / "heldout.npy")
    torch.manual_seed(run.seed)
    model = Model(Config())
    opts = optimizers(model)
    rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    checkpoint = work_dir / "checkpoint.pt"
    first, earlier = 0, 0.0
    if resume:
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for opt, opt_state in zip(opts, state["opts"]):
            opt.load_state_dict(opt_state)
        first, earlier = state["step"], state["seconds"]
    print(f"{model.parameter_count()} parameters, {len(tokens)} tokens, from step {first} to {run.steps}", flush=True)

    started = time.monotonic()
    recent: list[float] = []
    for step in range(first, run.steps):
        factor = rate_factor(run, step)
        for opt, opt_rates in zip(opts, rates):
            for group, rate in zip(opt.param_groups, opt_rates):
                group["lr"] = rate * factor
        loss = loss_of(model, windows(tokens, run, step, model.config.window))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        recent.append(loss.item())
        if (step + 1) % 25 == 0:
            seconds = earlier + time.monotonic() - started
            print(f"step {step + 1} loss {np.mean(recent):.4f} rate {factor:.3f} {seconds:.0f} s", flush=True)
            recent.clear()
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == run.steps:
            save(checkpoint, model, opts, step + 1, earlier + time.monotonic() - started)
            print(f"step {step + 1} held-out {heldout_loss(model, heldout, model.config.window, 64):.4f}", flush=True)
    return {
        "steps": run.steps,
        "tokens": run.steps * run.batch * model.config.window,
        "seconds": earlier + time.monotonic() - started,
    }


def report(work_dir: Path, gguf_path: Path) -> dict[str, float]:
    """Held-out loss of the exported file's own (quantized) weights, per token and per byte."""
    model = Model(Config())
    model.load_state_dict(export.read_weights(gguf_path))
    heldout = np.load(work_dir / "heldout.npy")
    counts = json.loads((work_dir / "data.json").read_text())
    loss = heldout_loss(model, heldout, model.config.window)
    per_byte = loss * counts["heldout_tokens"] / counts["heldout_bytes"]
    return {
        "nats_per_token": loss,
        "perplexity_per_token": math.exp(loss),
        "bits_per_byte": per_byte / math.log(2),
        "perplexity_per_byte": math.exp(per_byte),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=HERE.parents[1] / "target/train", help="data and checkpoints")
    parser.add_argument("--out", type=Path, default=HERE.parent / "model/tokenlag-tiny.gguf")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--decay-steps", type=int, default=1600)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8, help="windows of 256 tokens per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the work folder's checkpoint")
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint as it is")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    run = Run(args.seed, args.steps, args.decay_steps, args.warmup_steps, args.batch)
    data.prepare(args.work_dir, run.seed)
    figures = {} if args.export_only else train(run, args.work_dir, args.resume)
    weights = torch.load(args.work_dir / "checkpoint.pt")["model"]
    export.write(weights, Config(), args.work_dir / "tokenizer.json", args.out)
    figures |= report(args.work_dir, args.out)
    (args.work_dir / "result.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
