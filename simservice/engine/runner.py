"""Calls the world on lanes: gathers rows, pads them, draws their luck, calls, writes rows back. Knows no episodes."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simservice.engine.arena import Arena
from simservice.engine.batching import Span, all_true, any_true, cut, pad, padded, piece, repeated
from simservice.engine.control import Control
from simservice.engine.graphs import GraphedCall, NoGraph
from simservice.engine.luck import LuckAhead
from simservice.engine.stats import EngineStats
from simservice.types import Array, Leaves, leaves_of
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Call, Tensors, World

log = logging.getLogger(__name__)


@dataclass
class Stepped:
    """What one step gave n lanes."""

    observation: Leaves  # (n, ...)
    reward: Array  # (n,) float64
    terminated: Array  # (n,) bool
    uncertainty: Array | None  # (n,) float32
    broken: Array | None  # (n,) bool: lanes whose step was not finite and not taken; None: no lane
    distrusted: Array | None = None  # (n,) bool: lanes that their session's caution truncates; None: no lane


@dataclass
class Started:
    """What a start gave n lanes."""

    observation: Leaves
    broken: Array | None
    count: int


class Runner:
    """One world over one arena, in batches of the given sizes only."""

    def __init__(
        self,
        world: World,
        arena: Arena,
        control: Control,
        sizes: Sequence[int],
        stats: EngineStats,
        known_uncertainty: float = math.inf,
        emits: bool = True,  # False: nobody looks at observations, so none is made, and only rewards tell a broken step
    ) -> None:
        self._graphs: dict[tuple[Call, int], GraphedCall] = {}
        self.emits = emits
        self.ahead: Mapping[Call, LuckAhead] = {}  # of calls, where somebody knows how many steps will follow
        self.between: Callable[[], None] | None = None  # called between two calls of the world for one step
        self.world = world
        self.arena = arena
        self.control = control
        self.sizes = tuple(sizes)
        self.stats = stats
        self.observation_leaves = leaves_of(world.spec.observation_space, "observation")
        self.action_leaves = leaves_of(world.spec.action_space, "action")
        self._uncertain = "uncertainty" in world.spec.capabilities
        self._known = known_uncertainty
        self._wanted = dict(world.draws)  # a world may make it anew whenever it is asked

    def prepare_graphs(self) -> bool:
        """A graph for every size. One of all lanes' size takes the rows as they lie: nothing is gathered then.

        False: the world's calls are none, so they are made one operation after another; a warning says why.
        """
        calls: tuple[Call, ...] = ("step", "init")
        try:
            for size, call in itertools.product(self.sizes, calls):
                whole = size == self.arena.capacity
                self._graphs[call, size] = GraphedCall(self.world, self.arena, size, call, whole=whole)
        except NoGraph as error:
            self._graphs.clear()
            log.warning(
                "world %r is no graph on %s (%s), so its calls are made operation by operation, many times slower for "
                "few lanes; what asks for the values of tensors, .item() and if, cannot be recorded",
                self.world.spec.name,
                self.arena.device,
                error,
            )
            return False
        return True

    def step(self, lanes: Array, where: Span, action: Leaves) -> Stepped:
        """One step of every lane. Where the world's answer is not finite the lane stays in its state."""
        pieces = self._cut(len(lanes))
        if len(pieces) == 1:
            return self._step(lanes, where, action, pieces[0][2])
        parts: list[Stepped] = []
        for a, b, size in pieces:
            if parts and self.between is not None:
                self.between()
            parts.append(self._step(lanes[a:b], piece(where, a, b), _rows(action, a, b), size))
        return _join_steps(parts)

    def start(self, lanes: Array) -> Started:
        """First states from the world's own starts."""
        return _join_starts([self._start(lanes[a:b], n) for a, b, n in self._cut(len(lanes))])

    def ground(self, lanes: Array, frame: Leaves, action: Leaves, first: bool) -> None:
        """Shows every lane one real frame and the action that led to it."""
        for a, b, size in self._cut(len(lanes)):
            part = lanes[a:b]
            padded = pad(part, size, self.arena.scratch)
            state = self.world.observe(
                self.arena.gather(padded),
                self._fill(_rows(frame, a, b), size),
                self._fill(_rows(action, a, b), size),
                torch.full((size,), first, dtype=torch.bool, device=self.arena.device),
                self._draws(padded, "observe"),
            )
            self.arena.scatter(part, state, b - a)
            self.control.counter[part] += 1

    def rebuild(self, lanes: Array) -> None:
        """Makes the caches of every lane again."""
        for a, b, size in self._cut(len(lanes)):
            padded = pad(lanes[a:b], size, self.arena.scratch)
            self.arena.scatter(lanes[a:b], self.world.rebuild(self.arena.gather(padded)), b - a)

    def look(self, lanes: Array) -> Leaves:
        """The present observation of every lane."""
        parts = []
        for a, b, size in self._cut(len(lanes)):
            padded = pad(lanes[a:b], size, self.arena.scratch)
            parts.append(_host(self.world.emit(self.arena.gather(padded)), b - a))
        return _join(parts)

    def picture(self, lanes: Array) -> Array:
        """(n, height, width, 3) uint8."""
        parts = []
        for a, b, size in self._cut(len(lanes)):
            padded = pad(lanes[a:b], size, self.arena.scratch)
            parts.append(_array(self.world.render(self.arena.gather(padded)), b - a))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # ---- one padded call ---------------------------------------------------------------------------------------------

    def _step(self, lanes: Array, where: Span, action: Leaves, size: int) -> Stepped:
        count = len(lanes)
        if self._graphs:
            return self._step_graphed(lanes, where, action, size)
        rows = padded(lanes, where, size, self.arena.scratch)
        before = self.arena.lend(rows)  # no copy is needed: what a world answers shares no storage with its arguments
        after, out = self.world.step(before, self._fill(action, size), self._draws(rows, "step"))
        self.control.counter[where] += 1
        observation = self._emitted(after, count)
        reward = _array(out.reward, count).astype(np.float64, copy=False)
        terminated = _array(out.terminated, count)
        uncertainty = _array(out.uncertainty, count) if self._uncertain else None
        done = Stepped(observation, reward, terminated, uncertainty, unusable(observation, reward))
        self._count_unsure(uncertainty)
        if done.broken is None:
            self.arena.scatter(where, after, count)
        else:
            kept = self._emitted(before, count)
            self._refuse(done, {path: leaf[done.broken] for path, leaf in kept.items()})
            good = np.flatnonzero(~done.broken)
            chosen = self.arena.put(good)
            self.arena.scatter(lanes[good], {name: row[chosen] for name, row in after.items()}, len(good))
        return done

    def _step_graphed(self, lanes: Array, where: Span, action: Leaves, size: int) -> Stepped:
        call = self._graphs["step", size]
        said = call(where, self.control.seed[where], self.control.counter[where], action)
        self.control.counter[where] += 1
        assert said.reward is not None and said.terminated is not None
        broken = None if all_true(said.good) else ~said.good
        done = Stepped(said.observation, said.reward, said.terminated, said.uncertainty, broken)
        self._count_unsure(done.uncertainty)
        if broken is not None:
            self._refuse(done, self.look(lanes[broken]))
        return done

    def _count_unsure(self, uncertainty: Array | None) -> None:
        if uncertainty is not None and self._known < math.inf:
            self.stats.beyond_support += int(np.count_nonzero(uncertainty > self._known))

    def _refuse(self, done: Stepped, kept: Leaves) -> None:
        """Makes a step that was not taken, of the broken lanes, one that left them where they were: `kept` shows it."""
        broken = done.broken
        assert broken is not None
        self.stats.world_errors += int(broken.sum())
        for path, array in done.observation.items():
            array[broken] = kept[path]
        done.reward[broken] = 0.0
        done.terminated = done.terminated & ~broken
        if done.uncertainty is not None:
            done.uncertainty = np.where(broken, np.float32(np.nan), done.uncertainty)

    def _start(self, lanes: Array, size: int) -> Started:
        if self._graphs:
            said = self._graphs["init", size](lanes, self.control.seed[lanes], self.control.counter[lanes])
            self.control.counter[lanes] += 1
            broken = None if all_true(said.good) else ~said.good
            self.stats.world_errors += 0 if broken is None else int(broken.sum())
            return Started(said.observation, broken, len(lanes))
        state = self.world.init(self._draws(pad(lanes, size, self.arena.scratch), "init"))
        self.control.counter[lanes] += 1
        observation = self._emitted(state, len(lanes))
        self.arena.scatter(lanes, state, len(lanes))
        broken = unusable(observation)
        if broken is not None:
            self.stats.world_errors += int(broken.sum())
        return Started(observation, broken, len(lanes))

    def _emitted(self, state: Tensors, count: int) -> Leaves:
        return _host(self.world.emit(state), count) if self.emits else {}

    def _cut(self, count: int) -> tuple[tuple[int, int, int], ...]:
        pieces = cut(count, self.sizes)
        for begin, end, size in pieces:
            self.stats.padded_rows += size - (end - begin)
            self.stats.batches[size] = self.stats.batches.get(size, 0) + 1
        return pieces

    def _draws(self, padded: Span, call: Call) -> Tensors:
        wanted = self._wanted[call]
        if not wanted:
            return {}
        if (ahead := self.ahead.get(call)) is not None:
            return {name: self.arena.put(array) for name, array in ahead.take(padded).items()}
        # Copies: a slice of a column is a view, and the columns are written while the draws are in use.
        seed = self.arena.put(np.array(self.control.seed[padded]))
        counter = self.arena.put(np.array(self.control.counter[padded]))
        return lane_draws(wanted, seed, counter, call)

    def _fill(self, leaves: Leaves, size: int) -> Tensors:
        """On the device, filled up with the first row: what a padding row holds must be a legal value."""
        return {path: self.arena.put(_fill(array, size)) for path, array in leaves.items()}


