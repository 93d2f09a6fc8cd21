"""Trains the model and exports it: `python train.py` does all of it, from the crates' names to the GGUF file.

The learning rate warms up, stays, and falls linearly to zero over the last `--decay-steps`. Windows are drawn from the
training tokens by (seed, step), so a run that stopped goes on with `--resume` as if it had not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
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
HELDOUT_WINDOWS = 1024


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


def heldout_windows(tokens: np.ndarray, window: int, count: int) -> np.ndarray:
    """[count, window + 1] ids, evenly spaced over the held-out tokens."""
    places = np.linspace(0, len(tokens) - window - 1, count, dtype=np.int64)
    return np.stack([tokens[place : place + window + 1] for place in places]).astype(np.int64)


@torch.no_grad()
def mean_loss(model: torch.nn.Module, rows: np.ndarray) -> float:
    """Mean nats per token; rows is [count, window + 1] ids, each token sees those before it in its row."""
    return sum(loss_of(model, part).item() * len(part) for part in torch.from_numpy(rows).split(32)) / len(rows)


def save(path: Path, model: Model, opts: list[torch.optim.Optimizer], step: int, seconds: float) -> None:
    """Writes a checkpoint that `--resume` can go on from, whole or not at all."""
    state = {"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "step": step, "seconds": seconds}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(run: Run, work_dir: Path, resume: bool) -> dict[str, float]:
    """Trains to `run.steps`, leaving `checkpoint.pt` in the work folder; returns steps, tokens and seconds."""
    tokens = np.load(work_dir / "train.npy")
    heldout = heldout_windows(np.load(work_dir / "heldout.npy"), Config().window, 64)
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
            print(f"step {step + 1} held-out {mean_loss(model, heldout):.4f}", flush=True)
    return {
        "steps": run.steps,
        "tokens": run.steps * run.batch * model.config.window,
        "seconds": earlier + time.monotonic() - started,
    }


def heldout_figures(work_dir: Path, gguf_path: Path) -> dict[str, float]:
    """Held-out loss of the exported file's own (quantized) weights, per token and per byte of text."""
    model = Model(Config())
    model.load_state_dict(export.read_weights(gguf_path))
    rows = heldout_windows(np.load(work_dir / "heldout.npy"), model.config.window, HELDOUT_WINDOWS)
    loss = mean_loss(model, rows)
    nats_per_byte = loss * rows[:, 1:].size / data.token_bytes(work_dir)[rows[:, 1:]].sum()
    return {
        "windows": HELDOUT_WINDOWS,
        "nats_per_token": loss,
        "perplexity_per_token": math.exp(loss),
        "bits_per_byte": nats_per_byte / math.log(2),
        "perplexity_per_byte": math.exp(nats_per_byte),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=HERE.parents[1] / "target/train", help="data and checkpoints")
    parser.add_argument("--out", type=Path, default=HERE.parent / "model/tokenlag-tiny.gguf")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--steps", type=int, default=1450)
    parser.add_argument("--decay-steps", type=int, default=650)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8, help="windows of 256 tokens per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the work folder's checkpoint")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    run = Run(args.seed, args.steps, args.decay_steps, args.warmup_steps, args.batch)
    data.prepare(args.work_dir, run.seed)
    figures = train(run, args.work_dir, args.resume)
    weights = torch.load(args.work_dir / "checkpoint.pt")["model"]
    export.write(weights, Config(), args.work_dir / "tokenizer.json", args.out)
    summary = {
        "model": asdict(Config()) | {"parameters": sum(tensor.numel() for tensor in weights.values())},
        "run": asdict(run) | figures,
        "data": json.loads((args.work_dir / "data.json").read_text()),
        "heldout": heldout_figures(args.work_dir, args.out),
    }
    (args.out.parent / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
    shutil.copyfile(args.work_dir / "crates.json", args.out.parent / "crates.json")
    print(json.dumps(summary["heldout"]), flush=True)


if __name__ == "__main__":
    main()
