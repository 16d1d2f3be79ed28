"""Collects the steps of a rollout and hands them out in parts: arrays (steps, lanes, ...), made once a part."""

from __future__ import annotations

import numpy as np

from simservice.types import Array, Imagine, Imagined, Leaves, StepResult

OBSERVATION, ACTION, OUTPUT = "observation:", "action:", "output:"
RAW = "raw_action"
MASKS = ("distrusted", "world_error")


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
        self._arrays: dict[str, Array] = {}
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
        self._put("log_probability", log_probability)
        if self._command.action:
            for path, array in action.items():
                self._put(ACTION + path, array)
            if self._fitted:
                self._put(OUTPUT + RAW, raw)
        if self._command.outputs:
            for name, array in outputs.items():
                self._put(OUTPUT + name, array)

    def add(self, result: StepResult, resting: Array | None, stops: bool) -> None:
        """One step of all lanes; `resting`: whose episode was over before it, and with `stops` stays so."""
        self._put("reward", result.reward)
        self._put("terminated", result.terminated)
        self._put("truncated", result.truncated)
        if resting is not None:
            self._put("stopped" if stops else "began", resting)
        if self._command.observation:
            for path, array in result.observation.items():
                self._put(OBSERVATION + path, array)
            if result.final is not None and result.final_observation is not None:
                self._put("final", result.final)
                self._finals.append({path: array[result.final] for path, array in result.final_observation.items()})
        elif result.final is not None:
            self._put("final", result.final)
        if self._uncertain and (info := result.infos.get("uncertainty")) is not None:
            self._put("uncertainty", info.value, np.nan)
        for name in MASKS:
            if (info := result.infos.get(name)) is not None:
                self._put(name, info.present)
        self._filled += 1

    def take(self, last: bool) -> Imagined:
        """The part, with what has been written of it; the next one begins."""
        filled, arrays = self._filled, self._arrays
        if filled < self._room:
            arrays = {name: array[:filled] for name, array in arrays.items()}
        finals = None
        if self._finals:
            finals = {path: np.concatenate([part[path] for part in self._finals]) for path in self._finals[0]}
        part = Imagined(
            first=self._first,
            reward=arrays["reward"],
            terminated=arrays["terminated"],
            truncated=arrays["truncated"],
            start=self._start,
            observation=_below(arrays, OBSERVATION) if self._command.observation else None,
            action=_below(arrays, ACTION) or None,
            final_observation=finals,
            outputs=_below(arrays, OUTPUT) or None,
            last=last,
            **{name: arrays.get(name) for name in ("began", "stopped", "final", "uncertainty", "log_probability")},
            **{name: arrays.get(name) for name in MASKS},
        )
        self._first += filled
        self._start, self._arrays, self._finals, self._filled = None, {}, [], 0
        return part

    def _put(self, name: str, value: Array, nothing: float = 0.0) -> None:
        """Writes into the present step; steps without a value hold `nothing`."""
        array = self._arrays.get(name)
        if array is None:
            shape = (self._room, *value.shape)
            array = np.zeros(shape, value.dtype) if nothing == 0.0 else np.full(shape, nothing, value.dtype)
            self._arrays[name] = array
        array[self._filled] = value


def _below(arrays: dict[str, Array], prefix: str) -> Leaves:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
