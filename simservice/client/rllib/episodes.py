"""Rows of many lanes cut into RLlib's episodes, without Python for each step. Knows no session and no policy.

A row is one step of all lanes under autoreset NEXT_STEP: in the row after its end a lane shows the first observation of
its next episode, and that row is no step of any episode.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from simservice.types import Array

OBSERVATION, ACTION, REWARD, INFO = "observation", "action", "reward", "info "
REWARD_SPACE = spaces.Box(float("-inf"), float("inf"), (), np.float32)  # what RLlib's own episodes declare


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of all lanes; every array is (rows, lanes, ...)."""

    observation: Array  # after each row, as the connectors leave it for the module
    action: Array  # as the policy gave it, before it was fitted to the action space
    reward: Array  # float64
    terminated: Array  # bool
    truncated: Array  # bool
    outputs: Mapping[str, Array] = field(default_factory=dict)  # e.g. action_logp; the same names in all rows
    infos: Mapping[str, Array] = field(default_factory=dict)  # by the step that led there; NaN and False: not there

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def ended(self) -> Array:
        """Steps that were their episode's last, (rows, lanes) bool."""
        return np.asarray(self.terminated | self.truncated)


@dataclass(frozen=True)
class Cut:
    """What rows came to. An episode that began in the last row has no step yet and is not among them."""

    done: list[SingleAgentEpisode]  # in the order of their ends: by row, then by lane
    ongoing: list[SingleAgentEpisode]  # by lane; what follows are chunks with the same ids
    lengths: Array  # (done,) int64, with the chunks that were given out before
    returns: Array  # (done,) float64, the same
    lanes: Array  # (done,) int64


@dataclass(frozen=True)
class _Spans:
    """Parts of lanes that belong to one episode each. Columns count observations; an action has that of what it saw."""

    lane: Array
    begin: Array  # the column of the first observation
    end: Array  # the column of the last one
    row: Array  # of the last step
    over: Array  # bool: the episode ended
    goes_on: Array  # bool: it began before these rows


