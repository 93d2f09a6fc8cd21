"""The Muon optimizer (Jordan et al., 2024) in float32: momentum whose matrix is made nearly orthogonal before the step.

torch has one too, but it iterates in bfloat16, which CPUs without AVX-512 emulate slowly; here all matrices of one
shape are iterated together.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

# x -> ax + bx^3 + cx^5 drives singular values towards 1, from the publication.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """[count, rows, columns] to the same shape, each with singular values near 1."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """For matrices only; `lr` is the step's size per singular value, decay is decoupled."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step with the parameters' gradients, Nesterov's way."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    state = self.state[parameter]
                    velocity = state.setdefault("velocity", torch.zeros_like(parameter))
                    velocity.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(velocity, group["momentum"]))
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, orthogonalize(torch.stack(updates))):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)
