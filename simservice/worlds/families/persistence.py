"""The control that predicts nothing: the observation stays, the reward is the data's mean, ends come at its base rate.

A world that is no better than this has learned nothing of the dynamics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from simservice.errors import InvalidInput
from simservice.types import Episode, WorldSpec, leaves_of
from simservice.worlds.codec import Codec, torch_dtype
from simservice.worlds.recorded_starts import RecordedStarts
from simservice.worlds.starts import Starts
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World


@dataclass(frozen=True, kw_only=True)
class PersistenceConfig:
    """There is nothing to choose."""


class Persistence(World):
    """State is the observation itself, leaf by leaf."""

    family = "persistence"
    Config = PersistenceConfig
    reward_mean: Tensor
    termination_rate: Tensor

    def __init__(self, spec: WorldSpec, config: PersistenceConfig | None = None) -> None:
        capabilities = frozenset({"reward", "termination", "context"})
        super().__init__(replace(spec, family=self.family, capabilities=capabilities), config or PersistenceConfig())
        self.leaves = leaves_of(spec.observation_space, "observation")
        leaves_of(spec.action_space, "action")  # refuses what no world takes
        self.codec = _vectors(spec)
        self.start_rows = Starts(self.codec) if self.codec is not None else RecordedStarts(spec.observation_space)
        self.register_buffer("reward_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("termination_rate", torch.zeros(()))

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {leaf.path: Slot(leaf.shape, torch_dtype(leaf.dtype), "frame") for leaf in self.leaves}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return {"init": self.start_rows.draws, "observe": {}, "step": {"termination": Draw("uniform")}}

    def init(self, draws: Tensors) -> Tensors:
        rows = self.start_rows(draws)
        if self.codec is None:
            return {leaf.path: rows[leaf.path] for leaf in self.leaves}
        return self.codec.decode(rows)

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        return {path: observation[path].clone() for path in state}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        uniform = draws["termination"]
        probability = self.termination_rate.expand(uniform.shape[0]).clone()
        out = StepOut(
            reward=self.reward_mean.expand(uniform.shape[0]).clone(),
            terminated=probability > uniform,
            termination_probability=probability,
            uncertainty=torch.full_like(uniform, torch.nan),
            aux={},
        )
        return {path: leaf.clone() for path, leaf in state.items()}, out

    def emit(self, state: Tensors) -> Tensors:
        return {path: leaf.clone() for path, leaf in state.items()}

    def prepare(self, episodes: Sequence[Episode]) -> None:
        if isinstance(self.start_rows, Starts):
            assert self.codec is not None
            self.start_rows.fit(episodes, self.codec)
        else:
            self.start_rows.fit(episodes)
        self.reward_mean.fill_(float(np.concatenate([episode.reward for episode in episodes]).mean()))
        terminated = sum(episode.terminated for episode in episodes)
        self.termination_rate.fill_(terminated / sum(len(episode) for episode in episodes))

    def starts(self) -> Tensors:
        return self.start_rows.tensors()

    def set_starts(self, starts: Tensors) -> None:
        self.start_rows.put(starts)


def _vectors(spec: WorldSpec) -> Codec | None:
    """The observation as features, or None for pictures and what else is too wide: those keep their leaves."""
    try:
        return Codec(spec.observation_space, "observation")
    except InvalidInput:
        return None
