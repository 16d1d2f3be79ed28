"""A padded call of the world on a device as one graph: one copy up, one launch, one copy down. Knows no episodes.

What a call needs and what it says lie in two blocks of pinned memory, so a tick moves each once. Rows are read and
written within the graph; a row whose step is not finite stays as it was. On CUDA a call is recorded once for every
batch size and replayed; elsewhere the very same lines are run, which is how they are tested.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector.utils import batch_space

from simservice.engine.arena import Arena
from simservice.engine.batching import Span
from simservice.types import Array, Leaf, Leaves, leaves_of, to_leaves
from simservice.worlds.capture import nothing_freed
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Call, Tensors, World

ALIGNED = 16  # bytes: every array begins at a multiple
RECORDED = frozenset({"cuda"})  # devices that record calls; on others they are run as they are
WARM_UPS = 3  # runs before a capture, as torch asks for, on a stream apart
LEAD = "observation/"  # before the names of observation leaves in what a call says

_TORCH = str(Path(torch.__file__).parent)

Fields = Mapping[str, tuple[np.dtype, tuple[int, ...]]]


class Block:
    """Named arrays in one piece of memory, once on the host (pinned beside CUDA) and once on the device."""

    def __init__(self, fields: Fields, device: torch.device) -> None:
        places, end = {}, 0
        for name, (dtype, shape) in fields.items():
            places[name] = end
            end += -(-dtype.itemsize * math.prod(shape) // ALIGNED) * ALIGNED
        self._host = torch.zeros(end, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(end, dtype=torch.uint8, device=device)
        self.arrays: dict[str, Array] = {}
        self.tensors: Tensors = {}
        host = self._host.numpy()
        for name, (dtype, shape) in fields.items():
            begin, size = places[name], dtype.itemsize * math.prod(shape)
            array = host[begin : begin + size].view(dtype).reshape(shape)
            kind = torch.from_numpy(array).dtype
            self.arrays[name] = array
            self.tensors[name] = self._device[begin : begin + size].view(kind).reshape(shape)

    def up(self) -> None:
        """To the device."""
        self._device.copy_(self._host, non_blocking=True)

    def down(self) -> None:
        """To the host."""
        self._host.copy_(self._device, non_blocking=True)


@dataclass(frozen=True)
class Said:
    """What one call says of its first lanes; all arrays are the receiver's own."""

    observation: Leaves
    good: Array  # (n,) bool: all numbers are finite and the row was written
    reward: Array | None = None  # (n,) float64
    terminated: Array | None = None
    uncertainty: Array | None = None


class NoGraph(RuntimeError):
    """A call of a world cannot be recorded, though it can be made; the text says where and why."""