class EpisodeCutter:
    """Cuts rows, call after call: knows which episodes go on, and keeps their last `lookback` steps."""

    def __init__(
        self, lanes: int, observation_space: gym.Space[Any], action_space: gym.Space[Any], lookback: int = 1
    ) -> None:
        self.lanes = lanes
        self.lookback = lookback
        every = (observation_space, action_space, REWARD_SPACE, None)
        # RLlib takes 5 us to look into a space; so episodes and buffers are made like some that have looked.
        self._like = [InfiniteLookbackBuffer(space=space) for space in every]
        model = SingleAgentEpisode(observation_space=observation_space, action_space=action_space)
        self._fields = [(name, getattr(model, name)) for name in SingleAgentEpisode.__slots__]

    def begin(self, observation: Array) -> None:
        """New episodes in all lanes, which show `observation`, (lanes, ...). What was added, not cut, is forgotten."""
        self._ids = [uuid.uuid4().hex for _ in range(self.lanes)]
        self._age = np.zeros(self.lanes, dtype=np.int64)  # steps of the episode under way
        self._sum = np.zeros(self.lanes)  # its rewards
        self._resting = np.zeros(self.lanes, dtype=np.bool_)  # the lane's episode ended: the next row begins one
        seen = np.zeros((self.lanes, self.lookback + 1, *observation.shape[1:]), dtype=observation.dtype)
        seen[:, -1] = observation
        self._before = {OBSERVATION: seen}  # the last columns by name
        self._parts: list[Rows] = []
        self._last = self._resting  # whose last added step was its episode's last

    def add(self, rows: Rows) -> tuple[int, int]:
        """Takes the next rows; how many of their cells are steps of an episode, and how many episodes they end."""
        ended = rows.ended
        begins = int(self._last.sum()) + int(ended[:-1].sum())
        self._parts.append(rows)
        self._last = ended[-1]
        return ended.size - begins, int(ended.sum())

    def cut(self) -> Cut:
        """Episodes and chunks of all rows that were added, which follow on those of the last cut."""
        parts, self._parts = self._parts, []
        if not parts:
            return Cut([], [], np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        table, infos = self._columns(parts)
        terminated, truncated = _joined(parts, "terminated"), _joined(parts, "truncated")
        spans = _spans(terminated | truncated, self._resting, self.lookback)
        age = np.where(spans.goes_on, self._age[spans.lane], 0)
        sums = np.zeros((self.lanes, table[REWARD].shape[1] + 1))
        np.cumsum(table[REWARD], axis=1, out=sums[:, 1:])
        sum_ = sums[spans.lane, spans.end] - sums[spans.lane, np.minimum(spans.begin, spans.end)]
        sum_ += np.where(spans.goes_on, self._sum[spans.lane], 0.0)
        length = spans.end - spans.begin + age
        ids = [
            self._ids[lane] if goes_on else uuid.uuid4().hex
            for lane, goes_on in zip(spans.lane.tolist(), spans.goes_on.tolist(), strict=True)
        ]
        ended = spans.over, terminated[spans.row, spans.lane], truncated[spans.row, spans.lane]
        episodes = self._episodes(spans, table, infos, ids, age, ended)
        count = int(spans.over.sum())
        order = np.lexsort((spans.lane, spans.end, ~spans.over))
        self._remember(spans, table | infos, ids, length, sum_)
        done, rest = order[:count], np.sort(order[count:])
        return Cut(
            [episodes[index] for index in done],
            [episodes[index] for index in rest if spans.end[index] > spans.begin[index]],
            length[done],
            sum_[done],
            spans.lane[done],
        )

    # ---- columns ---------------------------------------------------------------------------------------------------

    def _columns(self, parts: Sequence[Rows]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Everything as (lanes, columns, ...), behind what is kept of the columns before."""
        table = {OBSERVATION: self._followed(OBSERVATION, [part.observation for part in parts], self.lookback + 1)}
        table[ACTION] = self._followed(ACTION, [part.action for part in parts], self.lookback)
        table[REWARD] = self._followed(REWARD, [part.reward for part in parts], self.lookback)
        for name in parts[0].outputs:
            table[name] = self._followed(name, [part.outputs[name] for part in parts], self.lookback)
        infos: dict[str, Array] = {}
        for name in {name: None for part in parts for name in part.infos}:
            known = next(part.infos[name] for part in parts if name in part.infos)
            nothing = np.nan if known.dtype.kind == "f" else 0
            arrays = [
                part.infos[name] if name in part.infos else np.full(part.reward.shape, nothing, known.dtype)
                for part in parts
            ]
            infos[INFO + name] = self._followed(INFO + name, arrays, self.lookback + 1, nothing)
        return table, infos

    def _followed(self, name: str, arrays: Sequence[Array], kept: int, nothing: float = 0) -> Array:
        rows = sum(map(len, arrays))
        first = arrays[0]
        columns = np.empty((self.lanes, kept + rows, *first.shape[2:]), dtype=first.dtype)
        columns[:, :kept] = self._before.get(name, nothing)
        for array in arrays:
            columns[:, kept : kept + len(array)] = array.swapaxes(0, 1)
            kept += len(array)
        return columns

    def _remember(
        self, spans: _Spans, columns: Mapping[str, Array], ids: Sequence[str], length: Array, sum_: Array
    ) -> None:
        """The state after the last row; its spans, one a lane, are the last of `spans`."""
        last = slice(len(spans.lane) - self.lanes, None)
        self._resting = spans.end[last] < spans.begin[last]
        self._ids = list(ids[last])
        self._age, self._sum = length[last], sum_[last]
        self._last = self._resting
        kept = {name: self.lookback + (name == OBSERVATION or name.startswith(INFO)) for name in columns}
        self._before = {name: array[:, array.shape[1] - kept[name] :].copy() for name, array in columns.items()}

    # ---- episodes --------------------------------------------------------------------------------------------------

    def _episodes(
        self,
        spans: _Spans,
        table: Mapping[str, Array],
        infos: Mapping[str, Array],
        ids: Sequence[str],
        age: Array,
        ended: tuple[Array, Array, Array],
    ) -> list[SingleAgentEpisode | None]:
        seen, acted, rewarded = (table[name] for name in (OBSERVATION, ACTION, REWARD))
        outputs = {name: array for name, array in table.items() if name not in (OBSERVATION, ACTION, REWARD)}
        back = np.minimum(age, self.lookback)
        over, terminated, truncated = (flags.tolist() for flags in ended)
        made: list[SingleAgentEpisode | None] = []
        columns = zip(spans.lane.tolist(), spans.begin.tolist(), spans.end.tolist(), back.tolist(), strict=True)
        for index, (lane, begin, end, lookback) in enumerate(columns):
            if end <= begin:
                made.append(None)  # nothing happened yet
                continue
            where, all_of_it = (lane, slice(begin - lookback, end)), (lane, slice(begin - lookback, end + 1))
            episode = self._blank()
            episode.id_ = ids[index]
            episode.t_started = int(age[index])
            episode.t = episode.t_started + end - begin
            episode.is_terminated = over[index] and terminated[index]
            episode.is_truncated = over[index] and truncated[index]
            episode.observations = _buffer(self._like[0], seen[all_of_it], lookback)
            episode.infos = _buffer(self._like[3], _info_dicts(infos, all_of_it, end + 1 - begin + lookback), lookback)
            episode.actions = _buffer(self._like[1], acted[where], lookback)
            episode.rewards = _buffer(self._like[2], rewarded[where], lookback)
            episode.extra_model_outputs = {n: _buffer(self._like[3], a[where], lookback) for n, a in outputs.items()}
            made.append(episode)
        return made

    def _blank(self) -> SingleAgentEpisode:
        """An episode of our spaces with nothing in it; RLlib's constructor would look into the spaces (30 us)."""
        episode = SingleAgentEpisode.__new__(SingleAgentEpisode)
        for name, value in self._fields:
            setattr(episode, name, value)
        episode._custom_data = {}
        return episode


def _buffer(like: InfiniteLookbackBuffer, data: Any, lookback: int) -> InfiniteLookbackBuffer:
    """A buffer of the same space as another."""
    buffer = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    buffer.__dict__.update(like.__dict__)
    buffer.data, buffer.lookback, buffer.finalized = data, lookback, not isinstance(data, list)
    return buffer


def _spans(ended: Array, resting: Array, now: int) -> _Spans:
    """Spans that ended, by lane and time; then one of each lane that goes on (its end before its begin: it rests).

    `now` is the column that the lanes show before the first row.
    """
    rows, lanes = ended.shape
    lane, row = np.nonzero(ended.T)
    end = row + now + 1
    first = now + resting.astype(np.int64)
    begin, after = first[lane], first.copy()
    same = lane[1:] == lane[:-1]
    begin[1:][same] = end[:-1][same] + 1
    after[lane] = end + 1  # numpy keeps the last of a lane
    every = np.arange(lanes)
    begin, lane = np.concatenate([begin, after]), np.concatenate([lane, every])
    return _Spans(
        lane=lane,
        begin=begin,
        end=np.concatenate([end, np.full(lanes, now + rows)]),
        row=np.concatenate([row, np.full(lanes, rows - 1)]),
        over=np.arange(len(lane)) < len(row),
        goes_on=(begin == now) & ~resting[lane],
    )


def _info_dicts(infos: Mapping[str, Array], where: tuple[int, slice], count: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, array in infos.items():
        name = name.removeprefix(INFO)
        for info, value in zip(made, array[where].tolist(), strict=True):
            if value == value and value is not False:  # NaN is not itself
                info[name] = value
    return made


def _joined(parts: Sequence[Rows], name: str) -> Array:
    arrays = [getattr(part, name) for part in parts]
    return np.asarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
