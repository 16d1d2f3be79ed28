"""Collects the steps of a rollout and hands them out in parts: arrays (steps, lanes, ...), made once a part."""

from __future__ import annotations

import numpy as np

from simservice.engine.episodes import Taken
from simservice.types import Array, Imagine, Imagined, Leaves

RAW = "raw_action"


class Pages:
    """The part that is being written; `room` is how many steps it holds."""

    def __init__(self, command: Imagine, lanes: int, room: int, uncertain: bool, fitted: bool) -> None:
        self.lanes = lanes
        self._command = command
        self._room = room
        self._uncertain = uncertain
        self._fitted = fitted  # a policy's actions are not what the world takes
        self._first = 0
        self._start: Leaves | None = None
        self._turn()

    def _turn(self) -> None:
        """To a page on which nothing is written."""
        self._arrays: dict[str, Array] = {}  # (room, lanes), by the names of Imagined
        self._observation: Leaves = {}  # (room, lanes, ...)
        self._action: Leaves = {}
        self._outputs: Leaves = {}
        self._finals: list[Leaves] = []
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    @property
    def full(self) -> bool:
        """No step more finds room."""
        return self._filled == self._room

    def begin(self, observation: Leaves) -> None:
        """What the lanes show before the first step."""
        if self._command.observation:
            self._start = observation

    def act(self, action: Leaves, raw: Array, log_probability: Array, outputs: Leaves) -> None:
        """What a policy says before a step: the actions as the world gets them and as it gave them, and the rest."""
        self._put(self._arrays, "log_probability", log_probability)
        if self._command.action:
            for path, array in action.items():
                self._put(self._action, path, array)
            if self._fitted:
                self._put(self._outputs, RAW, raw)
        if self._command.outputs:
            for name, array in outputs.items():
                self._put(self._outputs, name, array)

    def add(self, taken: Taken, resting: Array | None, stops: bool) -> None:
        """One step of all lanes; `resting`: whose episode was over before it, and with `stops` stays so."""
        done, arrays = taken.done, self._arrays
        self._put(arrays, "reward", done.reward)
        self._put(arrays, "terminated", done.terminated)
        self._put(arrays, "truncated", taken.truncated)
        if resting is not None:
            self._put(arrays, "stopped" if stops else "began", resting)
        if self._command.observation:
            for path, array in done.observation.items():
                self._put(self._observation, path, array)
        if taken.again is not None:
            self._put(arrays, "final", taken.again)
            if self._command.observation and taken.final is not None:
                self._finals.append({path: array[taken.again] for path, array in taken.final.items()})
        if self._uncertain and done.uncertainty is not None:
            self._put(arrays, "uncertainty", done.uncertainty, np.nan)
        if done.distrusted is not None:
            self._put(arrays, "distrusted", done.distrusted)
        if done.broken is not None:
            self._put(arrays, "world_error", done.broken)
        self._filled += 1

    def take(self, last: bool) -> Imagined:
        """The part, with what has been written of it; the next one begins."""
        arrays = self._written(self._arrays)
        if "uncertainty" in arrays and np.isnan(arrays["uncertainty"]).all():  # resting and broken lanes have none
            del arrays["uncertainty"]
        finals = None
        if self._finals:
            finals = {path: np.concatenate([part[path] for part in self._finals]) for path in self._finals[0]}
        part = Imagined(
            first=self._first,
            start=self._start,
            observation=self._written(self._observation) if self._command.observation else None,
            action=self._written(self._action) or None,
            final_observation=finals,
            outputs=self._written(self._outputs) or None,
            last=last,
            **arrays,
        )
        self._first += self._filled
        self._start = None
        self._turn()
        return part

    def _written(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """The rows of the steps that there are."""
        if self._filled == self._room:
            return arrays
        return {name: array[: self._filled] for name, array in arrays.items()}

    def _put(self, arrays: dict[str, Array], name: str, value: Array, nothing: float = 0.0) -> None:
        """Writes into the present step; steps without a value hold `nothing`."""
        try:
            arrays[name][self._filled] = value
        except KeyError:
            shape = (self._room, *value.shape)
            array = np.zeros(shape, value.dtype) if nothing == 0.0 else np.full(shape, nothing, value.dtype)
            arrays[name] = array
            array[self._filled] = value
