"""The family for vectors: an ensemble of probabilistic networks with learned reward, termination and doubt.

A ridge regression gives the change of the observation that is linear in observation and action; each member predicts
a Gaussian of what that leaves over. A lane keeps the member it drew at its start, so its errors are those of one
consistent model and not of a noisy average (TS-infinity). Termination is predicted from the next state alone and
sampled; how far the members disagree is the uncertainty.

Nothing here is transcendental on fewer than 16 columns: vector kernels round their scalar tail differently, and a
lane's numbers must not depend on its place in the batch. Hence output layers are padded to multiples of 16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simservice.types import Episode, WorldSpec
from simservice.worlds.circles import Circles
from simservice.worlds.codec import Codec
from simservice.worlds.nets.members import LANES, Members, padded
from simservice.worlds.starts import Starts
from simservice.worlds.world import Batch, Call, Draw, Phase, Slot, StepOut, Tensors, World

_NEVER = 1e4  # subtracted from a logit: the probability is exactly zero
_SMALLEST_SPREAD = 1e-6  # relative to a feature's size; what varies less counts as constant


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Size, bounds and schedule. The defaults fit CartPole from 2,500 steps in some 8 s on one core."""

    members: int = 5
    hidden: int = 64
    layers: int = 2
    head_hidden: int = 48  # of the networks for termination and reward
    ridge: float = 1e-6  # of the linear part, relative to features of variance 1
    log_variance_low: float = -10.0  # of what the linear part leaves over; -6 is noise that doubles the 50-step error
    log_variance_high: float = 1.0
    range_factor: float = (
        5.0  # states stay within this multiple of the data's range; below 3 real episodes were cut off
    )
    reward_range_factor: float = 1.5  # rewards stay within this multiple of the data's range
    positive_weight_limit: float = 20.0  # terminals are weighted up to this in training, and down again after it
    updates: int = 4000
    rows_per_member: int = 128
    learning_rate: float = 6e-3
    weight_decay: float = 1e-4
    evaluate_every: int = 400

    def __post_init__(self) -> None:
        if self.members < 2 or self.layers < 1:
            raise ValueError("members must be 2 or more (one cannot disagree), layers 1 or more")
        for name in ("hidden", "head_hidden"):
            if getattr(self, name) < LANES or getattr(self, name) % LANES:
                raise ValueError(f"{name} must be a multiple of {LANES}")
        if self.log_variance_low >= self.log_variance_high:
            raise ValueError("log_variance_low must be below log_variance_high")
        if self.ridge <= 0:
            raise ValueError("ridge must be above 0")
        if min(self.range_factor, self.reward_range_factor, self.positive_weight_limit) < 1:
            raise ValueError("range_factor, reward_range_factor and positive_weight_limit must be 1 or more")
        if min(self.updates, self.rows_per_member, self.evaluate_every) < 1:
            raise ValueError("updates, rows_per_member and evaluate_every must be 1 or more")