class GraphedCall:
    """`step` or `init` of a world over rows of an arena at one batch size.

    `whole`: over the arena's first rows as they lie instead of rows that an index picks; no row is gathered then, which
    pays when most of them are wanted.

    Raises NoGraph where the device records graphs and the world's call is none.
    """

    def __init__(self, world: World, arena: Arena, size: int, call: Call, *, whole: bool = False) -> None:
        self._world, self._arena, self._call = world, arena, call
        self._whole = whole
        self.size = size
        self._uncertain = call == "step" and "uncertainty" in world.spec.capabilities
        self._observation = leaves_of(world.spec.observation_space, "observation")
        action = leaves_of(world.spec.action_space, "action") if call == "step" else ()
        self._asked = Block(_asked_fields(size, action), arena.device)
        self._said = Block(self._said_fields(), arena.device)
        self._actions = tuple(leaf.path for leaf in action)
        self._legal(action)
        self._replay = _recorded(self._body) if arena.device.type in RECORDED else self._body

    # ---- called by whoever ticks -------------------------------------------------------------------------------------

    def __call__(self, where: Span, seed: Array, counter: Array, action: Leaves | None = None) -> Said:
        """Does the call for n lanes, n at most the size; seed and counter (n,) int64, action leaves (n, ...)."""
        count, asked = len(seed), self._asked.arrays
        place = where if self._whole else slice(0, count)
        if not self._whole:
            asked["index"][:count] = np.arange(where.start, where.stop) if isinstance(where, slice) else where
            asked["index"][count:] = self._arena.scratch
        asked["live"][:] = False
        asked["live"][place] = True
        asked["seed"][place] = seed
        asked["counter"][place] = counter
        for path in self._actions:
            assert action is not None
            asked[path][place] = action[path]
            if not self._whole:
                asked[path][count:] = action[path][0]  # a padding row's action is a legal one
        self._replay()
        if self._arena.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        said = {name: array[place].copy() for name, array in self._said.arrays.items()}
        return Said(
            observation={leaf.path: said[LEAD + leaf.path] for leaf in self._observation},
            good=said["good"],
            reward=said.get("reward"),
            terminated=said.get("terminated"),
            uncertainty=said.get("uncertainty"),
        )

    # ---- the call ----------------------------------------------------------------------------------------------------

    def _body(self) -> None:
        """Everything from the copy up to the copy down; nothing in it waits for the host."""
        self._asked.up()
        self._between()
        self._said.down()

    def _between(self) -> None:
        """What the device does with what was asked; in place, for a graph knows its memory."""
        asked = self._asked.tensors
        answer, rows = self._answer(self._rows(asked), asked)
        for name, tensor in answer.items():
            self._said.tensors[name].copy_(tensor)
        # Rows that were not taken, padding among them, get what they had; equal values meet in the scratch row.
        for name, row in self._arena.rows.items():
            if self._whole:
                row[: self.size].copy_(rows[name])
            else:
                row.index_copy_(0, asked["index"], rows[name])

    def _answer(self, before: Tensors, asked: Tensors) -> tuple[Tensors, Tensors]:
        """What is said and what the rows become, of luck, rows and actions alone: this is what may be compiled."""
        wanted = self._world.draws[self._call]
        draws = lane_draws(wanted, asked["seed"], asked["counter"], self._call) if wanted else {}
        said: Tensors = {}
        if self._call == "step":
            after, out = self._world.step(before, {path: asked[path] for path in self._actions}, draws)
            said.update(reward=out.reward, terminated=out.terminated)
            if self._uncertain:
                said["uncertainty"] = out.uncertainty
        else:
            after = self._world.init(draws)
        observation = self._world.emit(after)
        said.update({LEAD + path: leaf for path, leaf in observation.items()})
        numbers = [leaf for leaf in observation.values() if leaf.is_floating_point()]
        if self._call == "step":
            numbers.append(out.reward)
        good = torch.ones_like(asked["live"])
        for number in numbers:
            good = good & torch.isfinite(number).reshape(self.size, -1).all(dim=1)
        said["good"] = good
        # As on the host: a start is written as it is, and its lane truncated; a step that is not finite is not taken.
        taken = asked["live"] & good if self._call == "step" else asked["live"]
        return said, {
            name: torch.where(taken.reshape(-1, *[1] * (row.dim() - 1)), after[name].to(row.dtype), row)
            for name, row in before.items()
        }

    def _rows(self, asked: Tensors) -> Tensors:
        rows = self._arena.rows
        if self._whole:
            return {name: row[: self.size] for name, row in rows.items()}
        return {name: row.index_select(0, asked["index"]) for name, row in rows.items()}

    # ---- once --------------------------------------------------------------------------------------------------------

    def _legal(self, action: Sequence[Leaf]) -> None:
        """Fills what is asked with legal values: the scratch row, asked for by nobody, and actions of the space."""
        self._asked.arrays["index"][:] = self._arena.scratch
        if action:
            space = batch_space(self._world.spec.action_space, self.size)
            space.seed(0)
            for path, array in to_leaves(self._world.spec.action_space, space.sample(), "action").items():
                self._asked.arrays[path][:] = array

    def _said_fields(self) -> Fields:
        fields = {LEAD + leaf.path: (leaf.dtype, (self.size, *leaf.shape)) for leaf in self._observation}
        if self._call == "step":
            fields["reward"] = (np.dtype(np.float64), (self.size,))
            fields["terminated"] = (np.dtype(np.bool_), (self.size,))
        if self._uncertain:
            fields["uncertainty"] = (np.dtype(np.float32), (self.size,))
        return {**fields, "good": (np.dtype(np.bool_), (self.size,))}


def _recorded(body: Callable[[], None]) -> Callable[[], None]:
    """A call as a graph. It is run a few times first, over the scratch row alone, which stays as it is."""
    apart = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    apart.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(apart):
        for _ in range(WARM_UPS):
            body()
    torch.cuda.current_stream().wait_stream(apart)
    graph = torch.cuda.CUDAGraph()
    # A recording that breaks off would leave its own stream the current one. Another thread may be about a policy of
    # its own meanwhile; what it does is no part of the graph.
    as_before, recording = torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph
    try:
        with as_before, nothing_freed(), recording(graph, capture_error_mode="thread_local"):
            body()
    except RuntimeError as error:
        first = _first(error)
        if isinstance(first, torch.OutOfMemoryError):
            raise first from None
        raise NoGraph(f"{_place(first)}: {str(first).partition(chr(10))[0]}") from error
    return graph.replay


def _first(error: BaseException) -> BaseException:
    """What broke a recording off. To end a broken one fails, too, and what is raised is the failure of that."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _place(error: BaseException) -> str:
    """Where it was raised, outside of torch."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_TORCH)]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"


def compile_calls(world: World) -> None:
    """Has torch fuse what steps and shows the world's rows, once for every batch size: seconds each, at the start.

    Fused arithmetic rounds otherwise than unfused, so all replicas of a world must be of one mind.
    """
    for call in ("step", "emit"):
        setattr(world, call, torch.compile(getattr(world, call), fullgraph=True, dynamic=False))


def _asked_fields(size: int, action: Sequence[Leaf]) -> Fields:
    numbers = np.dtype(np.int64)
    fields: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
        name: (numbers, (size,)) for name in ("index", "seed", "counter")
    }
    fields.update({leaf.path: (leaf.dtype, (size, *leaf.shape)) for leaf in action})
    return {**fields, "live": (np.dtype(np.bool_), (size,))}
