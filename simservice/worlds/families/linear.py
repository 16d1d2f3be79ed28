"""The control that any learned world must beat: ridge regression of the step, closed form, no gradient.

The change of the observation is linear in observation and action. Reward is linear in their values and squares before
and after the step; termination is a logistic function of the next observation's, fitted by Newton steps and sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from simservice.types import Episode, WorldSpec
from simservice.worlds.codec import Codec
from simservice.worlds.starts import Starts
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World

_NEVER = -1e4  # a logit whose probability is exactly zero


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """How strongly the fits are held back, relative to features of variance 1, and how far a state may go."""

    ridge: float = 1e-5
    logistic_ridge: float = 1e-5
    newton_steps: int = 25
    range_factor: float = 1.5  # states are clipped to this multiple of the data's range

    def __post_init__(self) -> None:
        if self.ridge <= 0 or self.logistic_ridge <= 0 or self.newton_steps < 1 or self.range_factor < 1:
            raise ValueError("ridges must be above 0, newton_steps and range_factor 1 or more")


class Linear(World):
    """State is the observation's features; what an agent sees is exactly what the next step goes on from."""

    family = "linear"
    Config = LinearConfig
    config: LinearConfig
    observation_mean: Tensor
    observation_scale: Tensor
    action_mean: Tensor
    action_scale: Tensor
    low: Tensor
    high: Tensor
    dynamics: Tensor  # (inputs, width): change of the features by normalised observation, action and 1
    leverage: Tensor  # (inputs, inputs): |x @ leverage|² says how far an input lies outside the data
    residual: Tensor  # () one-step NRMSE on the training data
    heads: Tensor  # (features, 2): reward, termination logit

    def __init__(self, spec: WorldSpec, config: LinearConfig | None = None) -> None:
        capabilities = frozenset({"reward", "termination", "uncertainty", "context"})
        super().__init__(replace(spec, family=self.family, capabilities=capabilities), config or LinearConfig())
        self.codec = Codec(spec.observation_space, "observation")
        self.action_codec = Codec(spec.action_space, "action")
        self.start_rows = Starts(self.codec)
        width, actions = self.codec.width, self.action_codec.width
        inputs, features = width + actions + 1, 4 * width + 2 * actions + 1
        for name, shape in {
            "observation_mean": (width,),
            "action_mean": (actions,),
            "dynamics": (inputs, width),
            "leverage": (inputs, inputs),
            "residual": (),
            "heads": (features, 2),
        }.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("observation_scale", torch.ones(width))
        self.register_buffer("action_scale", torch.ones(actions))
        self.register_buffer("low", torch.full((width,), -torch.inf))
        self.register_buffer("high", torch.full((width,), torch.inf))

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"features": Slot((self.codec.width,), torch.float32)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return {"init": Starts.draws, "observe": {}, "step": {"termination": Draw("uniform")}}

    def init(self, draws: Tensors) -> Tensors:
        return {"features": self.start_rows(draws)}

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        return {"features": self.codec.encode(observation).clone()}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        now = state["features"]
        acted = (self.action_codec.encode(action) - self.action_mean) * self.action_scale
        before = (now - self.observation_mean) * self.observation_scale
        inputs = torch.cat([before, acted, torch.ones_like(acted[:, :1])], dim=-1)
        free = now + inputs @ self.dynamics
        after = self.codec.snap(torch.minimum(torch.maximum(free, self.low), self.high))
        heads = self._head_features(before, acted, after) @ self.heads
        probability = torch.sigmoid(heads[:, 1])
        distance = inputs @ self.leverage
        out = StepOut(
            reward=heads[:, 0].clone(),
            terminated=probability > draws["termination"],
            termination_probability=probability,
            uncertainty=self.residual * torch.sqrt(1 + (distance * distance).sum(-1)),
            aux={"clipped": (after != free).any(-1)},
        )
        return {"features": after}, out

    def _head_features(self, before: Tensor, acted: Tensor, after: Tensor) -> Tensor:
        following = (after - self.observation_mean) * self.observation_scale
        one = torch.ones_like(acted[:, :1])
        parts = [before, before * before, acted, acted * acted, following, following * following, one]
        return torch.cat(parts, dim=-1)

    def emit(self, state: Tensors) -> Tensors:
        return self.codec.decode(state["features"])

    # ---- fitting -------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        self.start_rows.fit(episodes, self.codec)
        observed = [_features(self.codec, episode.observation) for episode in episodes]
        now = torch.cat([rows[:-1] for rows in observed])
        then = torch.cat([rows[1:] for rows in observed])
        acted = torch.cat([_features(self.action_codec, episode.action) for episode in episodes])
        reward = torch.from_numpy(np.concatenate([episode.reward for episode in episodes])).double()
        terminated = torch.zeros(len(now), dtype=torch.float64)
        ends = torch.tensor([len(episode) for episode in episodes]).cumsum(0) - 1
        terminated[ends] = torch.tensor([float(episode.terminated) for episode in episodes], dtype=torch.float64)
        self._fit_scales(torch.cat(observed), acted)
        before = (now - self.observation_mean) * self.observation_scale
        acted = (acted - self.action_mean) * self.action_scale
        self._fit_dynamics(torch.cat([before, acted, torch.ones(len(now), 1)], dim=-1).double(), (then - now).double())
        features = self._head_features(before, acted, then).double()
        self.heads.zero_()
        self.heads[:, 0] = _ridge(features, reward[:, None], self.config.ridge)[:, 0].float()
        self._fit_termination(features, terminated)

    def _fit_scales(self, observed: Tensor, acted: Tensor) -> None:
        for name, rows in (("observation", observed), ("action", acted)):
            spread = rows.double().std(0, unbiased=False)
            getattr(self, f"{name}_mean").copy_(rows.double().mean(0))
            getattr(self, f"{name}_scale").copy_(torch.where(spread > 1e-8, 1 / spread, torch.ones_like(spread)))
        low, high = observed.amin(0), observed.amax(0)
        room = (self.config.range_factor - 1) / 2 * (high - low)
        self.low.copy_(low - room)
        self.high.copy_(high + room)

    def _fit_dynamics(self, inputs: Tensor, change: Tensor) -> None:
        weights = _ridge(inputs, change, self.config.ridge)
        self.dynamics.copy_(weights)
        error = (change - inputs @ weights) * self.observation_scale
        self.residual.copy_(error.square().mean().sqrt())
        gram = inputs.T @ inputs + self.config.ridge * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        self.leverage.copy_(torch.linalg.cholesky(torch.linalg.inv(gram)))

    def _fit_termination(self, features: Tensor, terminated: Tensor) -> None:
        """Newton's steps on the penalised log-likelihood, on what the step leads to alone."""
        used = 2 * self.codec.width + 1
        if not terminated.any():
            self.heads[-1, 1] = _NEVER
            return
        features = features[:, -used:]
        rate = terminated.mean().clamp(1e-6, 1 - 1e-6)
        weights = torch.zeros(used, dtype=torch.float64)
        weights[-1] = torch.logit(rate)
        penalty = self.config.logistic_ridge * len(features) * torch.eye(used, dtype=torch.float64)
        penalty[-1, -1] = 1e-9
        loss = _logistic_loss(weights, features, terminated, penalty)
        for _ in range(self.config.newton_steps):
            probability = torch.sigmoid(features @ weights)
            slope = features.T @ (probability - terminated) + penalty @ weights
            curve = (features * (probability * (1 - probability))[:, None]).T @ features + penalty
            stride = torch.linalg.solve(curve, slope)
            while not (lower := _logistic_loss(weights - stride, features, terminated, penalty)) <= loss:
                stride = stride / 2  # a full Newton step may overshoot where classes are far apart
                if stride.abs().max() < 1e-12:
                    break
            weights, loss = weights - stride, lower
        self.heads[-used:, 1] = weights.float()

    def starts(self) -> Tensors:
        return self.start_rows.tensors()

    def set_starts(self, starts: Tensors) -> None:
        self.start_rows.put(starts)


def _features(codec: Codec, leaves: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> Tensor:
    return codec.encode({leaf.path: torch.from_numpy(np.ascontiguousarray(leaves[leaf.path])) for leaf in codec.leaves})


def _ridge(inputs: Tensor, targets: Tensor, strength: float) -> Tensor:
    """Weights (inputs, targets) in float64; the constant, the last input, is held back as little as the rest."""
    gram = inputs.T @ inputs + strength * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(gram, inputs.T @ targets)
    return weights


def _logistic_loss(weights: Tensor, features: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    logits = features @ weights
    likelihood = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return likelihood + weights @ penalty @ weights / 2