class Ensemble(World):
    """State is the observation's features and the member that imagines the lane."""

    family = "ensemble"
    Config = EnsembleConfig
    config: EnsembleConfig
    observation_mean: Tensor
    observation_scale: Tensor
    action_mean: Tensor
    action_scale: Tensor
    trend: Tensor  # (inputs, padded width): the linear part of the change
    trend_bias: Tensor  # (padded width,)
    change_scale: Tensor  # (width,) spread of what the linear part leaves over; zero where nothing is left
    reward_mean: Tensor  # ()
    reward_scale: Tensor  # () zero where the reward never varies
    reward_low: Tensor  # (2,) of steps after which the episode goes on, and of those that end it
    reward_high: Tensor
    low: Tensor
    high: Tensor
    termination_weight: Tensor  # () of terminals in the loss
    termination_shift: Tensor  # () what that weight added to the logit, as held-out episodes show
    doubt_scale: Tensor  # (padded width,) what a member's distance from the mean adds to the expected one-step NRMSE
    shown: Tensor  # (members + 1, 1, next state and inputs): what each judge sees
    scaled: Tensor  # () bool: scales are fitted; they stay when training goes on with more data

    def __init__(self, spec: WorldSpec, config: EnsembleConfig | None = None) -> None:
        capabilities = frozenset({"reward", "termination", "uncertainty", "context"})
        super().__init__(replace(spec, family=self.family, capabilities=capabilities), config or EnsembleConfig())
        self.codec = Codec(spec.observation_space, "observation")
        self.action_codec = Codec(spec.action_space, "action")
        self.start_rows = Starts(self.codec)
        self.circles = Circles(self.codec.width)
        width, actions = self.codec.width, self.action_codec.width
        members, hidden = self.config.members, [self.config.hidden] * self.config.layers
        self.dynamics = Members(members, [width + actions, *hidden, 2 * padded(width)])
        # One judge of termination beside each member, who sees the next state alone, and one of the reward, who sees
        # the whole step and answers for both outcomes. Side by side they cost little more than one of them.
        heads = [self.config.head_hidden] * self.config.layers
        self.judges = Members(members + 1, [2 * width + actions, *heads, 1 + 2])
        shown = torch.ones(members + 1, 1, 2 * width + actions)
        shown[:-1, :, width:] = 0.0
        self.register_buffer("shown", shown, persistent=False)
        for name, size in (("observation", width), ("action", actions)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.register_buffer("trend", torch.zeros(width + actions, padded(width)))
        self.register_buffer("trend_bias", torch.zeros(padded(width)))
        self.register_buffer("change_scale", torch.ones(width))
        self.register_buffer("low", torch.full((width,), -torch.inf))
        self.register_buffer("high", torch.full((width,), torch.inf))
        self.register_buffer("reward_low", torch.full((2,), -torch.inf))
        self.register_buffer("reward_high", torch.full((2,), torch.inf))
        for name in ("reward_mean", "termination_shift"):
            self.register_buffer(name, torch.zeros(()))
        for name in ("reward_scale", "termination_weight"):
            self.register_buffer(name, torch.ones(()))
        self.register_buffer("doubt_scale", torch.zeros(padded(width)))
        self.register_buffer("scaled", torch.zeros((), dtype=torch.bool))

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"features": Slot((self.codec.width,), torch.float32), "member": Slot((), torch.int64, "index")}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        member = {"member": Draw("uniform")}
        step = {"change": Draw("normal", (self.codec.width,)), "termination": Draw("uniform")}
        return {"init": {**Starts.draws, **member}, "observe": member, "step": step}

    # ---- serving -------------------------------------------------------------------------------------------------

    def init(self, draws: Tensors) -> Tensors:
        return {"features": self.start_rows(draws), "member": self._drawn_member(draws)}

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        member = torch.where(is_first, self._drawn_member(draws), state["member"])
        return {"features": self.codec.encode(observation).clone(), "member": member}

    def _drawn_member(self, draws: Tensors) -> Tensor:
        return (draws["member"] * self.config.members).long().clamp(max=self.config.members - 1)

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        now, member, width = state["features"], state["member"], self.codec.width
        inputs = torch.cat([self._normalised("observation", now), self._action(action)], dim=-1)
        predicted = self.dynamics(inputs.expand(self.config.members, -1, -1))  # (members, B, 2 * padded)
        chosen = member.view(1, -1, 1).expand(1, -1, predicted.shape[-1])
        own_mean, own_spread = predicted.gather(0, chosen)[0].chunk(2, dim=-1)
        deviation = torch.exp(0.5 * self._log_variance(own_spread.contiguous()))[:, :width]
        change = own_mean[:, :width] + deviation * draws["change"]
        free = now + self._trend(inputs) + change * self.change_scale
        # A lane that was grounded outside the range may come back, and is not thrown back.
        low, high = torch.minimum(self.low, now), torch.maximum(self.high, now)
        after = self.circles(self.codec.snap(torch.clamp(free, low, high)))
        said = self._judge(self._normalised("observation", after), inputs)
        probability = self._termination_probability(said)
        terminated = probability > draws["termination"]
        rewards = self.reward_mean + said[-1, :, 1:3] * self.reward_scale
        rewards = torch.clamp(rewards, self.reward_low, self.reward_high)
        out = StepOut(
            reward=torch.where(terminated, rewards[:, 1], rewards[:, 0]),
            terminated=terminated,
            termination_probability=probability,
            uncertainty=self._disagreement(predicted),
            aux={"clipped": (after != free).any(-1)},
        )
        return {"features": after, "member": member.clone()}, out

    def emit(self, state: Tensors) -> Tensors:
        return self.codec.decode(state["features"])

    def _normalised(self, name: str, features: Tensor) -> Tensor:
        normalised: Tensor = (features - getattr(self, f"{name}_mean")) * getattr(self, f"{name}_scale")
        return normalised

    def _action(self, action: Tensors) -> Tensor:
        return self._normalised("action", self.action_codec.encode(action))

    def _trend(self, inputs: Tensor) -> Tensor:
        """(rows, width) the linear part of the change."""
        return torch.addmm(self.trend_bias, inputs, self.trend)[:, : self.codec.width]

    def _log_variance(self, raw: Tensor) -> Tensor:
        """Between the bounds, smoothly: beyond a hard bound there would be no gradient to come back by."""
        low, high = self.config.log_variance_low, self.config.log_variance_high
        return low + (high - low) * torch.sigmoid(raw)

    def _judge(self, following: Tensor, inputs: Tensor) -> Tensor:
        """(members + 1, rows, padded): column 0 is a logit of termination; of the last, 1 and 2 are rewards without
        and with termination. Arguments are (rows, columns), or lead with the judges each is for."""
        judged: Tensor = self.judges(torch.cat([following, inputs], dim=-1) * self.shown)
        return judged

    def _termination_probability(self, said: Tensor) -> Tensor:
        probabilities = torch.sigmoid(said[:-1] - self.termination_shift)
        return probabilities.sum(0)[:, 0] * (1 / self.config.members)  # a sum takes half the time of a mean

    def _disagreement(self, predicted: Tensor) -> Tensor:
        """(B,) how far the members' means lie apart: the root of the mean over features, on a calibrated scale."""
        mean = predicted[..., : len(self.doubt_scale)]
        apart = (mean - mean.sum(0) * (1 / self.config.members)) * self.doubt_scale
        return (apart * apart).sum(0).sum(-1).sqrt()

    # ---- training ------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Scales (the first time only), bounds, starts, and how much rarer terminals are than other steps."""
        self.start_rows.fit(episodes, self.codec)
        observed = [self._features(self.codec, episode.observation) for episode in episodes]
        rows = torch.cat(observed)
        self.circles.fit(rows, self.codec.columns())
        low, high = rows.amin(0), rows.amax(0)
        room = (self.config.range_factor - 1) / 2 * (high - low)
        self.low.copy_(torch.maximum(low - room, self._bound("low")))
        self.high.copy_(torch.minimum(high + room, self._bound("high")))
        self._fit_reward_range(episodes)
        terminals = sum(episode.terminated for episode in episodes)
        others = sum(len(episode) for episode in episodes) - terminals
        weight = min(self.config.positive_weight_limit, max(1.0, others / max(terminals, 1)))
        self.termination_weight.fill_(weight)
        self.termination_shift.fill_(math.log(weight) if terminals else _NEVER)
        if self.scaled:
            return
        self._fit_scale("observation", rows)
        acted = torch.cat([self._features(self.action_codec, episode.action) for episode in episodes])
        self._fit_scale("action", acted)
        self._fit_trend(torch.cat([after[:-1] for after in observed]), acted, torch.cat([a[1:] for a in observed]))
        reward = np.concatenate([episode.reward for episode in episodes])
        varies = reward.std() > _SMALLEST_SPREAD * max(1.0, float(np.abs(reward).max()))
        self.reward_mean.fill_(float(reward.mean()))
        self.reward_scale.fill_(float(reward.std()) if varies else 0.0)
        count = (self.config.members - 1) * self.codec.width
        self.doubt_scale[: self.codec.width] = self.change_scale * self.observation_scale / math.sqrt(count)
        self.scaled.fill_(True)

    def _features(
        self, codec: Codec, leaves: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
    ) -> Tensor:
        arrays = {leaf.path: torch.from_numpy(np.ascontiguousarray(leaves[leaf.path])) for leaf in codec.leaves}
        return codec.encode(arrays).to(self.low.device)

    def _bound(self, name: str) -> Tensor:
        """(width,) what the observation space itself allows."""
        parts = []
        for part in self.codec.parts:
            limit = getattr(part.leaf.space, name, None)
            if limit is None:  # one-hots and bits
                limit = np.zeros(part.end - part.start) if name == "low" else np.ones(part.end - part.start)
            parts.append(torch.from_numpy(np.asarray(limit, dtype=np.float32).reshape(-1)))
        return torch.cat(parts).to(self.low.device)

    def _fit_reward_range(self, episodes: Sequence[Episode]) -> None:
        """Apart for steps that end an episode: a crash costs what no other step does."""
        every = np.concatenate([episode.reward for episode in episodes])
        going_on = np.concatenate([e.reward[: len(e) - e.terminated] for e in episodes])
        for column, rewards in enumerate((going_on if len(going_on) else every, every)):
            room = (self.config.reward_range_factor - 1) / 2 * np.ptp(rewards)
            self.reward_low[column] = float(rewards.min() - room)
            self.reward_high[column] = float(rewards.max() + room)

    def _fit_scale(self, name: str, rows: Tensor) -> None:
        mean, deviation = rows.double().mean(0), rows.double().std(0, unbiased=False)
        varies = deviation > _SMALLEST_SPREAD * rows.double().abs().amax(0).clamp(min=_SMALLEST_SPREAD)
        getattr(self, f"{name}_mean").copy_(mean)
        getattr(self, f"{name}_scale").copy_(torch.where(varies, 1 / deviation, torch.ones_like(deviation)))

    def _fit_trend(self, now: Tensor, acted: Tensor, then: Tensor) -> None:
        """The linear part of the change in closed form, and the spread of what it leaves over."""
        parts = [self._normalised("observation", now), self._normalised("action", acted), torch.ones_like(now[:, :1])]
        inputs, change = torch.cat(parts, dim=-1).double(), then.double() - now.double()
        penalty = self.config.ridge * len(now) * torch.eye(inputs.shape[1], dtype=torch.float64, device=now.device)
        weights = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ change)
        self.trend[:, : self.codec.width] = weights[:-1].float()
        self.trend_bias[: self.codec.width] = weights[-1].float()
        left_over = (change - inputs @ weights).std(0, unbiased=False)
        varies = left_over > _SMALLEST_SPREAD * now.double().abs().amax(0).clamp(min=_SMALLEST_SPREAD)
        self.change_scale.copy_(torch.where(varies, left_over, torch.zeros_like(left_over)))

    def phases(self) -> Sequence[Phase]:
        config = self.config
        return (
            Phase(
                name="networks",
                updates=config.updates,
                batch_size=config.members * config.rows_per_member,
                segment_length=1,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                evaluate_every=config.evaluate_every,
                groups=config.members,
            ),
        )

    def loss(self, batch: Batch, draws: Tensors, phase: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Likelihood of the change and of termination, each member on its own rows; squared error of the reward."""
        members, width = self.config.members, self.codec.width
        rows = batch.reward.numel()
        now = self._rows(self.codec, {path: leaf[:, :-1] for path, leaf in batch.observation.items()})
        then = self._rows(self.codec, {path: leaf[:, 1:] for path, leaf in batch.observation.items()})
        before, following = self._normalised("observation", now), self._normalised("observation", then)
        acted = self._normalised("action", self._rows(self.action_codec, batch.action))
        valid, ended = batch.valid.reshape(rows).float(), batch.terminated.reshape(rows).float()
        inputs = torch.cat([before, acted], dim=-1)

        predicted = self.dynamics(inputs.view(members, rows // members, -1))
        mean, raw = (part[..., :width] for part in predicted.chunk(2, dim=-1))
        log_variance = self._log_variance(raw)
        target = (then - now - self._trend(inputs)) / torch.where(self.change_scale > 0, self.change_scale, 1)
        error = mean - target.view(members, rows // members, -1)
        likelihood = (error.square() * torch.exp(-log_variance) + log_variance).mean(-1).view(rows)

        some = torch.arange(0, rows, members, device=now.device)  # the judge of reward needs no more than one member
        judged = [torch.cat([part, part[some]]).view(members + 1, rows // members, -1) for part in (following, inputs)]
        said = self._judge(*judged)
        surprise = F.binary_cross_entropy_with_logits(said[:-1, :, 0].reshape(rows), ended, reduction="none")
        surprise = surprise * torch.where(ended > 0, self.termination_weight, 1)
        wanted = (batch.reward.reshape(rows)[some] - self.reward_mean) / torch.where(
            self.reward_scale > 0, self.reward_scale, 1
        )
        missed = (torch.where(ended[some] > 0, said[-1, :, 2], said[-1, :, 1]) - wanted).square()

        parts = {
            "dynamics": members * _mean(likelihood, valid),
            "termination": members * _mean(surprise, valid),
            "reward": _mean(missed, valid[some]),
        }
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _rows(self, codec: Codec, leaves: Mapping[str, Tensor]) -> Tensor:
        """Leaves (B, T, ...) as features (B * T, width)."""
        return codec.encode({path: leaf.flatten(0, 1) for path, leaf in leaves.items()})

    @torch.no_grad()
    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """Sets the uncertainty's scale so that it is the one-step NRMSE on average, and termination's shift."""
        observed = [self._features(self.codec, episode.observation) for episode in episodes]
        now, then = torch.cat([rows[:-1] for rows in observed]), torch.cat([rows[1:] for rows in observed])
        acted = torch.cat([self._features(self.action_codec, episode.action) for episode in episodes])
        inputs = torch.cat([self._normalised("observation", now), self._normalised("action", acted)], dim=-1)
        predicted = self.dynamics(inputs.expand(self.config.members, -1, -1))
        mean = predicted.mean(0)[:, : self.codec.width]
        expectation = self.circles(now + self._trend(inputs) + mean * self.change_scale)
        error = (expectation - then) * self.observation_scale
        missed = error.square().mean(-1).sqrt().mean()
        self.doubt_scale.mul_(missed / self._disagreement(predicted).mean().clamp(min=1e-12))

        ended = [torch.arange(len(e)) == len(e) - 1 if e.terminated else torch.zeros(len(e)) > 0 for e in episodes]
        if self.termination_shift < _NEVER:
            said = self._judge(self._normalised("observation", then), inputs)
            self._fit_shift(said, torch.cat(ended).to(said.device))

    def _fit_shift(self, said: Tensor, ended: Tensor) -> None:
        """The share of log(weight) that undoes the weight best.

        All of it is right where ends are a matter of chance. Where a sharp border decides, as in CartPole, the weight
        hardly moved the networks: all of it left 75 % of the ends expected, half 100 %. So: the likeliest share given
        the held-out episodes, which may have few ends, with half as what is believed beforehand.
        """
        whole = float(self.termination_weight.log())
        costs = []
        shares = [i / 20 for i in range(21)]
        for share in shares:
            self.termination_shift.fill_(share * whole)
            probability = self._termination_probability(said).clamp(1e-7, 1 - 1e-7)
            surprise = F.binary_cross_entropy(probability, ended.float(), reduction="sum")
            costs.append(float(surprise) + 8 * (share - 0.5) ** 2)
        self.termination_shift.fill_(shares[costs.index(min(costs))] * whole)

    # ---- storage -------------------------------------------------------------------------------------------------

    def starts(self) -> Tensors:
        return self.start_rows.tensors()

    def set_starts(self, starts: Tensors) -> None:
        self.start_rows.put(starts)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum().clamp(min=1)