def _fill(array: Array, size: int) -> Array:
    return array if len(array) == size else array.take(repeated(len(array), size), axis=0)


def _host(leaves: Tensors, count: int) -> Leaves:
    return {path: _array(leaf, count) for path, leaf in leaves.items()}


def _array(tensor: Tensor, count: int) -> Array:
    """The first rows on the host; no copy where they are there already."""
    if not tensor.is_cpu:
        tensor = tensor[:count].cpu()
    array: Array = tensor.numpy()
    return array if len(array) == count else array[:count]


def unusable(observation: Leaves, reward: Array | None = None) -> Array | None:
    """(n,) bool of lanes with a number that is not finite; None where there is none."""
    arrays = [array for array in observation.values() if array.dtype.kind == "f"]
    if reward is not None:
        arrays.append(reward)
    # A sum of squares is finite only if all are: one cheap call tells the usual case. Huge numbers are looked into.
    doubtful = [array for array in arrays if not math.isfinite(np.vdot(array, array))]
    if not doubtful:
        return None
    good = [np.isfinite(array).reshape(len(array), -1) for array in doubtful]
    broken = ~np.asarray(np.concatenate(good, axis=1).all(axis=1))
    return broken if any_true(broken) else None


def _rows(leaves: Leaves, begin: int, end: int) -> Leaves:
    return {path: array[begin:end] for path, array in leaves.items()}


def _join(parts: Sequence[Leaves]) -> Leaves:
    if len(parts) == 1:
        return parts[0]
    return {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}


def _join_broken(masks: Sequence[Array | None], counts: Sequence[int]) -> Array | None:
    if all(mask is None for mask in masks):
        return None
    return np.concatenate(
        [np.zeros(n, dtype=np.bool_) if mask is None else mask for mask, n in zip(masks, counts, strict=True)]
    )


def _join_steps(parts: Sequence[Stepped]) -> Stepped:
    uncertain = [part.uncertainty for part in parts if part.uncertainty is not None]
    return Stepped(
        _join([part.observation for part in parts]),
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.terminated for part in parts]),
        np.concatenate(uncertain) if uncertain else None,
        _join_broken([part.broken for part in parts], [len(part.reward) for part in parts]),
    )


def _join_starts(parts: Sequence[Started]) -> Started:
    if len(parts) == 1:
        return parts[0]
    observation = _join([part.observation for part in parts])
    counts = [part.count for part in parts]
    return Started(observation, _join_broken([part.broken for part in parts], counts), sum(counts))
