"""The next frame's tokens from those of the frames so far and an action: sampled one after another or in few passes.

Knows codes and action features; knows no pictures, rewards or episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.worlds.nets.likeness import Likeness
from simservice.worlds.nets.transformer import FrameDecoder, FrameTransformer
from simservice.worlds.world import Draw, Tensors

TEMPERATURES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
CUTS = (0.0, 0.02, 0.05)
_LIGHT = 4.0  # the mean sum over a patch that codes stand for: how much faster looks are learned from than names
_NEVER = -1e9  # a logit without a chance
_LEAST_PROBABILITY = 1e-3  # what a code costs that happens though it could never be drawn


@dataclass(frozen=True)
class Grid:
    """How a frame's tokens lie: over rows, then columns, then the codes of one patch."""

    rows: int
    columns: int
    depth: int

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.patches * self.depth


@dataclass(frozen=True)
class Sampled:
    """A frame drawn from the model."""

    code: Tensor  # (B, tokens) int64
    surprise: Tensor  # (B,) mean over tokens of minus the log-probability at temperature 1


class NextFrame(nn.Module):
    """Embeddings, the transformer over frames, the decoder of the frame to come, and the decoder of first frames.

    What a code means and how likely it is depend on what it looks like (likeness.py). Where a token lies is the sum of
    a row's, a column's and a depth's vector; when it was is its age (transformer.py).
    The codes of one patch are one vector to the transformer, and a token each to the decoder. The first vector of every
    frame stands for the action that led to it, and afterwards for the frame as a whole. First frames are always drawn
    one token after another: with no frame before, tokens tell more of each other than anything else does.
    """

    following: (
        Tensor  # (2,) how frames are drawn: temperature, and below which share of the likeliest a code is never drawn
    )
    beginning: Tensor  # (2,) the same for first frames
    seen: Tensor  # (tokens, codes) bool: which codes the training showed in which place
    looks: Tensor  # (codes, pixels + 1) the patches that the codes stand for, and half their squares' sum
    place: Tensor  # (tokens,)

    def __init__(
        self,
        grid: Grid,
        codes: int,
        pixels: int,
        actions: int,
        *,
        decoding: Literal["autoregressive", "parallel"],
        passes: int,
        width: int,
        heads: int,
        layers: int,
        decoder_layers: int,
        window: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grid, self.codes, self.causal, self.passes = grid, codes, decoding == "autoregressive", passes
        self.code = Likeness(codes, pixels + 1, width, 1.0)
        self.answer = Likeness(codes, pixels + 1, width, 0.01)
        self.frequency = nn.Parameter(torch.zeros(codes))
        self.row, self.column, self.level = (
            nn.Parameter(torch.randn(count, width) * 0.02 ** (count == 1))
            for count in (grid.rows, grid.columns, grid.depth)
        )
        self.action_before = nn.Linear(actions, width)  # the action that led to a frame
        self.action_after = nn.Linear(actions, width)  # the action that leads on from it
        self.no_action = nn.Parameter(torch.randn(width) * 0.02)
        self.unknown = nn.Parameter(torch.randn(width) * 0.02)  # a token that is not drawn yet; before the first one
        self.no_frame = nn.Parameter(torch.randn(grid.patches + 2, width))  # the context of first frames
        self.frames = FrameTransformer(width, heads, layers, window, dropout)
        self.decoder = FrameDecoder(width, heads, decoder_layers, dropout)
        self.register_buffer("following", torch.tensor([1.0, 0.0]))
        self.register_buffer("beginning", torch.tensor([1.0, 0.0]))
        self.register_buffer("looks", torch.zeros(codes, pixels + 1))
        self.register_buffer("seen", torch.zeros(grid.tokens, codes, dtype=torch.bool))
        self.register_buffer("place", torch.arange(grid.tokens), persistent=False)

    # ---- what frames mean ----------------------------------------------------------------------------------------

    def embed(self, code: Tensor, action: Tensor, first: Tensor) -> Tensor:
        """(..., patches + 1, width) of codes (..., tokens), the actions before (..., actions) and first (...) bool."""
        acted = torch.where(first.unsqueeze(-1), self.no_action, self.action_before(action))
        tokens = F.embedding(code, self.code(self.looks)) + self._places()
        patches = tokens.reshape(*code.shape[:-1], self.grid.patches, self.grid.depth, -1).unbind(-2)
        whole = patches[0]
        for more in patches[1:]:  # one after another: a sum's order of addition may depend on the batch
            whole = whole + more
        return torch.cat([acted.unsqueeze(-2), whole], dim=-2)

    def _places(self) -> Tensor:
        """(tokens, width)."""
        places = self.row[:, None, None] + self.column[None, :, None] + self.level[None, None, :]
        return places.flatten(0, 2)

    def context(self, meaning: Tensor, action: Tensor) -> Tensor:
        """(B, patches + 2, width) what the decoder leans on: the action (B, actions) and the frame before."""
        return torch.cat([self.action_after(action).unsqueeze(1), meaning], dim=1)

    def start_context(self, batch: int) -> Tensor:
        """The same for first frames."""
        return self.no_frame.expand(batch, -1, -1)

    # ---- training ------------------------------------------------------------------------------------------------

    def logits(self, context: Tensor, code: Tensor) -> Tensor:
        """(R, tokens, codes) of frames with the codes (R, tokens), each token given those that are drawn before it."""
        return self._after_those_before(context, code) if self.causal else self._given(context, code, None)

    def start_logits(self, code: Tensor) -> Tensor:
        """The same of first frames."""
        return self._after_those_before(self.start_context(len(code)), code)

    def _after_those_before(self, context: Tensor, code: Tensor) -> Tensor:
        before = F.embedding(code[:, :-1], self.code(self.looks))
        seen = torch.cat([self.unknown.expand(len(code), 1, -1), before], dim=1)
        return _said(self.decoder(self._asking(context) + seen, context, causal=True), self._answers())

    def _given(self, context: Tensor, code: Tensor, shown: Tensor | None) -> Tensor:
        """All at once, given the tokens that are shown (R, tokens), if any."""
        seen: Tensor = self.unknown
        if shown is not None:
            seen = torch.where(shown.unsqueeze(-1), F.embedding(code, self.code(self.looks)), self.unknown)
        return _said(self.decoder(self._asking(context) + seen, context, causal=False), self._answers())

    def _answers(self) -> tuple[Tensor, Tensor]:
        """The codes' vectors (codes, width) and biases (codes,): a code that no data shows is not drawn."""
        shown = self.seen.any(0)
        return self.answer(self.looks), torch.where(shown, self.frequency, torch.full_like(self.frequency, _NEVER))

    def surprise(self, context: Tensor, code: Tensor) -> Tensor:
        """(R,) minus the log-probability of frames (R, tokens).

        In passes, of those tokens that have to be guessed in a random one of them, scaled up to all.
        """
        if self.causal or self.passes == 1:
            return _frame_surprise(self.logits(context, code), code).sum(-1)
        shown = self._shown(len(code), self.passes, code.device)
        asked = (~shown).float()
        guessed = _frame_surprise(self._given(context, code, shown), code) * asked
        return guessed.sum(-1) * (code.shape[1] / asked.sum(-1))

    def start_surprise(self, code: Tensor) -> Tensor:
        """(R,) of first frames."""
        return _frame_surprise(self.start_logits(code), code).sum(-1)

    def _shown(self, rows: int, passes: int, device: torch.device) -> Tensor:
        """(rows, tokens) bool: random tokens, as many as are known before a random one of the passes."""
        tokens = self.grid.tokens
        before = torch.randint(passes, (rows, 1), device=device) * tokens // passes
        return torch.rand(rows, tokens, device=device).argsort(-1) < before

    def _asking(self, context: Tensor) -> Tensor:
        """(R, tokens, width) a query for each token: where it is, and what was there."""
        return context[:, 2:].repeat_interleave(self.grid.depth, dim=1) + self._places()

    def note(self, code: Tensor, patches: Tensor) -> None:
        """Remembers which codes (..., tokens) there are in which place, and what they stand for (codes, pixels)."""
        self.seen.index_put_((self.place, code), torch.ones_like(self.seen[0, 0]))
        # With the squares an answer is a bell curve round a picture, as wide as the decoder wants it: x y - y y / 2.
        looks = torch.cat([patches, patches.square().sum(-1, keepdim=True) / 2], dim=-1)
        self.looks.copy_(looks * (_LIGHT / patches.sum(-1).mean().clamp(min=1e-6)))

    def unseen(self, code: Tensor) -> Tensor:
        """(B,) the mean surprise at frames (B, tokens) of which each token new in its place could as well be any."""
        return (~self.seen[self.place, code]).sum(-1) * (math.log(self.codes) / self.grid.tokens)

    # ---- sampling ------------------------------------------------------------------------------------------------

    @property
    def draws(self) -> dict[str, Draw]:
        """The random numbers of a frame."""
        if self.causal:
            return self.start_draws
        order = {"order": Draw("uniform", (self.grid.tokens,))} if self.passes > 1 else {}
        return {"tokens": Draw("uniform", (self.passes, self.grid.tokens)), **order}

    @property
    def start_draws(self) -> dict[str, Draw]:
        """The random numbers of a first frame."""
        return {"tokens": Draw("uniform", (self.grid.tokens,))}

    def sample(self, context: Tensor, draws: Tensors) -> Sampled:
        """The next frame of every row of context (B, patches + 2, width)."""
        if self.causal:
            return self._one_after_another(context, draws["tokens"], self.following)
        return self._in_passes(context, draws, self.following)

    def sample_start(self, draws: Tensors) -> Sampled:
        """First frames."""
        context = self.start_context(len(draws["tokens"]))
        return self._one_after_another(context, draws["tokens"], self.beginning)

    def _one_after_another(self, context: Tensor, chance: Tensor, how: Tensor) -> Sampled:
        asking, memory = self._asking(context), self.decoder.begin(context, self.grid.tokens)
        vectors, answers = self.code(self.looks), self._answers()
        before, codes, surprises = self.unknown.expand(len(context), -1), [], []
        for token in range(self.grid.tokens):
            found = self.decoder.one(asking[:, token] + before, memory, context.shape[1] + token)
            code, surprise = self._pick(_said(found, answers), chance[:, token], how)
            before = F.embedding(code, vectors)
            codes.append(code)
            surprises.append(surprise)
        return Sampled(torch.stack(codes, 1), _mean(torch.stack(surprises, 1)))

    def _in_passes(self, context: Tensor, draws: Tensors, how: Tensor) -> Sampled:
        tokens, chance, asking = self.grid.tokens, draws["tokens"], self._asking(context)
        passes, vectors, answers = chance.shape[1], self.code(self.looks), self._answers()
        if passes == 1:
            found = self.decoder(asking + self.unknown, context, causal=False)
            code, surprise = self._pick(_said(found, answers), chance[:, 0], how)
            return Sampled(code, _mean(surprise))
        # A random order and not the surest first: greedy orders copy the frame before.
        rank = draws["order"].argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
        code = torch.zeros_like(rank)
        surprise = torch.zeros_like(chance[:, 0])
        for place in range(passes):
            known = rank < place * tokens // passes
            seen = torch.where(known.unsqueeze(-1), F.embedding(code, vectors), self.unknown)
            found = self.decoder(asking + seen, context, causal=False)
            drawn, said = self._pick(_said(found, answers), chance[:, place], how)
            code, surprise = torch.where(known, code, drawn), torch.where(known, surprise, said)
        return Sampled(code, _mean(surprise))

    def _pick(self, logits: Tensor, chance: Tensor, how: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (...) by the inverse of the cumulative distribution, and their surprise, of logits (..., codes)."""
        summed = torch.cumsum(probabilities(logits, how), dim=-1)
        total = summed[..., -1:]
        code = ((summed <= chance.unsqueeze(-1) * total) & (summed < total)).sum(-1)
        said = torch.log_softmax(logits, dim=-1).gather(-1, code.unsqueeze(-1)).squeeze(-1)
        return code, -said


def _said(found: Tensor, answers: tuple[Tensor, Tensor]) -> Tensor:
    """Logits (..., codes) of what the decoder found (..., width)."""
    return F.linear(found, *answers)


def _frame_surprise(logits: Tensor, code: Tensor) -> Tensor:
    """(R, tokens) of logits (R, tokens, codes)."""
    return F.cross_entropy(logits.flatten(0, 1), code.flatten(), reduction="none").view(code.shape)


def probabilities(logits: Tensor, how: Tensor) -> Tensor:
    """(..., codes) what is drawn from, up to a factor: at the temperature, without what is cut off; how (2,)."""
    likely = torch.softmax(logits / how[0], dim=-1)
    return torch.where(likely < how[1] * likely.amax(-1, keepdim=True), torch.zeros_like(likely), likely)


def best_sampling(logits: Tensor, code: Tensor, temperatures: Sequence[float] = TEMPERATURES) -> Tensor:
    """(2,) temperature and cut, by which codes (n,) unseen data took where the model had logits (n, codes).

    The likelihood of what happened, where a code that cannot be drawn has a small one. So a branch that reality takes
    keeps its frequency, and the thin haze of codes that it never takes is dropped: over many tokens and steps it is
    what loses an object.
    """
    best, least = logits.new_tensor([1.0, 0.0]), math.inf
    for cut in CUTS:
        for temperature in temperatures:
            how = logits.new_tensor([temperature, cut])
            likely = probabilities(logits, how)
            chance = likely.gather(-1, code.unsqueeze(-1)).squeeze(-1) / likely.sum(-1)
            cost = float(-chance.clamp(min=_LEAST_PROBABILITY).log().double().mean())
            if cost < least:
                best, least = how, cost
    return best


def _mean(surprises: Tensor) -> Tensor:
    """(B,) over (B, tokens), one after another: a sum's order of addition may depend on the batch."""
    total = torch.zeros_like(surprises[:, 0])
    for token in range(surprises.shape[1]):
        total = total + surprises[:, token]
    return total * (1 / surprises.shape[1])
