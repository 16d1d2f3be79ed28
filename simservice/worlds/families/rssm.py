"""The family for vectors, pictures and both with memory: a recurrent state-space model as in DreamerV3.

A lane is a deterministic memory and a drawn categorical latent; observations are decoded when they are asked for,
never by a step. Every training segment begins with a reset, as grounding in a real frame does in service: where
training and observe() differed in this, one-step errors were four times as large. Ends are predicted from the next
state, trained on true ends alone, and sampled. What separately trained heads leave open and where they disagree about
the next frame is the uncertainty; in the first step after a real frame also what of that frame the latent does not
show, beyond what is usual: garbage falls into latents that are well known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simservice.types import Episode, WorldSpec
from simservice.worlds.codec import Codec
from simservice.worlds.nets.distributions import TwoHot, divergence
from simservice.worlds.nets.members import LANES, Members, padded
from simservice.worlds.nets.perceptron import Perceptron
from simservice.worlds.nets.recurrent import RecurrentModel
from simservice.worlds.one_step import one_step_errors
from simservice.worlds.recorded import RecordedStarts
from simservice.worlds.senses import Senses
from simservice.worlds.starts import Starts
from simservice.worlds.world import Batch, Call, Draw, Phase, Slot, StepOut, Tensors, World

_LOW, _HIGH = -8.0, 2.0  # of the heads' log-variance
_APART = 4.0  # of squared disagreement beside the variance: what no head has seen must show
_USUAL = 0.99  # quantile of held-out real frames that are shown as well as frames are


@dataclass(frozen=True, kw_only=True)
class RssmConfig:
    """Size, losses and schedule. The defaults are tiny and fit CartPole from 8,000 steps on one core."""

    deter: int = 192  # of the memory
    blocks: int = 8  # of its recurrent matrices
    variables: int = 32  # categorical latents; 8 of 16 classes told a first frame with half as much error again
    classes: int = 8  # of each
    units: int = 128  # of hidden layers
    layers: int = 2  # of the vectors' encoder and decoder
    depth: int = 32  # channels of the pictures' first level
    members: int = 5  # heads that may disagree
    member_hidden: int = 64
    bins: int = 64  # of the reward
    uniform_share: float = 0.01  # of every categorical
    free_nats: float = 0.3  # divergence below this is not worked on
    dynamics_weight: float = 1.0
    representation_weight: float = 0.1
    vector_weight: float = 100.0  # of squared errors in units of the data's spread: as if 7 % of it were noise
    picture_weight: float = 1.0  # of squared errors of pixels from 0 to 1
    worst_pixel: float = 1.0  # weight of a frame's worst squared error beside the sum of all
    first_frame_weight: float = 5.0  # of what a segment's first frame alone must tell: dreams begin with one
    context_frames: int = 8  # that tell it all a context can; more are not needed, one is enough to begin
    range_factor: float = 1.5  # vectors stay within this multiple of the data's range
    updates: int = 3000
    batch_size: int = 64  # segments
    segment_length: int = 8  # steps; the more must be remembered, the longer
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    max_gradient_norm: float = 10.0
    evaluate_every: int = 500
    keep_last: bool = False  # not the weights whose forecasts are best: where luck decides, the best forecast is a blur
    bfloat16: bool = False  # matrix products of training in bfloat16, on CUDA

    def __post_init__(self) -> None:
        for name in ("deter", "units", "member_hidden"):
            if getattr(self, name) < LANES or getattr(self, name) % LANES:
                raise ValueError(f"{name} must be a multiple of {LANES}")
        if self.blocks < 1 or self.deter % self.blocks:
            raise ValueError("blocks must be 1 or more and divide deter")
        if (
            min(self.variables, self.layers, self.updates, self.batch_size, self.segment_length, self.context_frames)
            < 1
        ):
            raise ValueError(
                "variables, layers, updates, batch_size and segment_length and context_frames must be 1 or more"
            )
        if self.classes < 2 or self.members < 2 or self.bins < 2:
            raise ValueError("classes, members and bins must be 2 or more (one cannot differ)")
        if (self.variables * self.classes) % LANES or self.depth % LANES:
            raise ValueError(f"variables x classes and depth must be multiples of {LANES}")
        if not 0 < self.uniform_share < 1:
            raise ValueError("uniform_share must lie between 0 and 1: every class must stay possible")
        if self.range_factor < 1:
            raise ValueError("range_factor must be 1 or more")


class Rssm(World):
    """State is memory and latent, and the real frame that a lane was just grounded in, shown as it was given."""

    family = "rssm"
    Config = RssmConfig
    graphed_loss = True
    config: RssmConfig
    action_scale: Tensor  # (actions,)
    counted: Tensor  # (foreseen,) 1 where the next frame has something to be foretold
    doubt_scale: Tensor  # () what disagreement is multiplied by to be the expected one-step NRMSE
    usually_unseen: Tensor  # () how much of a real frame its latent may fail to show without doubt; see Senses.unseen
    scaled: Tensor  # () bool: scales are fitted; they stay when training goes on with more data

    def __init__(self, spec: WorldSpec, config: RssmConfig | None = None) -> None:
        capabilities = frozenset({"reward", "termination", "uncertainty", "context"})
        super().__init__(replace(spec, family=self.family, capabilities=capabilities), config or RssmConfig())
        c = self.config
        self.context_frames = c.context_frames
        self.action_codec = Codec(spec.action_space, "action")
        inputs = c.deter + c.variables * c.classes
        self.senses = Senses(spec, inputs=inputs, units=c.units, layers=c.layers, depth=c.depth)
        self.model = RecurrentModel(
            embedding=self.senses.embedding,
            action=self.action_codec.width,
            deter=c.deter,
            variables=c.variables,
            classes=c.classes,
            units=c.units,
            blocks=c.blocks,
            uniform_share=c.uniform_share,
        )
        self.reward = TwoHot(c.bins)
        self.outcome = Perceptron([inputs, c.units], self.reward.bins + LANES, zero=True)  # reward bins, then the end
        self.foreseen = padded(self.senses.width) + c.units * len(self.senses.pictures)
        self.judges = Members(c.members, [c.deter, c.member_hidden, 2 * self.foreseen])
        codec, leaves = self.senses.codec, self.senses.leaves
        self.start_rows: Starts | RecordedStarts = RecordedStarts(leaves) if self.senses.pictures else Starts(codec)
        # Vectors are filled up to whole lanes with what is always zero: nobody is in doubt of that.
        counted = torch.ones(self.foreseen)
        counted[self.senses.width : padded(self.senses.width)] = 0
        self.register_buffer("counted", counted, persistent=False)
        self.register_buffer("action_scale", torch.ones(self.action_codec.width))
        self.register_buffer("doubt_scale", torch.ones(()))
        self.register_buffer("usually_unseen", torch.full((), torch.inf))
        self.register_buffer("scaled", torch.zeros((), dtype=torch.bool))

    @property
    def slots(self) -> Mapping[str, Slot]:
        c = self.config
        slots = {
            "grounded": Slot((), torch.bool, "index"),
            "memory": Slot((c.deter,), torch.float32),
            "latent": Slot((c.variables * c.classes,), torch.float32),
            "unseen": Slot((), torch.float32),  # of the real frame that the lane was just given, beyond what is usual
        }
        if self.senses.width:
            slots["vector"] = Slot((self.senses.width,), torch.float32, "frame")
        slots |= {leaf.path: Slot(leaf.shape, torch.uint8, "frame") for leaf in self.senses.pictures}
        return slots

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        latent = Draw("uniform", (self.config.variables,))
        return {
            "init": {**self.start_rows.draws, "latent": latent},
            "observe": {"latent": latent},
            "step": {"latent": latent, "termination": Draw("uniform")},
        }

    # ---- serving ---------------------------------------------------------------------------------------------------

    def init(self, draws: Tensors) -> Tensors:
        uniform = draws["latent"]
        frame: Tensors = {}
        if isinstance(self.start_rows, Starts):
            features: Tensor | None = self.start_rows(draws)
        else:
            frame = self.start_rows(draws)
            features = self.senses.features(frame)
        state = {name: uniform.new_zeros((uniform.shape[0], *self.slots[name].shape)) for name in ("memory", "latent")}
        action = uniform.new_zeros((uniform.shape[0], self.action_codec.width))
        first = torch.ones_like(uniform[:, 0], dtype=torch.bool)
        return self._grounded(state, features, frame, action, first, uniform)

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        features = self.senses.features(observation)
        action = self._action(previous_action)
        after = self._grounded(state, features, observation, action, is_first, draws["latent"])
        unseen = self.senses.unseen(torch.cat([after["memory"], after["latent"]], dim=-1), features, observation)
        return {**after, "unseen": (unseen - self.usually_unseen).clamp(min=0)}

    def _grounded(
        self,
        state: Tensors,
        features: Tensor | None,
        observation: Tensors,
        action: Tensor,
        is_first: Tensor,
        uniform: Tensor,
    ) -> Tensors:
        embedding = self.senses.encode(features, observation)
        memory, latent = self.model.ground(state["memory"], state["latent"], action, embedding, is_first, uniform)
        after = {"grounded": torch.ones_like(is_first), "memory": memory, "latent": latent}
        after["unseen"] = torch.zeros_like(uniform[:, 0])
        if features is not None:
            after["vector"] = features.clone()
        return after | {leaf.path: observation[leaf.path].clone() for leaf in self.senses.pictures}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        memory, latent = self.model.imagine(state["memory"], state["latent"], self._action(action), draws["latent"])
        said = self.outcome(torch.cat([memory, latent], dim=-1))
        probability = torch.sigmoid(said[:, self.reward.bins])
        after = {"grounded": torch.zeros_like(state["grounded"]), "memory": memory, "latent": latent}
        after |= {name: torch.zeros_like(state[name]) for name in state if name not in after}
        out = StepOut(
            reward=self.reward.mean(said[:, : self.reward.bins]),
            terminated=probability > draws["termination"],
            termination_probability=probability,
            uncertainty=self._doubt(memory) * self.doubt_scale + state["unseen"],
            aux={},
        )
        return after, out

    def emit(self, state: Tensors) -> Tensors:
        inputs = torch.cat([state["memory"], state["latent"]], dim=-1)
        shown: Tensors = {}
        grounded = state["grounded"]
        if self.senses.width:
            features = torch.where(grounded.unsqueeze(-1), state["vector"], self.senses.vector(inputs))
            shown = self.senses.codec.decode(features)
        for number, leaf in enumerate(self.senses.pictures):
            mask = grounded.view(-1, *[1] * len(leaf.shape))
            shown[leaf.path] = torch.where(mask, state[leaf.path], self.senses.picture(inputs, number))
        return {leaf.path: shown[leaf.path] for leaf in self.senses.leaves}

    def _action(self, action: Tensors) -> Tensor:
        return self.action_codec.encode(action) * self.action_scale

    def _foretold(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What each head expects of the next frame and its log-variance: (members, B, foreseen) twice."""
        mean, raw = self.judges(memory.expand(self.config.members, -1, -1)).float().chunk(2, dim=-1)
        return mean, _LOW + (_HIGH - _LOW) * torch.sigmoid(raw)

    def _doubt(self, memory: Tensor) -> Tensor:
        """(B,) the spread of the next frame as the heads see it: what each leaves open, and how far they lie apart."""
        mean, log_variance = self._foretold(memory)
        apart = mean - mean.sum(0) * (1 / self.config.members)
        return ((apart * apart * _APART + log_variance.exp()).sum(0) * self.counted).sum(-1).sqrt()

    # ---- training --------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Bounds, starts and the reward's range; scales the first time only."""
        if isinstance(self.start_rows, Starts):
            self.start_rows.fit(episodes, self.senses.codec)
        else:
            self.start_rows.fit(episodes)
        self.senses.fit(episodes, self.config.range_factor, scales=not bool(self.scaled))
        rewards = np.concatenate([episode.reward for episode in episodes])
        if not self.scaled:
            self.reward.fit(float(rewards.min()), float(rewards.max()))
            acted = [self._acted(episode) for episode in episodes]
            largest = torch.cat(acted).abs().amax(0)
            self.action_scale.copy_(1 / largest.clamp(min=1e-6))
            self.scaled.fill_(True)

    def _acted(self, episode: Episode) -> Tensor:
        arrays = {path: torch.from_numpy(np.ascontiguousarray(value)) for path, value in episode.action.items()}
        return self.action_codec.encode(arrays)

    def phases(self) -> Sequence[Phase]:
        c = self.config
        return (
            Phase(
                name="model",
                updates=c.updates,
                batch_size=c.batch_size,
                segment_length=c.segment_length,
                learning_rate=c.learning_rate,
                weight_decay=c.weight_decay,
                evaluate_every=c.evaluate_every,
                keep_last=c.keep_last,
                max_gradient_norm=c.max_gradient_norm,
            ),
        )

    def loss(self, batch: Batch, draws: Tensors, phase: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction, both divergences, reward and end of DreamerV3, and the judges' forecasts."""
        device = batch.reward.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.bfloat16 and device == "cuda"):
            parts = self._losses(batch)
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        c, (lanes, steps) = self.config, batch.reward.shape
        observation = {path: leaf.transpose(0, 1).flatten(0, 1) for path, leaf in batch.observation.items()}
        features = self.senses.features(observation)
        acted = self._action({path: leaf.transpose(0, 1).flatten(0, 1) for path, leaf in batch.action.items()})
        action = torch.cat([acted.new_zeros(lanes, acted.shape[1]), acted]).view(steps + 1, lanes, -1)
        embedding = self.senses.encode(features, observation)
        uniform = torch.rand(steps + 1, lanes, c.variables, device=acted.device)
        known = self.model.filter(embedding.view(steps + 1, lanes, -1), action, uniform)

        followed = batch.valid.T.float()  # (T, B)
        seen = torch.cat([torch.ones_like(followed[:1]), followed]).flatten()
        looked = torch.cat([torch.full_like(followed[:1], c.first_frame_weight), followed]).flatten()
        prior = self.model.prior(known.memory)
        dynamics = divergence(known.posterior.detach(), prior).clamp(min=c.free_nats)
        representation = divergence(known.posterior, prior.detach()).clamp(min=c.free_nats)
        inputs = torch.cat([known.memory, known.latent], dim=-1)
        parts = {
            "dynamics": c.dynamics_weight * _mean(dynamics.flatten(), seen),
            "representation": c.representation_weight * _mean(representation.flatten(), seen),
        }
        shown = self.senses.losses(inputs.flatten(0, 1), features, observation, c.worst_pixel)
        for name, error in shown.items():
            parts[name] = (c.vector_weight if name == "vector" else c.picture_weight) * _mean(error, looked)
        said = self.outcome(inputs[1:]).float()
        surprise = F.binary_cross_entropy_with_logits(
            said[..., self.reward.bins], batch.terminated.T.float(), reduction="none"
        )
        parts["termination"] = _mean(surprise, followed)
        parts["reward"] = _mean(self.reward.loss(said[..., : self.reward.bins], batch.reward.T), followed)
        parts["judges"] = self._judged(known.memory[1:], features, embedding.view(steps + 1, lanes, -1)[1:], followed)
        return parts

    def _judged(self, memory: Tensor, features: Tensor | None, embedding: Tensor, followed: Tensor) -> Tensor:
        """Likelihood of the next frame for the heads, each on its own random weighting of the segments."""
        steps, lanes, _ = memory.shape
        target = embedding[..., embedding.shape[-1] - self.config.units * len(self.senses.pictures) :]
        if features is not None:
            vector = self.senses.squashed(features).view(steps + 1, lanes, -1)[1:]
            target = torch.cat([vector, target], dim=-1)
        target = target.detach().float().flatten(0, 1)
        mean, log_variance = self._foretold(memory.detach().flatten(0, 1))
        surprise = ((mean - target).square() * torch.exp(-log_variance) + log_variance).mean(-1)
        weight = torch.empty(self.config.members, 1, lanes, device=memory.device).exponential_()
        return self.config.members * _mean(surprise.view(-1, steps, lanes), followed * weight)

    @torch.no_grad()
    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """Sets the uncertainty's scale so that it is the one-step NRMSE on average, and what is usually unseen."""
        self.usually_unseen.fill_(torch.inf)
        missed, said = one_step_errors(self, episodes)
        self.usually_unseen.fill_(0.0)
        _, all_of_it = one_step_errors(self, episodes)
        self.usually_unseen.copy_((all_of_it - said).quantile(_USUAL))
        self.doubt_scale.mul_(missed.mean() / said.mean().clamp(min=1e-12))

    # ---- storage ---------------------------------------------------------------------------------------------------

    def starts(self) -> Tensors:
        return self.start_rows.tensors()

    def set_starts(self, starts: Tensors) -> None:
        self.start_rows.put(starts)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
