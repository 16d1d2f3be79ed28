"""The contract of a world: a pure function of rows. Knows nothing of sessions, wires or real environments.

State is a flat dict of tensors with a leading batch axis; randomness is handed in as draws; nothing is kept on the
object between calls. So whoever holds the rows may store, move, copy and replay them.

Rules for every family:
- no random generator, no batch statistics, no data-dependent control flow or shapes in init, observe, step and emit;
- the row at index i depends on row i of the arguments only, bit for bit, at equal batch size of 16 or more;
- rows never share storage with what was handed in: arguments are not changed;
- time limits belong to the service: a world only terminates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from simservice.types import Episode, WorldSpec

Tensors = dict[str, Tensor]
Call = Literal["init", "observe", "step"]

BUCKETS: tuple[int, ...] = (16, 64, 256, 1024)
"""Batch sizes a world is run at. Never below 16: smaller batches take other kernels and round differently."""


@dataclass(frozen=True)
class Slot:
    """One named part of a lane's state: shape and dtype of one row, and what it is for.

    What is of the role "kv" is a cache: it is left out of snapshots, and World.rebuild makes it again.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    role: Literal["latent", "frame", "kv", "index", "prompt"] = "latent"


@dataclass(frozen=True)
class Draw:
    """Random numbers a call wants for each row: uniform in [0, 1) or standard normal, float32."""

    kind: Literal["uniform", "normal"]
    shape: tuple[int, ...] = ()


class StepOut(NamedTuple):
    """What one step says beside the next state; B is the batch."""

    reward: Tensor  # (B,) float32 or float64
    terminated: Tensor  # (B,) bool, sampled: termination_probability > a uniform draw
    termination_probability: Tensor  # (B,) float32
    uncertainty: Tensor  # (B,) float32 >= 0, on the scale of the expected one-step NRMSE; NaN: the family has none
    aux: Tensors  # family's own diagnostics


class Batch(NamedTuple):
    """Training segments: B windows of T steps. observation has T + 1 rows; leaves by path as in types.Leaves."""

    observation: Tensors  # (B, T + 1, ...)
    action: Tensors  # (B, T, ...)
    reward: Tensor  # (B, T) float32
    terminated: Tensor  # (B, T) bool, true terminals only, never time limits
    is_first: Tensor  # (B, T + 1) bool, the first row of every segment is True
    valid: Tensor  # (B, T) bool, False beyond the end of the episode


@dataclass(frozen=True)
class Phase:
    """One stage of training: what is optimised, for how many updates, over segments of which length."""

    name: str
    updates: int
    batch_size: int
    segment_length: int
    learning_rate: float
    weight_decay: float = 0.0
    evaluate_every: int = 250  # updates between open-loop evaluations on the held-out episodes
    groups: int = 1  # a batch is this many equal parts, each drawn from a bootstrap resample of the data of its own
    warm_up: int = 0  # updates over which the learning rate rises to its full height
    max_gradient_norm: float | None = None  # gradients longer than this are shortened to it
    open_loop: bool = True  # False: forecasts say nothing of this stage; it runs to its end, its last weights stay
    keep_last: bool = False  # forecasts are told, but choose no weights: the stage runs to its end, the last ones stay


class World(nn.Module, ABC):
    """A learned model of one environment, or a control behind the same interface."""

    family: ClassVar[str]
    Config: ClassVar[type[Any]]  # a frozen dataclass with a default for every field
    device_types: ClassVar[frozenset[str]] = frozenset({"cpu", "cuda"})
    graphed_loss: ClassVar[bool] = False  # loss() does the same at every update and asks for no value: a CUDA graph may
    context_frames: int = 1  # how many real frames make a full context; fewer are always enough to start from

    def __init__(self, spec: WorldSpec, config: Any) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    # ---- what a row is -------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def slots(self) -> Mapping[str, Slot]:
        """The state's layout. Names are the family's own; the layout is a function of spec and config."""

    @property
    @abstractmethod
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        """The random numbers each call wants."""

    # ---- serving: pure functions ----------------------------------------------------------------------------------

    @abstractmethod
    def init(self, draws: Tensors) -> Tensors:
        """First states, from the learned or recorded distribution of real episode starts."""

    @abstractmethod
    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        """Grounds rows in one real frame; repeat it frame by frame for a longer context.

        is_first (B,) bool: the frame opens the context, so what the state held before is forgotten and
        previous_action is ignored. The same code path as in training.
        """

    @abstractmethod
    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        """One environment step; action leaves as in the action space, in its own dtypes."""

    def rebuild(self, state: Tensors) -> Tensors:
        """The state with its caches, the slots of the role "kv", made again from all others; they are zeros here.

        What follows from it must be what would have followed from the state that the snapshot was taken of. Rows of
        lanes that were never reset are zeros.
        """
        return state

    @abstractmethod
    def emit(self, state: Tensors) -> Tensors:
        """The observation of each row by leaf path, in the observation space's dtypes."""

    def render(self, state: Tensors) -> Tensor:
        """RGB frames (B, height, width, 3) uint8. Only worlds whose spec names a render mode have it."""
        raise TypeError(f"{self.family} has no pictures; spec.render_modes is {self.spec.render_modes}")

    # ---- training --------------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Takes from the training episodes what no gradient gives: scales, bounds, starts; closed-form fits."""

    def phases(self) -> Sequence[Phase]:
        """The stages of gradient training; none for worlds that prepare() finishes."""
        return ()

    def loss(self, batch: Batch, draws: Tensors, phase: str) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar to minimise and its named parts.

        Here, and nowhere else, torch's own random numbers may be used: the trainer seeds them for every update.
        """
        raise TypeError(f"{self.family} has no training phase {phase!r}")

    def monitors(self, batch: Batch) -> dict[str, float]:
        """While training, on held-out segments: the family's own figures, such as whether actions count.

        Torch's own random numbers may be used here, too.
        """
        return {}

    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """After training, on held-out episodes: sets what only unseen data tells, such as the uncertainty's scale."""
        return None

    # ---- storage ---------------------------------------------------------------------------------------------------

    def weights(self) -> Tensors:
        """Everything learned (parameters and buffers), by name; all of it goes into weights.safetensors."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}

    def starts(self) -> Tensors:
        """Rows of recorded starts that init draws from; they go into starts.safetensors. Empty: init needs none."""
        return {}

    def set_starts(self, starts: Tensors) -> None:
        """Puts starts back after loading."""
        if starts:
            raise TypeError(f"{self.family} takes no starts, found {sorted(starts)}")

    def allocate(self, batch: int, device: torch.device | str = "cpu") -> Tensors:
        """Zero rows in the layout of slots."""
        return {
            name: torch.zeros((batch, *slot.shape), dtype=slot.dtype, device=device)
            for name, slot in self.slots.items()
        }
