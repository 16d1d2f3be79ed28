"""The recurrent state-space model: a deterministic memory, and categorical latents guessed before and known after a
frame is seen (DreamerV3, section "World model learning"; PlaNet for the idea).

Knows embeddings, actions and uniforms; neither spaces nor pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.worlds.nets.distributions import mixed, pick, pick_straight_through
from simservice.worlds.nets.perceptron import Perceptron


class Filtered(NamedTuple):
    """What a model knew along T + 1 frames of B segments, time first."""

    memory: Tensor  # (T + 1, B, deter)
    latent: Tensor  # (T + 1, B, variables * classes) one-hots
    posterior: Tensor  # (T + 1, B, variables, classes) probabilities after the frame


class BlockCell(nn.Module):
    """A gated recurrent unit whose large matrices are block-diagonal: (memory, inputs) to the next memory.

    Every block sees all inputs and its own part of the memory, in a hidden layer and in the gates (DreamerV3, appendix
    "block GRU"). The shared part of the hidden layer is one dense product.
    """

    def __init__(self, inputs: int, deter: int, blocks: int) -> None:
        super().__init__()
        self.blocks, self.width = blocks, deter // blocks
        self.shared = nn.Linear(inputs, deter)
        self.own = nn.Parameter(torch.randn(blocks, self.width, self.width) / self.width**0.5)
        self.norm = nn.LayerNorm(deter)
        self.gates = nn.Parameter(torch.randn(blocks, self.width, 3 * self.width) / self.width**0.5)
        bias = torch.zeros(blocks, 1, 3, self.width)
        bias[:, :, 2] = -1.0  # the memory stays unless there is reason to change
        self.gate_bias = nn.Parameter(bias.view(blocks, 1, 3 * self.width))

    def forward(self, memory: Tensor, inputs: Tensor) -> Tensor:
        lanes, width = memory.shape[0], self.width
        apart = memory.view(lanes, self.blocks, width).transpose(0, 1)  # (blocks, lanes, width)
        own = torch.bmm(apart, self.own).transpose(0, 1).reshape(lanes, -1)
        hidden = F.silu(self.norm(self.shared(inputs) + own))
        gates = torch.baddbmm(self.gate_bias, hidden.view(lanes, self.blocks, width).transpose(0, 1), self.gates)
        gates = gates.to(memory.dtype)  # under autocast products come in bfloat16; the memory stays as it is
        # One sigmoid over whole vectors, a third of it unused: over the parts it would run number by number.
        opened = gates.sigmoid()
        candidate = torch.tanh(opened[..., :width] * gates[..., width : 2 * width])
        return torch.lerp(apart, candidate, opened[..., 2 * width :]).transpose(0, 1).reshape(lanes, -1)


class RecurrentModel(nn.Module):
    """Memory (B, deter) and latent (B, variables * classes) through time."""

    def __init__(
        self,
        *,
        embedding: int,
        action: int,
        deter: int,
        variables: int,
        classes: int,
        units: int,
        blocks: int,
        uniform_share: float,
    ) -> None:
        super().__init__()
        self.deter, self.variables, self.classes, self.uniform_share = deter, variables, classes, uniform_share
        self.acted = nn.Linear(action, units)
        self.past = nn.Linear(deter + variables * classes, units, bias=False)
        self.norm = nn.LayerNorm(units)
        self.cell = BlockCell(units, deter, blocks)
        self.guess = Perceptron([deter, units], variables * classes)
        self.seen = nn.Linear(embedding, units)
        self.remembered = nn.Linear(deter, units, bias=False)
        self.known_norm = nn.LayerNorm(units)
        self.known = nn.Linear(units, variables * classes)

    @property
    def features(self) -> int:
        """The width of memory and latent side by side."""
        return self.deter + self.variables * self.classes

    def advance(self, memory: Tensor, latent: Tensor, acted: Tensor) -> Tensor:
        """The next memory; acted (B, units) is self.acted(action)."""
        joint = F.silu(self.norm(acted + self.past(torch.cat([memory, latent], dim=-1))))
        advanced: Tensor = self.cell(memory, joint)
        return advanced

    def prior(self, memory: Tensor) -> Tensor:
        """Probabilities (..., variables, classes) of the latent before its frame is seen."""
        return self._probabilities(self.guess(memory))

    def posterior(self, memory: Tensor, seen: Tensor) -> Tensor:
        """The same after the frame; seen (B, units) is self.seen(embedding)."""
        return self._probabilities(self.known(F.silu(self.known_norm(seen + self.remembered(memory)))))

    def imagine(self, memory: Tensor, latent: Tensor, action: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The next memory and a latent drawn from the prior."""
        memory = self.advance(memory, latent, self.acted(action))
        return memory, pick(self.prior(memory), uniform).flatten(1)

    def ground(
        self, memory: Tensor, latent: Tensor, action: Tensor, embedding: Tensor, is_first: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next memory and a latent drawn from the posterior; before a first frame (B,) there was nothing."""
        kept = (~is_first).unsqueeze(-1).to(memory.dtype)
        memory = self.advance(memory * kept, latent * kept, self.acted(action * kept))
        return memory, pick(self.posterior(memory, self.seen(embedding)), uniform).flatten(1)

    def filter(self, embedding: Tensor, action: Tensor, uniform: Tensor) -> Filtered:
        """As ground, frame by frame over (T + 1, B, ...) whose first row is a first frame, with gradients.

        action[t] led to frame t; action[0] must be zero. What needs no memory is computed for all frames at once.
        """
        acted, seen = self.acted(action), self.seen(embedding)
        memory = embedding.new_zeros(embedding.shape[1], self.deter)
        latent = embedding.new_zeros(embedding.shape[1], self.variables * self.classes)
        memories, latents, posteriors = [], [], []
        for acted_now, seen_now, uniform_now in zip(acted.unbind(), seen.unbind(), uniform.unbind(), strict=True):
            memory = self.advance(memory, latent, acted_now)
            posterior = self.posterior(memory, seen_now)
            latent = pick_straight_through(posterior, uniform_now).flatten(1)
            memories.append(memory)
            latents.append(latent)
            posteriors.append(posterior)
        return Filtered(torch.stack(memories), torch.stack(latents), torch.stack(posteriors))

    def _probabilities(self, logits: Tensor) -> Tensor:
        return mixed(logits.view(*logits.shape[:-1], self.variables, self.classes), self.uniform_share)
