"""A transformer over frames of tokens: attention in a frame, attention back in time, and the next frame's decoder.

Tokens of one frame attend to each other, and each token to its own place in the frames before, up to a window. In
serving, what the frames before left is a ring of keys and values for each lane: the write index is the lane's own
frame count modulo the window, and ages are relative, so lanes need not be in step and no context is lost at the wrap.
Keys are stored without a position; a learned vector for each age is added when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.worlds.nets.members import padded

_NEVER = -1e30  # a score whose weight is exactly zero


class Attention(nn.Module):
    """Every token attends to all tokens of its own row, and to those of a context beside it.

    Keys are filled up to a multiple of 16: products of small matrices are rounded by how they lie in memory, and a
    lane's must lie alike in every place of the batch.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """(R, N, width) of tokens (R, N, width) and a context (R, M, width), whose keys come first.

        causal: a token sees itself, the tokens before it, and all of the context.
        """
        query, key, value = self.into(tokens).chunk(3, dim=-1)
        if context is not None:
            more_keys, more_values = self.remembered(context)
            key, value = torch.cat([more_keys, key], dim=1), torch.cat([more_values, value], dim=1)
        count, keys = tokens.shape[1], key.shape[1]
        place = torch.arange(padded(keys), device=tokens.device)[None, :]
        last = torch.arange(keys - count, keys, device=tokens.device)[:, None] if causal else keys - 1
        return self.attend(query, filled(key), filled(value), place <= last)

    def remembered(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, M, width) of tokens."""
        width = tokens.shape[-1]
        key, value = F.linear(tokens, self.into.weight[width:], self.into.bias[width:]).chunk(2, dim=-1)
        return key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """(R, N, width) what queries (R, N, width) find among keys and values (R, M, width); seen (N or 1, M) bool."""
        query, key, value = (self._split(part) for part in (query, key, value))
        score = (query @ key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]))
        score = score.masked_fill(~seen, _NEVER)
        found: Tensor = self.out((torch.softmax(score, dim=-1) @ value).transpose(1, 2).flatten(-2))
        return found

    def _split(self, part: Tensor) -> Tensor:
        """(R, heads, N, width / heads)."""
        return part.reshape(*part.shape[:-1], self.heads, -1).transpose(1, 2)


def filled(rows: Tensor) -> Tensor:
    """Rows (R, M, width) with zeros up to a multiple of 16."""
    return F.pad(rows, (0, 0, 0, padded(rows.shape[1]) - rows.shape[1]))


