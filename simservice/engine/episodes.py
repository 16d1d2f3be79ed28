"""Gymnasium's rules of episodes over many sessions' lanes: ends, time limits, the three autoreset modes, resets.

Per lane as Gymnasium 1.2.2 says. NEXT_STEP: the step after an end ignores its action and gives the first observation
of a new episode with reward 0. SAME_STEP: the ending step gives the new first observation, the last one goes to
final_observation. DISABLED: an ended lane must be reset. The time limit truncates beside a termination, as TimeLimit.

A step whose numbers are not finite is not taken: the lane keeps its last observation, gets reward 0 and is truncated,
with the info "world_error". Knows no threads and no queues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter_ns

import numpy as np

from simservice.engine.batching import Span, any_true
from simservice.engine.control import DISABLED, SAME_STEP, Control
from simservice.engine.requests import Request
from simservice.engine.runner import Runner, Stepped, unusable
from simservice.errors import InternalError, NeedsReset
from simservice.types import Array, Info, Infos, Leaves, ResetResult, Spent, StepResult


@dataclass(slots=True)
class Taken:
    """A step of n lanes, and what came of their episodes."""

    done: Stepped
    truncated: Array  # (n,) bool
    ended: bool  # whether any lane's episode is over by it
    fresh: Array | None = None  # (n,) bool: lanes that began an episode; None: none of them
    again: Array | None = None  # (n,) bool: of these, those whose last one ended in this very step; None: none of them
    final: Leaves | None = None  # (n, ...) what was seen last of the episodes of `again`
    unborn: Array | None = None  # (n,) bool: of `fresh`, those that could not begin


class Episodes:
    """Steps and resets over one runner."""

    def __init__(self, runner: Runner, control: Control) -> None:
        self.runner = runner
        self.control = control
        self.spec = runner.world.spec
        self.stats = runner.stats
        self._called_ns = (0, 0)  # when the world was last called to step, and when it had

    def step(self, requests: Sequence[Request]) -> None:
        """Does steps of disjoint lanes in one batch; a refused one changes nothing."""
        allowed = [request for request in requests if request.allowed or not self._refused(request)]
        if allowed:
            self._step(allowed)

    def play(self, lanes: Array, where: Span, action: Leaves, resting: Array | None) -> Taken:
        """A step of a rollout: as any other, but that a lane which has ended under DISABLED rests.

        `resting`: the lanes whose episode is over; None: all lanes are in the middle of theirs.
        """
        taken = self._take(lanes, where, action, resting)
        if taken.unborn is not None and taken.unborn.any():
            raise self._no_start()
        return taken

    def _refused(self, request: Request) -> bool:
        blocked = self.control.blocked(request.where)
        if len(blocked):
            request.error = NeedsReset(blocked.tolist())
        return bool(len(blocked))

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _step(self, requests: Sequence[Request]) -> None:
        lanes = _joined([request.lanes for request in requests])
        where = requests[0].where if len(requests) == 1 else lanes
        action = _joined_leaves([request.step.action for request in requests])
        resting = None  # or a mask: lanes that ended, under NEXT_STEP
        if not all([request.allowed for request in requests]) and any_true(ended := self.control.ended[where]):
            resting = ended.copy()  # a slice is a view, and the column is written below
        self._answer(requests, self._take(lanes, where, action, resting))

    def _take(self, lanes: Array, where: Span, action: Leaves, resting: Array | None) -> Taken:
        began = perf_counter_ns()
        done = self.runner.step(lanes, where, action) if resting is None else self._step_some(lanes, action, ~resting)
        self._called_ns = (began, perf_counter_ns())
        self.stats.tick_lanes.add(len(lanes))
        truncated = self._end(where, done, resting)
        if self.control.trust.active:
            truncated |= self.control.trust.judge(where, done, self.control.elapsed[where], resting)
        over = done.terminated | truncated
        taken = Taken(done, truncated, any_true(over), self._renewed(where, resting))
        if taken.ended:
            self._count_ends(done.terminated, truncated)
            again = over & (self.control.mode[where] == SAME_STEP)
            self.control.ended[where] |= over & ~again
            if again.any():
                taken.fresh = again if taken.fresh is None else taken.fresh | again
                taken.again, taken.final = again, {path: array.copy() for path, array in done.observation.items()}
        if taken.fresh is not None:
            taken.unborn = self._begin(lanes, taken.fresh, done.observation)
        return taken

    def _renewed(self, where: Span, resting: Array | None) -> Array | None:
        """Which of the resting lanes begin an episode; None: no lane rests, or none of them begins one."""
        if resting is None:
            return None
        renewed: Array = resting & (self.control.mode[where] != DISABLED)
        return renewed if any_true(renewed) else None

    def _step_some(self, lanes: Array, action: Leaves, awake: Array) -> Stepped:
        """A step of the lanes that are awake; the rows of the others are zeros."""
        leaves = self.runner.observation_leaves if self.runner.emits else ()
        observation = {leaf.path: np.zeros((len(lanes), *leaf.shape), dtype=leaf.dtype) for leaf in leaves}
        whole = Stepped(observation, np.zeros(len(lanes)), np.zeros(len(lanes), dtype=np.bool_), None, None)
        if not awake.any():
            return whole
        some = self.runner.step(lanes[awake], lanes[awake], {path: array[awake] for path, array in action.items()})
        for path, array in some.observation.items():
            whole.observation[path][awake] = array
        whole.reward[awake] = some.reward
        whole.terminated[awake] = some.terminated
        if some.uncertainty is not None:
            whole.uncertainty = np.full(len(lanes), np.nan, dtype=np.float32)
            whole.uncertainty[awake] = some.uncertainty
        if some.broken is not None:
            whole.broken = np.zeros(len(lanes), dtype=np.bool_)
            whole.broken[awake] = some.broken
        return whole

    def _end(self, where: Span, done: Stepped, resting: Array | None) -> Array:
        """Counts the step and says which lanes were truncated."""
        elapsed: Array = self.control.elapsed[where] + (1 if resting is None else ~resting)
        self.control.elapsed[where] = elapsed
        self.stats.lane_steps += len(elapsed) - (0 if resting is None else int(resting.sum()))
        limit = self.spec.max_episode_steps
        truncated = np.zeros(len(elapsed), dtype=np.bool_) if limit is None else elapsed >= limit
        if resting is not None:
            truncated &= ~resting
        if done.broken is not None:
            truncated |= done.broken
        return truncated

    def _count_ends(self, terminated: Array, truncated: Array) -> None:
        self.stats.episodes_terminated += int(terminated.sum())
        self.stats.episodes_truncated += int((truncated & ~terminated).sum())

    def _begin(self, lanes: Array, fresh: Array, observation: Leaves) -> Array | None:
        """Starts episodes in the lanes of `fresh` and writes their observations in; the lanes that cannot start."""
        chosen = lanes[fresh]
        started = self.runner.start(chosen)
        self.control.begin(chosen)
        self.stats.episodes_begun += len(chosen)
        for path, array in started.observation.items():
            observation[path][fresh] = array
        if started.broken is None:
            return None
        unborn = np.zeros(len(lanes), dtype=np.bool_)
        unborn[fresh] = started.broken
        return unborn

    def _answer(self, requests: Sequence[Request], taken: Taken) -> None:
        done, truncated, fresh, again = taken.done, taken.truncated, taken.fresh, taken.again
        if len(requests) == 1 and fresh is None:  # the usual case; its arrays are nobody else's
            infos = self._infos(None, done.uncertainty, done.broken, done.distrusted)
            requests[0].result = StepResult(
                done.observation, done.reward, done.terminated, truncated, infos, spent=self._spent(requests[0])
            )
            return
        begin = 0
        for request in requests:
            part = slice(begin, begin + len(request.lanes))
            begin = part.stop
            if taken.unborn is not None and taken.unborn[part].any():
                request.error = self._no_start()
                continue
            ended = again is not None and bool(again[part].any())
            request.result = StepResult(
                observation={path: array[part] for path, array in done.observation.items()},
                reward=done.reward[part],
                terminated=done.terminated[part],
                truncated=truncated[part],
                infos=self._infos(
                    None if fresh is None else fresh[part],
                    None if done.uncertainty is None else done.uncertainty[part],
                    None if done.broken is None else done.broken[part],
                    None if done.distrusted is None else done.distrusted[part],
                ),
                final_observation=_where(taken.final, part, again) if ended else None,
                final=again[part].copy() if ended and again is not None else None,
                spent=self._spent(request),
            )

    def _spent(self, request: Request) -> Spent:
        began, ended = self._called_ns
        return Spent(request.handed_ns, began, ended - began)

    # ---- resets ----------------------------------------------------------------------------------------------------

    def reset(self, request: Request) -> None:
        """Does one reset."""
        command, lanes = request.reset, request.lanes
        mask = np.ones(len(lanes), dtype=np.bool_) if command.mask is None else command.mask
        unready = np.flatnonzero(~self.control.ready[lanes] & ~mask)
        if len(unready):
            request.error = NeedsReset(unready.tolist())
            return
        chosen = lanes[mask]
        if command.seeds is not None:
            self.control.reseed(chosen, command.seeds[mask])
        started = self.runner.start(chosen)
        self.control.begin(chosen)
        self.stats.episodes_begun += len(chosen)
        if started.broken is not None:
            request.error = self._no_start()
            return
        if command.context is not None:
            self._ground(chosen, command.context.observation, command.context.action, mask, command.context.frames)
        whole = len(chosen) == len(lanes) and command.context is None
        observation = started.observation if whole else self.runner.look(lanes)
        if command.context is not None and unusable(observation) is not None:
            request.error = self._no_start()
            return
        request.result = ResetResult(observation=observation, infos=self._infos(mask, None, None))

    def _ground(self, lanes: Array, observation: Leaves, action: Leaves, mask: Array, frames: int) -> None:
        blank = {leaf.path: np.zeros((len(lanes), *leaf.shape), dtype=leaf.dtype) for leaf in self.runner.action_leaves}
        for frame in range(frames):
            seen = {path: array[mask, frame] for path, array in observation.items()}
            acted = {path: array[mask, frame - 1] for path, array in action.items()} if frame else blank
            self.runner.ground(lanes, seen, acted, first=frame == 0)

    # ---- views -----------------------------------------------------------------------------------------------------

    def look(self, lanes: Array) -> Leaves:
        """The present observation of every lane; zeros where none was ever reset."""
        observation = {path: array.copy() for path, array in self.runner.look(lanes).items()}
        for array in observation.values():
            array[~self.control.ready[lanes]] = 0
        return observation

    # ---- infos -----------------------------------------------------------------------------------------------------

    def _infos(
        self,
        fresh: Array | None,
        uncertainty: Array | None,
        broken: Array | None,
        distrusted: Array | None = None,
    ) -> Infos:
        """`trust_horizon` where an episode began; `uncertainty`, `world_error` and `distrusted` of a step."""
        infos: Infos = {}
        if uncertainty is not None:
            if not math.isnan(np.add.reduce(uncertainty)):
                infos["uncertainty"] = Info(uncertainty, _everywhere(len(uncertainty)))
            elif (present := ~np.isnan(uncertainty)).any():
                infos["uncertainty"] = Info(uncertainty, present)
        if self.spec.trust_horizon_steps is not None and fresh is not None and fresh.any():
            horizon = np.full(len(fresh), self.spec.trust_horizon_steps, dtype=np.int64)
            infos["trust_horizon"] = Info(horizon, fresh.copy())
        if broken is not None and broken.any():
            infos["world_error"] = Info(broken.copy(), broken.copy())
        if distrusted is not None and distrusted.any():
            infos["distrusted"] = Info(distrusted.copy(), distrusted.copy())
        return infos

    def _no_start(self) -> InternalError:
        return InternalError(f"world {self.spec.full_name} gave a first observation that is not finite")


@lru_cache(maxsize=256)
def _everywhere(count: int) -> Array:
    mask = np.ones(count, dtype=np.bool_)
    mask.flags.writeable = False
    return mask


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _joined_leaves(parts: Sequence[Leaves]) -> Leaves:
    if len(parts) == 1:
        return parts[0]
    return {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}


def _where(leaves: Leaves | None, part: slice, mask: Array | None) -> Leaves:
    """Rows of `part`, zeros where the mask is False."""
    assert leaves is not None and mask is not None
    kept = {path: array[part] for path, array in leaves.items()}
    for array in kept.values():
        array[~mask[part]] = 0
    return kept
