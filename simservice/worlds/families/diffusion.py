"""The family for pictures that draws every next frame out of noise: a small diffusion world after DIAMOND.

A lane keeps its last frames as bytes and what was done between them. A step draws the next frame in a few Euler steps,
snaps it to bytes, and asks a second network, which sees the frame, the next one and the action, for reward and end;
both are sampled. What the agent sees is exactly what the world goes on from.

The network also says how far off each patch of its estimate is, learned from its errors: that is the uncertainty.
Where a channel takes few values in the data, as in drawn pictures, frames are snapped to those: they do not fade.
A frame that a user gives is also held against those of the data as a whole: how strange it is counts as doubt of the
step that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simservice.types import Array, Episode, WorldSpec
from simservice.worlds.codec import Codec
from simservice.worlds.history import History, at_step, opened
from simservice.worlds.nets.denoiser import Denoiser, descend, euler, levels, sample
from simservice.worlds.nets.outcome import Outcome
from simservice.worlds.nets.unet import GROUP_CHANNELS
from simservice.worlds.palette import Palette
from simservice.worlds.pictures import Pictures, centred, snapped
from simservice.worlds.recorded_starts import RecordedStarts
from simservice.worlds.typical_frames import TypicalFrames
from simservice.worlds.world import Batch, Call, Draw, Phase, Slot, StepOut, Tensors, World

_HIGHEST_SIGMA = 20.0  # in training
_START_SHARE = 0.1  # of the training, for generated starts
_CALIBRATED_STEPS = 512
_POOLED_SIDE = 12  # errors are measured on frames of so many blocks a side, as evaluations do
_AT_ONCE = 64  # rows of a batch while calibrating


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Size, noise and schedule. The defaults fit frames of 32 x 32 in some minutes on one core."""

    context: int = 2  # frames the next one is drawn from
    channels: tuple[int, ...] = (32, 32, 64)  # of each resolution, finest first
    blocks: int = 1  # at each resolution
    patch: int = 2  # pixels a side that are folded into channels first
    attention: bool = False  # at the coarsest resolution
    condition: int = 128
    steps: int = 3  # Euler steps a frame: 1 is fastest, and blurs what is a matter of chance
    sigma_max: float = 5.0  # frames are in [-1, 1]
    sigma_min: float = 0.002
    offset_noise: float = 0.3  # shared by all pixels of a channel
    noise_mean: float = -0.4  # of the logarithm of the noise in training
    noise_deviation: float = 1.2
    share_at_max: float = 0.5  # of the training at sigma_max itself, where every frame begins
    context_noise: float = 0.05  # at most, on the context in training
    context_level: float = 0.4  # of that, which the network is told there is on frames of its own
    outcome_channels: int = 32
    outcome_hidden: int = 128
    memory: int = 0  # numbers the network of reward and end remembers; 0: frame, next frame and action say all
    memory_steps: int = 16  # it is trained over
    starts: Literal["dataset", "generated"] = "dataset"
    start_steps: int = 8  # Euler steps of a generated start
    positive_weight_limit: float = 20.0  # terminals are weighted up to this in training, and down again after it
    updates: int = 1000
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    evaluate_every: int = 250

    def __post_init__(self) -> None:
        if not self.channels or any(width < 1 or width % GROUP_CHANNELS for width in self.channels):
            raise ValueError(f"channels must be one or more multiples of {GROUP_CHANNELS}")
        for name in ("condition", "outcome_hidden", "memory"):
            if getattr(self, name) % 16:
                raise ValueError(f"{name} must be a multiple of 16")
        for name in ("context", "blocks", "patch", "steps", "start_steps", "updates", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError("sigma_min must be above 0 and below sigma_max")
        if not (0 <= self.share_at_max <= 1 and 0 <= self.context_level <= 1):
            raise ValueError("share_at_max and context_level must be in [0, 1]")
        if self.memory_steps < self.context:
            raise ValueError("memory_steps must be context or more")


class Diffusion(World):
    """State is the last frames and the actions at them, and the memory of the network of reward and end."""

    family = "diffusion"
    Config = DiffusionConfig
    config: DiffusionConfig
    action_mean: Tensor
    action_scale: Tensor
    picture_scale: Tensor  # () spread of the pooled frames in the data, in [-1, 1]
    doubt_scale: Tensor  # () from the error that the network expects of its estimate to the one-step NRMSE

    def __init__(self, spec: WorldSpec, config: DiffusionConfig | None = None) -> None:
        capabilities = frozenset({"reward", "termination", "uncertainty", "context"})
        super().__init__(replace(spec, family=self.family, capabilities=capabilities), config or DiffusionConfig())
        config = self.config
        self.context_frames = config.context
        self.pictures = Pictures(spec.observation_space, "observation")
        self.palette = Palette(self.pictures.shape[0])
        self.typical = TypicalFrames(*self.pictures.shape)
        self.action_codec = Codec(spec.action_space, "action")
        self.start_frames = RecordedStarts(spec.observation_space)
        self.denoiser = Denoiser(
            self.pictures.shape,
            config.context,
            config.context * (self.action_codec.width + 1),
            channels=config.channels,
            blocks=config.blocks,
            patch=config.patch,
            attention=config.attention,
            condition=config.condition,
            offset_noise=config.offset_noise,
        )
        self.outcome = Outcome(
            self.pictures.shape,
            self.action_codec.width,
            channels=config.outcome_channels,
            hidden=config.outcome_hidden,
            memory=config.memory,
            patch=config.patch,
            weight_limit=config.positive_weight_limit,
        )
        self.schedule = levels(config.steps, highest=config.sigma_max, lowest=config.sigma_min)
        self.start_schedule = levels(config.start_steps, highest=config.sigma_max, lowest=config.sigma_min)
        self.register_buffer("action_mean", torch.zeros(self.action_codec.width))
        self.register_buffer("action_scale", torch.ones(self.action_codec.width))
        self.register_buffer("picture_scale", torch.ones(()))
        self.register_buffer("doubt_scale", torch.zeros(()))

    @property
    def slots(self) -> Mapping[str, Slot]:
        config = self.config
        slots = {
            "frames": Slot((config.context, *self.pictures.shape), torch.uint8, "frame"),
            "acted": Slot((config.context, self.action_codec.width + 1), torch.float32),
            "strange": Slot((), torch.float32),  # what the lane was shown since its last step; see TypicalFrames
        }
        return slots | ({"memory": Slot((config.memory,), torch.float32)} if config.memory else {})

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        noise = {"noise": Draw("normal", self.pictures.shape)}
        step = {**noise, "termination": Draw("uniform"), "reward": Draw("uniform")}
        generated = self.config.starts == "generated"
        return {"init": noise if generated else RecordedStarts.draws, "observe": {}, "step": step}

    # ---- serving -------------------------------------------------------------------------------------------------

    def init(self, draws: Tensors) -> Tensors:
        if self.config.starts == "dataset":
            return self._opened(self.pictures.bytes_of(self.start_frames(draws)[self.pictures.path]))
        noise, colours = draws["noise"], self.pictures.shape[0]
        before = noise.new_zeros(len(noise), self.config.context * colours, *noise.shape[2:])
        acted = noise.new_zeros(len(noise), self.config.context * (self.action_codec.width + 1))
        level = noise.new_zeros(len(noise))
        drawn = sample(self.denoiser, noise, self.start_schedule, before, acted, level)
        return self._opened(self.palette(snapped(drawn)))

    def _opened(self, frame: Tensor) -> Tensors:
        """Rows that have seen one frame and nothing else."""
        memory = torch.zeros(len(frame), self.config.memory, device=frame.device)
        return self._state(opened(frame, self.config.context, self.action_codec.width), memory)

    def _state(self, history: History, memory: Tensor) -> Tensors:
        strange = torch.zeros(len(memory), device=memory.device)
        return {**history._asdict(), "strange": strange, **({"memory": memory} if self.config.memory else {})}

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        frame, action = self.pictures.bytes_of(observation[self.pictures.path]), self._action(previous_action)
        memory = self._memory(state)
        if self.config.memory:
            _, memory = self.outcome(centred(state["frames"][:, -1]), centred(frame), action, memory)
        continued = self._state(_history(state).done(action).seen(frame), memory)
        started = self._opened(frame)
        strange = self.typical(centred(frame))
        continued["strange"], started["strange"] = torch.maximum(state["strange"], strange), strange
        return {
            name: torch.where(is_first.view(-1, *[1] * (value.ndim - 1)), started[name], value)
            for name, value in continued.items()
        }

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        done = self._action(action)
        history = _history(state).done(done)
        drawn, doubt = self._draw(history, draws["noise"])
        frame = self.palette(snapped(drawn))
        answer, memory = self.outcome(centred(state["frames"][:, -1]), centred(frame), done, self._memory(state))
        probability = self.outcome.end_probability(answer)
        terminated = probability > draws["termination"]
        out = StepOut(
            reward=self.outcome.reward(answer, terminated, draws["reward"]),
            terminated=terminated,
            termination_probability=probability,
            uncertainty=doubt + state["strange"],
            aux={},
        )
        return self._state(history.seen(frame), memory), out

    def _memory(self, state: Tensors) -> Tensor:
        return state["memory"] if self.config.memory else state["acted"][:, 0, :0]

    def _draw(self, given: History, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The next frame in [-1, 1], not snapped, and the calibrated doubt (B,)."""
        before, acted = centred(given.frames).flatten(1, 2), given.acted.flatten(1)
        level = torch.full_like(acted[:, 0], self.config.context_level)
        sigma = self.schedule[0]
        noisy = noise * sigma
        estimate, error = self.denoiser.judged(noisy, torch.full_like(level, sigma), before, acted, level)
        first = euler(noisy, estimate, sigma, self.schedule[1])
        drawn = descend(self.denoiser, first, self.schedule[1:], before, acted, level)
        return drawn, error.sqrt() * self.doubt_scale

    def emit(self, state: Tensors) -> Tensors:
        return {self.pictures.path: self.pictures.frames_of(state["frames"][:, -1])}

    def _action(self, action: Tensors) -> Tensor:
        """(B, actions) float32, of unit spread."""
        return (self.action_codec.encode(action) - self.action_mean) * self.action_scale

    # ---- training ------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Starts, palette, scales of pixels, actions and rewards; how much rarer terminals are than other steps."""
        self.start_frames.fit(episodes)
        self.palette.fit(self._frames(episode.observation) for episode in episodes)
        count = sum(len(episode) + 1 for episode in episodes)
        self.typical.fit((centred(self._frames(episode.observation)) for episode in episodes), count)
        frames = [self._frames(episode.observation)[:: max(1, len(episode) // 32)] for episode in episodes]
        pooled = F.adaptive_avg_pool2d(centred(torch.cat(frames)), _POOLED_SIDE)
        spread = pooled.var(0, unbiased=False).mean().sqrt()
        self.picture_scale.fill_(max(float(spread), 1e-3))
        if self.action_codec.is_continuous:
            actions = [_tensors(episode.action, self.doubt_scale.device) for episode in episodes]
            acted = torch.cat([self.action_codec.encode(action) for action in actions]).double()
            deviation = acted.std(0, unbiased=False)
            self.action_mean.copy_(acted.mean(0))
            self.action_scale.copy_(torch.where(deviation > 1e-6, 1 / deviation, torch.ones_like(deviation)))
        self.outcome.prepare(episodes)

    def phases(self) -> Sequence[Phase]:
        config = self.config
        return (
            Phase(
                name="frames",
                updates=config.updates,
                batch_size=config.batch_size,
                segment_length=config.memory_steps if config.memory else 2 * config.context,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                evaluate_every=config.evaluate_every,
                warm_up=50,
                max_gradient_norm=1.0,
                keep_last=True,  # where luck decides, the best forecast is a blur: it would choose the least trained
            ),
        )

    def loss(self, batch: Batch, draws: Tensors, phase: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted error of the frame without its noise, the surprise at the end, and the error of the reward.

        One step of every segment is drawn, so contexts that are still filling up are seen as often as in serving.
        """
        frames = self.pictures.bytes_of(batch.observation[self.pictures.path])  # (B, T + 1, channels, ...)
        acted = self._acted_over_time(batch.action)
        rows = torch.arange(len(frames), device=frames.device)
        step = (torch.rand(len(frames), device=frames.device) * batch.valid.sum(1)).long()
        missed, misjudged = self._frame_miss(self._given(frames, acted, step), centred(frames[rows, step + 1]))
        end, reward = self.outcome.segment_miss(frames, acted, batch, step)
        parts = {"frame": missed.mean(), "doubt": misjudged.mean(), "termination": end, "reward": reward}
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _acted_over_time(self, action: Tensors) -> Tensor:
        """(B, T, actions) of leaves (B, T, ...)."""
        batch, time = next(iter(action.values())).shape[:2]
        return self._action({path: leaf.flatten(0, 1) for path, leaf in action.items()}).view(batch, time, -1)

    def _given(self, frames: Tensor, acted: Tensor, step: Tensor) -> History:
        return at_step(frames, acted, step, self.config.context)

    def _frame_miss(self, given: History, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) the denoiser's losses at random levels of noise, on a context that has some noise itself."""
        config, batch = self.config, len(clean)
        sigma = torch.exp(config.noise_mean + config.noise_deviation * torch.randn(batch, device=clean.device))
        sigma = sigma.clamp(config.sigma_min, _HIGHEST_SIGMA)
        at_max = torch.rand(batch, device=clean.device) < config.share_at_max
        sigma = torch.where(at_max, config.sigma_max, sigma)
        level = torch.rand(batch, device=clean.device)
        before, acted = centred(given.frames), given.acted
        before = before + torch.randn_like(before) * (level * config.context_noise)[:, None, None, None, None]
        if config.starts == "generated":  # some frames are those of an episode's start, drawn from nothing
            some = torch.rand(batch, device=clean.device) < _START_SHARE
            start = self.start_frames({"start": torch.rand(batch, device=clean.device)})[self.pictures.path]
            clean = torch.where(some[:, None, None, None], centred(self.pictures.bytes_of(start)), clean)
            before = torch.where(some[:, None, None, None, None], 0.0, before)
            acted, level = torch.where(some[:, None, None], 0.0, acted), torch.where(some, 0.0, level)
        return self.denoiser.miss(clean, sigma, before.flatten(1, 2), acted.flatten(1), level)

    @torch.no_grad()
    def monitors(self, batch: Batch) -> dict[str, float]:
        """How much larger the frame's loss is under actions dealt out anew: near 1 the world ignores what is done."""
        frames = self.pictures.bytes_of(batch.observation[self.pictures.path])
        acted = self._acted_over_time(batch.action)
        rows, step = torch.arange(len(frames), device=frames.device), batch.valid.sum(1) - 1
        given, clean = self._given(frames, acted, step), centred(frames[rows, step + 1])
        dealt = given.acted.clone()
        dealt[:, -1, :-1] = dealt[torch.randperm(len(frames), device=frames.device), -1, :-1]
        losses = []
        for condition in (given, History(given.frames, dealt)):  # the same noise for both
            with torch.random.fork_rng(devices=[] if frames.device.type == "cpu" else [frames.device]):
                torch.manual_seed(0)
                losses.append(float(self._frame_miss(condition, clean)[0].mean()))
        return {"action_shuffle_ratio": losses[1] / max(losses[0], 1e-12)}

    @torch.no_grad()
    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """Sets the uncertainty's scale so that it is the one-step NRMSE on average, the end's shift, what is usual."""
        doubts, misses, ends, ended = [], [], [], []
        generator = torch.Generator().manual_seed(0)
        self.doubt_scale.fill_(1.0)
        for given, clean, last in self._transitions(episodes):
            noise = torch.randn(clean.shape, generator=generator).to(clean.device)
            drawn, doubt = self._draw(given, noise)
            doubts.append(doubt)
            # Before the palette, which may leave no error on these steps: elsewhere the world must doubt all the same.
            misses.append(_pooled(centred(snapped(drawn)) - clean) / self.picture_scale)
            memory = clean.new_zeros(len(clean), self.config.memory)
            answer, _ = self.outcome(centred(given.frames[:, -1]), clean, given.acted[:, -1, :-1], memory)
            ends.append(answer.end)
            ended.append(last)
        self.doubt_scale.fill_(float(torch.cat(misses).mean() / torch.cat(doubts).mean().clamp(min=1e-6)))
        self.outcome.fit_shift(torch.cat(ends), torch.cat(ended))
        self.typical.allow(centred(self._frames(episode.observation)) for episode in episodes)

    def _transitions(self, episodes: Sequence[Episode]) -> Iterator[tuple[History, Tensor, Tensor]]:
        """Steps of the episodes with what was known at each, the frame that came, and whether it ended the episode."""
        device = self.doubt_scale.device
        stride = max(1, sum(len(episode) for episode in episodes) // _CALIBRATED_STEPS)
        for episode in episodes:
            frames = self._frames(episode.observation)[None]
            acted = self._acted_over_time({path: leaf[None] for path, leaf in _tensors(episode.action, device).items()})
            for part in torch.split(torch.arange(0, len(episode), stride, device=device), _AT_ONCE):
                given = self._given(frames.expand(len(part), *frames.shape[1:]), acted.expand(len(part), -1, -1), part)
                ended = (part == len(episode) - 1) & episode.terminated
                yield given, centred(frames[0, part + 1]), ended

    def _frames(self, observation: Mapping[str, Array]) -> Tensor:
        """(rows, channels, height, width) uint8 of recorded frames."""
        frame = torch.from_numpy(np.ascontiguousarray(observation[self.pictures.path]))
        return self.pictures.bytes_of(frame.to(self.doubt_scale.device))

    # ---- storage -------------------------------------------------------------------------------------------------

    def starts(self) -> Tensors:
        return self.start_frames.tensors()

    def set_starts(self, starts: Tensors) -> None:
        self.start_frames.put(starts)


def _history(state: Tensors) -> History:
    return History(state["frames"], state["acted"])


def _pooled(difference: Tensor) -> Tensor:
    """(B,) the size of differences of frames, in blocks: a shift by less than one counts little."""
    return F.adaptive_avg_pool2d(difference, _POOLED_SIDE).flatten(1).square().mean(-1).sqrt()


def _tensors(leaves: Mapping[str, Array], device: torch.device) -> Tensors:
    return {path: torch.from_numpy(np.ascontiguousarray(leaf)).to(device) for path, leaf in leaves.items()}
