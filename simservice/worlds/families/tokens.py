"""The family for pictures that are made of few things: a frozen tokenizer and a transformer over frames of tokens.

A picture becomes a grid of codes, patch by patch; a transformer says what the codes of the next frame are, given the
frames so far and an action, and reads reward and end from the frame that it drew (van den Oord et al. 2017 for the
codes; Micheli et al. 2022, IRIS, for the world). A lane keeps its last frames' codes and actions; what the transformer
remembers of them is a cache, which rebuild makes again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.types import Episode, WorldSpec
from simservice.worlds.codec import Codec
from simservice.worlds.nets.members import padded
from simservice.worlds.nets.next_frame import TEMPERATURES, Grid, NextFrame, best_sampling
from simservice.worlds.nets.quantize import Codebook, FiniteScalar
from simservice.worlds.nets.reward_values import RewardValues
from simservice.worlds.nets.tokenizer import Tokenizer
from simservice.worlds.one_step import one_step_errors
from simservice.worlds.pictures import Pictures, patch_side
from simservice.worlds.recorded_starts import RecordedStarts
from simservice.worlds.world import Batch, Call, Draw, Phase, Slot, StepOut, Tensors, World

TOKENIZER, DYNAMICS = "tokenizer", "dynamics"
_START_ROWS = 16  # recorded first frames in the loss of an update
_CALIBRATED = 2**24  # logits that the choice of a temperature looks at


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """Size and schedule. The defaults fit pictures of 32 x 32 pixels in some minutes on one core."""

    patch: int | None = None  # pixels a side; None: a common divisor of the picture's sides near 8
    quantizer: Literal["fsq", "vq"] = "vq"  # fsq: two patches that are rare can share a code for good
    levels: tuple[int, ...] = (8, 8, 6)  # fsq: the codes are all combinations, here 384
    codes: int = 512  # vq
    code_width: int = 16  # vq
    depth: int = 1  # codes for each patch
    tokenizer_hidden: int = 128
    emphasis: float = 10.0  # on pixels that differ from the mean picture
    worst_pixel: float = 0.05
    window: int = 4  # frames that a token remembers in each layer
    width: int = 128
    heads: int = 4
    layers: int = 2
    decoder_layers: int = 2
    dropout: float = 0.1
    decoding: Literal["autoregressive", "parallel"] = "autoregressive"
    passes: int = 1  # parallel: in how many a frame is drawn
    starts: Literal["imagined", "recorded"] = "recorded"  # imagined: drawn by the world, some kinds too rarely
    temperature: float | None = None  # None: chosen on held-out episodes
    reward_values: int = 32
    tokenizer_updates: int = 1500
    tokenizer_batch: int = 32
    tokenizer_learning_rate: float = 3e-3
    updates: int = 1500
    batch: int = 32
    segment: int = 4  # steps
    learning_rate: float = 1e-3
    warm_up: int = 50  # updates
    weight_decay: float = 0.01
    evaluate_every: int = 500

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 16:
            raise ValueError("width must be a multiple of heads and of 16")
        for name in ("depth", "window", "layers", "decoder_layers", "passes", "segment"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if self.patch is not None and self.patch < 1:
            raise ValueError("patch must be 1 or more")
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError("temperature must be above 0")
        if max(math.prod(self.levels), self.codes) > 2**15:
            raise ValueError("there can be up to 32768 codes")


class Tokens(World):
    """State is the last frames as codes, the actions before them, and what the transformer remembers of both."""

    family = "tokens"
    Config = TokensConfig
    config: TokensConfig
    action_mean: Tensor
    action_scale: Tensor
    doubt: Tensor  # (2,) uncertainty is the first plus the second times all that is surprising

    def __init__(self, spec: WorldSpec, config: TokensConfig | None = None) -> None:
        config = config or TokensConfig()
        capabilities = frozenset({"reward", "termination", "uncertainty", "context"})
        super().__init__(replace(spec, family=self.family, capabilities=capabilities), config)
        self.pictures = Pictures(spec.observation_space, "observation")
        patch = patch_side(self.pictures, config.patch)
        self.action_codec = Codec(spec.action_space, "action")
        book = config.quantizer == "vq"
        quantizer = Codebook(config.codes, config.code_width) if book else FiniteScalar(config.levels)
        self.tokenizer = Tokenizer(self.pictures.shape, patch, quantizer, config.depth, config.tokenizer_hidden)
        self.dynamics = NextFrame(
            Grid(self.tokenizer.rows, self.tokenizer.columns, config.depth),
            quantizer.size,
            self.tokenizer.pixels,
            self.action_codec.width,
            decoding=config.decoding,
            passes=config.passes,
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            decoder_layers=config.decoder_layers,
            window=config.window,
            dropout=config.dropout,
        )
        self.context_frames = config.window
        self.recorded = RecordedStarts(spec.observation_space)
        self.rewards = RewardValues(config.reward_values)
        self.outcome = nn.Sequential(  # a logit of termination; the reward if it goes on, and if it ends
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            nn.Linear(config.width, padded(1 + 2 * config.reward_values)),
        )
        self.register_buffer("action_mean", torch.zeros(self.action_codec.width))
        self.register_buffer("action_scale", torch.ones(self.action_codec.width))
        self.register_buffer("doubt", torch.tensor([0.0, 1.0]))

    @property
    def slots(self) -> Mapping[str, Slot]:
        tokens, memory = self.tokenizer.tokens, self.dynamics.frames.memory()
        rings = self.dynamics.frames.ring_shape(self.tokenizer.count + 1)
        return {
            "codes": Slot((memory, tokens), torch.int16),
            "actions": Slot((memory, self.action_codec.width), torch.float32),
            "frames": Slot((), torch.int64, "index"),
            "residual": Slot((), torch.float32),  # of the last real frame; see Tokenizer
            "rings": Slot(rings, torch.float32, "kv"),
            "meaning": Slot((self.tokenizer.count + 1, self.config.width), torch.float32, "kv"),
        }

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        step = {**self.dynamics.draws, "termination": Draw("uniform")}
        init = RecordedStarts.draws if self.config.starts == "recorded" else self.dynamics.start_draws
        return {"init": init, "observe": {}, "step": step}

    # ---- serving -------------------------------------------------------------------------------------------------

    def init(self, draws: Tensors) -> Tensors:
        if self.config.starts == "recorded":
            code = self._encoded(self.recorded(draws)[self.pictures.path])
        else:
            code = self.dynamics.sample_start(draws).code
        state = self.allocate(len(code), code.device)
        return self._append(state, code, state["actions"][:, -1])

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        kept = {
            name: torch.where(is_first.view(-1, *[1] * (value.ndim - 1)), torch.zeros_like(value), value)
            for name, value in state.items()
        }
        action = torch.where(is_first[:, None], torch.zeros_like(self.action_mean), self._action(previous_action))
        pictures = self._seen(observation[self.pictures.path])
        code = self.tokenizer.encode(pictures)
        return {**self._append(kept, code, action), "residual": self.tokenizer.residual(pictures, code)}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        acted = self._action(action)
        context = self.dynamics.context(state["meaning"], acted)
        drawn = self.dynamics.sample(context, draws)
        after = self._append(state, drawn.code, acted)
        probability, rewards = self._outcome(after["meaning"][:, 0])
        terminated = probability > draws["termination"]
        unseen = self.dynamics.unseen(state["codes"][:, -1].long()) + self.dynamics.unseen(drawn.code)
        out = StepOut(
            reward=torch.where(terminated, rewards[1], rewards[0]),
            terminated=terminated,
            termination_probability=probability,
            uncertainty=self.doubt[0] + self.doubt[1] * (drawn.surprise + unseen + state["residual"]),
            aux={"surprise": drawn.surprise, "unseen": unseen, "residual": state["residual"].clone()},
        )
        return after, out

    def rebuild(self, state: Tensors) -> Tensors:
        """Shows the transformer the frames again that its caches depend on, one by one, as they came."""
        rings, meaning = torch.zeros_like(state["rings"]), torch.zeros_like(state["meaning"])
        memory = state["codes"].shape[1]
        for place in range(memory):
            frame = state["frames"] - memory + place
            there = frame >= 0
            meaning, rings = self._meaning(
                state["codes"][:, place].long(), state["actions"][:, place], rings, frame.clamp(min=0), there
            )
        there = (state["frames"] > 0).view(-1, 1, 1)
        kept = {name: state[name].clone() for name in ("codes", "actions", "frames", "residual")}
        return {**kept, "rings": rings, "meaning": torch.where(there, meaning, torch.zeros_like(meaning))}

    def emit(self, state: Tensors) -> Tensors:
        shown = (self.tokenizer.decode(state["codes"][:, -1].long()).clamp(0, 1) * 255).round().to(torch.uint8)
        return {self.pictures.path: self.pictures.frames_of(shown)}

    def _append(self, state: Tensors, code: Tensor, action: Tensor) -> Tensors:
        """The state with one frame more: the same for imagined and for real ones."""
        meaning, rings = self._meaning(
            code, action, state["rings"], state["frames"], torch.ones_like(state["frames"], dtype=torch.bool)
        )
        return {
            "codes": torch.cat([state["codes"][:, 1:], code.to(torch.int16).unsqueeze(1)], dim=1),
            "actions": torch.cat([state["actions"][:, 1:], action.unsqueeze(1)], dim=1),
            "frames": state["frames"] + 1,
            "residual": state["residual"].clone(),
            "rings": rings,
            "meaning": meaning,
        }

    def _meaning(
        self, code: Tensor, action: Tensor, rings: Tensor, frame: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        embedded = self.dynamics.embed(code, action, frame == 0)
        return self.dynamics.frames.append(embedded, rings, frame, counts)

    def _outcome(self, summary: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Termination's probability (B,) and the reward (B,) if it goes on and if it ends, of summaries (B, width)."""
        said = self.outcome(summary)
        size = self.config.reward_values
        going, ending = (self.rewards.expected(said[:, 1 + i * size : 1 + (i + 1) * size]) for i in range(2))
        return torch.sigmoid(said)[:, 0].contiguous(), (going, ending)

    def _encoded(self, values: Tensor) -> Tensor:
        return self.tokenizer.encode(self._seen(values))

    def _seen(self, values: Tensor) -> Tensor:
        """Observations (..., *shape of the space) as (..., channels, height, width) float32 in [0, 1]."""
        return self.pictures.bytes_of(values).float() * (1 / 255)

    def _action(self, action: Tensors) -> Tensor:
        features: Tensor = (self.action_codec.encode(action) - self.action_mean) * self.action_scale
        return features

    # ---- training ------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Takes first frames, the mean picture, the values of rewards and the scale of actions."""
        self.recorded.fit(episodes)
        frames = (torch.from_numpy(episode.observation[self.pictures.path]) for episode in episodes)
        self.tokenizer.fit(self._seen(rows) for rows in frames)
        self.rewards.fit(np.concatenate([episode.reward for episode in episodes]))
        taken = ({path: torch.from_numpy(rows) for path, rows in episode.action.items()} for episode in episodes)
        acted = torch.cat([self.action_codec.encode(action) for action in taken])
        deviation = acted.std(0, unbiased=False)
        self.action_mean.copy_(acted.mean(0))
        self.action_scale.copy_(torch.where(deviation > 1e-6, 1 / deviation, torch.ones_like(deviation)))

    def phases(self) -> Sequence[Phase]:
        config = self.config
        return (
            Phase(
                name=TOKENIZER,
                updates=config.tokenizer_updates,
                batch_size=config.tokenizer_batch,
                segment_length=1,
                learning_rate=config.tokenizer_learning_rate,
                evaluate_every=config.evaluate_every,
                open_loop=False,
            ),
            Phase(
                name=DYNAMICS,
                updates=config.updates,
                batch_size=config.batch,
                segment_length=config.segment,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                warm_up=config.warm_up,
                evaluate_every=config.evaluate_every,
                max_gradient_norm=1.0,
            ),
        )

    def loss(self, batch: Batch, draws: Tensors, phase: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the tokenizer alone; then, with the tokenizer frozen, the surprise at tokens, rewards and ends."""
        pictures = batch.observation[self.pictures.path]
        if phase == TOKENIZER:
            flat = self._seen(pictures.flatten(0, 1))
            return self.tokenizer.loss(flat, self.config.worst_pixel, self.config.emphasis)
        code, action = self._frozen_codes(pictures), self._actions(batch)
        self.dynamics.note(code, self.tokenizer.patches())
        meaning = self._meanings(code, action, batch.is_first)
        tokens = self._token_surprise(code, action, meaning)
        said = self.outcome(meaning[:, 1:, 0])
        valid = batch.valid.float()
        ends = F.binary_cross_entropy_with_logits(said[..., 0], batch.terminated.float(), reduction="none")
        parts = {
            "tokens": _mean(tokens, valid),
            "termination": _mean(ends, valid),
            "reward": _mean(self._reward_surprise(said, batch), valid),
            "starts": self._start_surprise(),
        }
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def _frozen_codes(self, pictures: Tensor) -> Tensor:
        """(B, T + 1, tokens)."""
        self.tokenizer.eval()
        return self._encoded(pictures.flatten(0, 1)).view(*pictures.shape[:2], -1)

    def _actions(self, batch: Batch) -> Tensor:
        """(B, T, features)."""
        flat = {path: values.flatten(0, 1) for path, values in batch.action.items()}
        return self._action(flat).view(*batch.reward.shape, -1)

    def _meanings(self, code: Tensor, action: Tensor, is_first: Tensor) -> Tensor:
        """(B, T + 1, patches + 1, width)."""
        before = torch.cat([torch.zeros_like(action[:, :1]), action], dim=1)
        found: Tensor = self.dynamics.frames(self.dynamics.embed(code, before, is_first))
        return found

    def _token_surprise(self, code: Tensor, action: Tensor, meaning: Tensor) -> Tensor:
        """(B, T) of whole frames: the sum over their tokens."""
        wanted = code[:, 1:].flatten(0, 1)
        context = self.dynamics.context(meaning[:, :-1].flatten(0, 1), action.flatten(0, 1))
        return self.dynamics.surprise(context, wanted).view(action.shape[:2])

    def _start_surprise(self) -> Tensor:
        """() of recorded first frames."""
        frames = self.recorded({"start": torch.rand(_START_ROWS, device=self.doubt.device)})[self.pictures.path]
        code = self._frozen_codes(frames.unsqueeze(1))[:, 0]
        return self.dynamics.start_surprise(code).mean()

    def _reward_surprise(self, said: Tensor, batch: Batch) -> Tensor:
        """(B, T)."""
        size = self.config.reward_values
        going, ending = said[..., 1 : 1 + size], said[..., 1 + size : 1 + 2 * size]
        return self.rewards.surprise(torch.where(batch.terminated.unsqueeze(-1), ending, going), batch.reward)

    # ---- calibration ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """Chooses how tokens are drawn, and sets the uncertainty to the size of the one-step NRMSE."""
        logits, code = self._guesses(episodes)
        given = self.config.temperature
        self.dynamics.following.copy_(best_sampling(logits, code, TEMPERATURES if given is None else (given,)))
        frames = np.stack([episode.observation[self.pictures.path][:1] for episode in episodes])
        code = self._frozen_codes(torch.from_numpy(frames).to(self.doubt.device))[:, 0]
        logits = self.dynamics.start_logits(code)
        self.dynamics.beginning.copy_(best_sampling(logits.flatten(0, 1), code.flatten(), (1.0,)))
        self.doubt.copy_(torch.tensor([0.0, 1.0]))
        missed, surprise = one_step_errors(self, episodes)
        # One unit at the least for a frame whose tokens could as well be any: a perfect world, too, has to say so.
        slope = max(_slope(surprise, missed), 1 / math.log(self.dynamics.codes))
        level = float(missed.mean()) - slope * float(surprise.mean())
        self.doubt.copy_(torch.tensor([max(level, 0.0), slope]))

    def _guesses(self, episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
        """Logits (n, codes) of recorded tokens, each given all that was before it, and the tokens (n,)."""
        logits, codes, left = [], [], _CALIBRATED
        for episode in episodes:
            length = min(len(episode), 2 * self.config.window)
            frames = torch.from_numpy(episode.observation[self.pictures.path][None, : length + 1]).to(self.doubt.device)
            acted = {path: torch.from_numpy(rows[:length]) for path, rows in episode.action.items()}
            action = self._action({path: rows.to(self.doubt.device) for path, rows in acted.items()})[None]
            code = self._frozen_codes(frames)
            first = torch.arange(length + 1, device=code.device)[None] == 0
            meaning = self._meanings(code, action, first)
            context = self.dynamics.context(meaning[0, :-1], action[0])
            logits.append(self.dynamics.logits(context, code[0, 1:]).flatten(0, 1))
            codes.append(code[0, 1:].flatten())
            left -= logits[-1].numel()
            if left <= 0:
                break
        return torch.cat(logits), torch.cat(codes)

    # ---- storage -------------------------------------------------------------------------------------------------

    def starts(self) -> Tensors:
        return {} if self.config.starts == "imagined" else self.recorded.tensors()

    def set_starts(self, starts: Tensors) -> None:
        if self.config.starts == "recorded":
            self.recorded.put(starts)
        else:
            super().set_starts(starts)


def _slope(inputs: Tensor, outputs: Tensor) -> float:
    """Of the straight line through points, by least squares."""
    away = inputs.double() - inputs.double().mean()
    return float((away * outputs.double()).sum() / (away * away).sum().clamp(min=1e-12))


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum().clamp(min=1)
