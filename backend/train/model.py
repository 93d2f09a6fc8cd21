"""The model: a Llama-style decoder, small enough for one CPU core.

Rotary embedding turns neighbouring pairs (2i, 2i + 1), which is what llama.cpp's `llama` architecture does, so the
weights go into the GGUF file as they are, without permutation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Shapes of the model. Every row length (dim, ffn) is a multiple of 32, the block length of Q8_0."""

    vocab: int = 2048
    dim: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 512
    window: int = 256
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5


def rotations(config: Config, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [length, head_dim / 2], of position * base^(-2i / head_dim)."""
    frequency = config.rope_base ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * frequency[None, :]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair (2i, 2i + 1) of the last axis; x is [batch, length, heads, head_dim]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Layer(nn.Module):
    """Attention and SwiGLU, each behind an RMS norm and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attn_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attn_q = nn.Linear(config.dim, query, bias=False)
        self.attn_k = nn.Linear(config.dim, key, bias=False)
        self.attn_v = nn.Linear(config.dim, key, bias=False)
        self.attn_output = nn.Linear(query, config.dim, bias=False)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn_gate = nn.Linear(config.dim, config.ffn, bias=False)
        self.ffn_up = nn.Linear(config.dim, config.ffn, bias=False)
        self.ffn_down = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x and the result are [batch, length, dim]."""
        batch, length, _ = x.shape
        c = self.config
        normed = self.attn_norm(x)
        q = rotate(self.attn_q(normed).view(batch, length, c.heads, c.head_dim), cos, sin)
        k = rotate(self.attn_k(normed).view(batch, length, c.kv_heads, c.head_dim), cos, sin)
        v = self.attn_v(normed).view(batch, length, c.kv_heads, c.head_dim)
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, dim=2) for t in (k, v))
        attended = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        x = x + self.attn_output(attended.transpose(1, 2).reshape(batch, length, -1))
        normed = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(normed)) * self.ffn_up(normed))


class Model(nn.Module):
    """Token ids to logits; the output matrix is the embedding matrix."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab, config.dim)
        self.blk = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        cos, sin = rotations(config, config.window)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                nn.init.zeros_(parameter)  # each layer starts as the identity

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, length] ids, length at most the window, to [batch, length, vocab] logits."""
        length = tokens.shape[1]
        x = self.token_embd(tokens)
        for layer in self.blk:
            x = layer(x, self.cos[:length], self.sin[:length])
        return F.linear(self.output_norm(x), self.token_embd.weight)

    def parameter_count(self) -> int:
        """Weights in all tensors."""
        return sum(parameter.numel() for parameter in self.parameters())
