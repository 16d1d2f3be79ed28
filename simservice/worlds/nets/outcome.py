"""What a step between two pictures was worth and whether it was the last: a network beside one that draws frames.

Rewards that take few values in the data are classes and are drawn by their probability; others are a number. Both are
told apart for steps that end the episode and steps that do not, so that a lost ball is never paid like a caught one.
Ends are weighted up in training where they are rare; held-out episodes then tell how much of that to take back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.types import Episode
from simservice.worlds.nets.unet import folded
from simservice.worlds.pictures import centred
from simservice.worlds.world import Batch

CLASSES = 16
"""Reward values that can be told apart; a reward that takes more is predicted as a number."""

_WIDTH = 3 * CLASSES  # of the answer: a multiple of what vector kernels take at once
_NEVER = 1e4  # subtracted from a logit: the probability is exactly zero
_ROOM = 0.25  # rewards stay within the data's range and this share of it on either side


class Answer(NamedTuple):
    """What the network says of B steps; the axis of two is: the episode goes on, the episode ends."""

    end: Tensor  # (B,) logit
    values: Tensor  # (B, 2, CLASSES) logits of the reward's value
    number: Tensor  # (B, 2) the reward, normalised


class Outcome(nn.Module):
    """Reads a frame, the next one and what was done between them; with a memory, also what happened before.

    Frames are (B, channels, height, width) in [-1, 1], actions (B, actions), the memory (B, memory).
    """

    values: Tensor  # (CLASSES,) of the reward, in the order they were met; the rest zeros
    barred: Tensor  # (CLASSES,) 0 for a value, else what keeps the class from being drawn
    is_class: Tensor  # () bool
    mean: Tensor  # () of the reward
    scale: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor  # () of ends in the loss
    shift: Tensor  # () what that weight added to the logit, as held-out episodes show

    def __init__(
        self,
        picture: tuple[int, int, int],
        actions: int,
        *,
        channels: int,
        hidden: int,
        memory: int,
        patch: int,
        weight_limit: float,
    ) -> None:
        super().__init__()
        colours, height, width = picture
        self.patch, self.memory, self.weight_limit = patch, memory, weight_limit
        layers: list[nn.Module] = []
        fan_in, places = 2 * colours * patch**2, (-(-height // patch), -(-width // patch))
        while not layers or max(places) > 4:  # halve until few places are left
            layers += [nn.Conv2d(fan_in, channels, 3, stride=2, padding=1), nn.SiLU()]
            fan_in, places = channels, (-(-places[0] // 2), -(-places[1] // 2))
        self.see = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.merge = nn.Linear(channels * places[0] * places[1] + actions, hidden)
        self.remember = nn.GRUCell(hidden, memory) if memory else None
        self.think = nn.Linear(hidden + memory, hidden)
        self.say = nn.Linear(hidden, _WIDTH)
        self.register_buffer("values", torch.zeros(CLASSES))
        self.register_buffer("barred", torch.full((CLASSES,), -_NEVER))
        self.register_buffer("is_class", torch.zeros((), dtype=torch.bool))
        for name, value in (("mean", 0.0), ("scale", 1.0), ("low", -math.inf), ("high", math.inf)):
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("weight", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    # ---- serving -------------------------------------------------------------------------------------------------

    def forward(self, before: Tensor, after: Tensor, action: Tensor, memory: Tensor) -> tuple[Answer, Tensor]:
        """The answer, and the memory after this step."""
        pair = torch.cat([before, after - before], dim=1)
        height, width = pair.shape[-2:]
        if height % self.patch or width % self.patch:
            pair = F.pad(pair, (0, -width % self.patch, 0, -height % self.patch), mode="replicate")
        seen = self.see(folded(pair, self.patch)).flatten(1)
        hidden = F.silu(self.merge(torch.cat([seen, action], dim=-1)))
        if self.remember is not None:
            memory = self.remember(hidden, memory)
            hidden = torch.cat([hidden, memory], dim=-1)
        said = self.say(F.silu(self.think(hidden)))
        values = said[:, : 2 * CLASSES].view(-1, 2, CLASSES)
        return Answer(said[:, 2 * CLASSES], values, said[:, 2 * CLASSES + 1 : 2 * CLASSES + 3]), memory

    def end_probability(self, answer: Answer) -> Tensor:
        """(B,) of the end of the episode."""
        return torch.sigmoid(answer.end - self.shift)

    def reward(self, answer: Answer, ended: Tensor, uniform: Tensor) -> Tensor:
        """(B,) drawn by a uniform number, given whether the step ended the episode."""
        logits = torch.where(ended[:, None], answer.values[:, 1], answer.values[:, 0]) + self.barred
        passed = (logits.softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1)
        last = (self.barred == 0).sum() - 1  # rounding may leave the whole sum below a uniform near one
        drawn = self.values[torch.minimum(passed, last.clamp(min=0))]
        number = torch.where(ended, answer.number[:, 1], answer.number[:, 0])
        number = torch.minimum(torch.maximum(self.mean + number * self.scale, self.low), self.high)
        return torch.where(self.is_class, drawn, number)

    # ---- training ------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """The reward's values or its range, and how much rarer ends are than other steps.

        Values keep their classes when training goes on with other data; new ones are put after them.
        """
        rewards = np.concatenate([episode.reward for episode in episodes]).astype(np.float32)
        known = [float(value) for value, barred in zip(self.values, self.barred, strict=True) if barred == 0]
        known += [float(value) for value in np.unique(rewards)[: CLASSES + 1] if float(value) not in known]
        self.is_class.fill_(len(known) <= CLASSES)
        if self.is_class:
            self.values[: len(known)] = torch.tensor(known)
            self.barred[: len(known)] = 0.0
        low, high = float(rewards.min()), float(rewards.max())
        self.low.fill_(low - _ROOM * (high - low))
        self.high.fill_(high + _ROOM * (high - low))
        self.mean.fill_(float(rewards.mean()))
        self.scale.fill_(max(float(rewards.std()), 1e-6))
        ends = sum(episode.terminated for episode in episodes)
        others = len(rewards) - ends
        self.weight.fill_(min(self.weight_limit, max(1.0, others / max(ends, 1))))
        self.shift.fill_(math.log(float(self.weight)) if ends else _NEVER)

    def miss(self, answer: Answer, reward: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) the surprise at the end or its absence, weighted, and the error of the reward."""
        surprise = F.binary_cross_entropy_with_logits(answer.end, ended.float(), reduction="none")
        surprise = surprise * torch.where(ended, self.weight, 1.0)
        if self.is_class:
            logits = torch.where(ended[:, None], answer.values[:, 1], answer.values[:, 0]) + self.barred
            value = ((reward[:, None] - self.values).abs() - self.barred).argmin(-1)
            return surprise, F.cross_entropy(logits, value, reduction="none")
        number = torch.where(ended, answer.number[:, 1], answer.number[:, 0])
        return surprise, (number - (reward - self.mean) / self.scale).square()

    def segment_miss(self, frames: Tensor, acted: Tensor, batch: Batch, step: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of both: of the given step (B,) of segments, or with a memory of all steps from the first one on.

        Frames are (B, T + 1, channels, height, width) uint8, actions (B, T, actions).
        """
        if self.remember is None:
            rows = torch.arange(len(step), device=step.device)
            before, after = centred(frames[rows, step]), centred(frames[rows, step + 1])
            answer, _ = self(before, after, acted[rows, step], acted[:, 0, :0])
            end, reward = self.miss(answer, batch.reward[rows, step], batch.terminated[rows, step])
            return end.mean(), reward.mean()
        memory, missed = acted.new_zeros(len(frames), self.memory), []
        for time in range(acted.shape[1]):
            before, after = centred(frames[:, time]), centred(frames[:, time + 1])
            answer, memory = self(before, after, acted[:, time], memory)
            both = torch.stack(self.miss(answer, batch.reward[:, time], batch.terminated[:, time]))
            missed.append(both * batch.valid[:, time])
        end, reward = torch.stack(missed).sum((0, 2)) / batch.valid.sum()
        return end, reward

    def fit_shift(self, end: Tensor, ended: Tensor) -> None:
        """The share of log(weight) that undoes the weight best on held-out logits (N,) of ends (N,) bool.

        All of it is right where ends are a matter of chance, little where a sharp border decides; half is believed
        beforehand, for held-out episodes may have few ends.
        """
        if float(self.shift) >= _NEVER:
            return
        whole, shares = math.log(float(self.weight)), [i / 20 for i in range(21)]
        costs = [
            float(F.binary_cross_entropy_with_logits(end - share * whole, ended.float(), reduction="sum"))
            + 8 * (share - 0.5) ** 2
            for share in shares
        ]
        self.shift.fill_(shares[costs.index(min(costs))] * whole)