class Recall(nn.Module):
    """Every token attends to its own place in its own frame and in the `window` - 1 frames before."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.age = nn.Parameter(torch.randn(heads, window, width // heads) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, N, width) of T frames that follow each other."""
        # Lanes and places side by side: (B, N, heads, T, width / heads).
        query, key, value = (
            part.reshape(*part.shape[:-1], self.heads, -1).permute(0, 2, 3, 1, 4)
            for part in self.into(tokens).chunk(3, dim=-1)
        )
        frame = torch.arange(tokens.shape[1], device=tokens.device)
        age = frame[:, None] - frame[None, :]
        score = query @ key.transpose(-2, -1)
        by_age = query @ self.age.transpose(-2, -1)  # (B, N, heads, T, window)
        index = age.clamp(0, self.window - 1).expand(*by_age.shape[:-2], -1, -1)
        score = (score + by_age.gather(-1, index)) * (1 / math.sqrt(query.shape[-1]))
        score = score.masked_fill((age < 0) | (age >= self.window), _NEVER)
        found: Tensor = self.out((torch.softmax(score, dim=-1) @ value).permute(0, 3, 1, 2, 4).flatten(-2))
        return found

    def append(self, tokens: Tensor, ring: Tensor, here: Tensor, age: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """One frame more: (B, N, width), and the ring (B, 2, N, heads, window, width / heads) with it.

        here (B, window) bool: the slot that is written; age (B, window): of every slot's frame; known (B, window)
        bool: slots that hold a frame.
        """
        query, key, value = (
            part.reshape(*part.shape[:-1], self.heads, -1) for part in self.into(tokens).chunk(3, dim=-1)
        )
        fresh = torch.stack([key, value], dim=1).unsqueeze(-2)  # (B, 2, N, heads, 1, width / heads)
        ring = torch.where(here[:, None, None, None, :, None], fresh, ring)
        # Products and sums one by one, and no matrix product: see Attention on small matrices.
        query = query.unsqueeze(-2)  # (B, N, heads, 1, width / heads)
        by_age = (query * self.age).sum(-1)  # (B, N, heads, window)
        score = (query * ring[:, 0]).sum(-1)
        score = score + by_age.gather(-1, age[:, None, None, :].expand_as(by_age))
        score = (score * (1 / math.sqrt(query.shape[-1]))).masked_fill(~known[:, None, None, :], _NEVER)
        share = torch.softmax(score, dim=-1).unsqueeze(-1)
        found: Tensor = self.out((share * ring[:, 1]).sum(-2).flatten(-2))
        return found, ring


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class FrameBlock(nn.Module):
    """Back in time, then across the frame, then each token for itself; every part adds to what comes in."""

    def __init__(self, width: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.recall = Recall(width, heads, window)
        self.across = Attention(width, heads)
        self.mlp = _mlp(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, N, width)."""
        tokens = tokens + self.dropout(self.recall(self.norms[0](tokens)))
        return self._in_frame(tokens.flatten(0, 1)).view_as(tokens)

    def append(self, tokens: Tensor, ring: Tensor, here: Tensor, age: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """As Recall.append."""
        found, ring = self.recall.append(self.norms[0](tokens), ring, here, age, known)
        return self._in_frame(tokens + found), ring

    def _in_frame(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self.across(self.norms[1](tokens)))
        found: Tensor = tokens + self.dropout(self.mlp(self.norms[2](tokens)))
        return found


class FrameTransformer(nn.Module):
    """What frames of tokens mean, each in the light of those before."""

    def __init__(self, width: int, heads: int, layers: int, window: int, dropout: float) -> None:
        super().__init__()
        self.width, self.heads, self.window = width, heads, window
        blocks = nn.ModuleList(FrameBlock(width, heads, window, dropout) for _ in range(layers))
        self.blocks = cast("Sequence[FrameBlock]", blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, N, width) of T frames that follow each other; the first of them has none before it."""
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.norm(tokens)
        return found

    def ring_shape(self, tokens: int) -> tuple[int, ...]:
        """Of one lane's rings, for frames of so many tokens."""
        return (len(self.blocks), 2, tokens, self.heads, self.window, self.width // self.heads)

    def memory(self) -> int:
        """How many frames the rings depend on: a layer's keys depend on the window of the layer below."""
        return len(self.blocks) * (self.window - 1) + 1

    def append(self, tokens: Tensor, rings: Tensor, frame: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """One frame more: what it means (B, N, width), and the rings (B, *ring_shape) with it.

        frame (B,) int64: how many frames the lane had before; counts (B,) bool: where False the rings stay.
        """
        slot = torch.arange(self.window, device=tokens.device)
        age = (frame[:, None] - slot) % self.window
        known, here = age <= frame[:, None], (age == 0) & counts[:, None]
        after = []
        for block, ring in zip(self.blocks, rings.unbind(1), strict=True):
            tokens, ring = block.append(tokens, ring, here, age, known)
            after.append(ring)
        return self.norm(tokens), torch.stack(after, dim=1)


class DecoderBlock(nn.Module):
    """Tokens of the frame to come, over each other and over what is known of the frame before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.across = Attention(width, heads)
        self.mlp = _mlp(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, context: Tensor, *, causal: bool) -> Tensor:
        tokens = tokens + self.dropout(self.across(self.norms[0](tokens), context, causal=causal))
        found: Tensor = tokens + self.dropout(self.mlp(self.norms[1](tokens)))
        return found

    def one(self, token: Tensor, keys: Tensor, values: Tensor, place: int) -> Tensor:
        """The next token (R, 1, width) alone; its key and value are put at `place` of those of all (R, M, width)."""
        query, key, value = self.across.into(self.norms[0](token)).chunk(3, dim=-1)
        keys[:, place : place + 1], values[:, place : place + 1] = key, value
        seen = torch.arange(keys.shape[1], device=token.device)[None, :] <= place
        token = token + self.across.attend(query, keys, values, seen)
        found: Tensor = token + self.mlp(self.norms[1](token))
        return found


class FrameDecoder(nn.Module):
    """What is to be said of a frame's tokens, given a context: all at once, or one after another."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        blocks = nn.ModuleList(DecoderBlock(width, heads, dropout) for _ in range(layers))
        self.blocks = cast("Sequence[DecoderBlock]", blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, context: Tensor, *, causal: bool) -> Tensor:
        """(R, N, width) of queries (R, N, width); causal: no query sees a later one."""
        for block in self.blocks:
            tokens = block(tokens, context, causal=causal)
        found: Tensor = self.norm(tokens)
        return found

    def begin(self, context: Tensor, tokens: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (R, M, width) of every layer: those of the context, and room for so many tokens."""
        memory = []
        for block in self.blocks:
            keys, values = block.across.remembered(context)
            room = padded(keys.shape[1] + tokens) - keys.shape[1]
            memory.append((F.pad(keys, (0, 0, 0, room)), F.pad(values, (0, 0, 0, room))))
        return memory

    def one(self, token: Tensor, memory: list[tuple[Tensor, Tensor]], place: int) -> Tensor:
        """(R, width) of the next query (R, width), which is put at `place` of the memory."""
        token = token.unsqueeze(1)
        for block, (keys, values) in zip(self.blocks, memory, strict=True):
            token = block.one(token, keys, values, place)
        found: Tensor = self.norm(token.squeeze(1))
        return found
