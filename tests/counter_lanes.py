"""An exact engine of integer lanes for tests of sessions: the contract of LaneEngine without a device or a rounding."""

import asyncio
import json
from collections import deque

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from simservice.errors import CapacityExhausted, DeadlineExceeded, InternalError, NeedsReset
from simservice.sessions.lanes import Forget, Fork, Reset, Restore, Save, Step
from simservice.types import ResetResult, StepResult, WorldSpec

MODULUS = 1_000_003
FIELDS = ("value", "seed", "elapsed", "ended")  # one int64 each: what a lane is


def counter_spec(version="0123456789ab"):
    return WorldSpec(
        name="counter",
        version=version,
        family="counter",
        observation_space=spaces.Box(0, MODULUS, (1,), np.int64),
        action_space=spaces.Discrete(10),
    )


class CounterLanes:
    """A lane's value is a hash of its seed and all its actions, so a step lost, repeated or reordered shows for ever.

    Work is done one event at a time in the order it was handed in, each in a later turn of the event loop; while `held`
    is set it waits. `fail_next` makes the next step fail as a broken device would.
    """

    def __init__(self, capacity=64, version="0123456789ab"):
        self.spec = counter_spec(version)
        self.capacity = capacity
        self.lane_bytes = 8 * len(FIELDS)
        self.rows = {name: np.zeros(capacity, np.int64) for name in FIELDS}
        self.mode = [AutoresetMode.NEXT_STEP] * capacity
        self.free = list(range(capacity))
        self.held = False
        self.fail_next = False
        self.refuse_at_once = False  # whether a refusal is known when step() returns, or only later
        self.steps_done = 0
        self.work = deque()
        self.before = self.after = lambda: None

    @property
    def lanes_in_use(self):
        return self.capacity - len(self.free)

    def allocate(self, count, mode, seeds, caution=None):
        if count > len(self.free):
            raise CapacityExhausted(count, self.lanes_in_use, self.capacity)
        lanes = np.array([self.free.pop() for _ in range(count)], np.int64)
        for name in FIELDS:
            self.rows[name][lanes] = 0
        self.rows["seed"][lanes] = seeds % MODULUS
        self.rows["ended"][lanes] = 2  # 2: never reset
        for lane in lanes:
            self.mode[lane] = mode
        return lanes

    def release(self, lanes):
        if self.work:
            self._hand_in(lambda: self.free.extend(lanes.tolist()))
        else:
            self.free.extend(lanes.tolist())

    def step(self, lanes, command: Step, beside=None):
        if self.refuse_at_once and not self.work and (error := self._refusal(lanes)):
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future
        return self._hand_in(lambda: self._step(lanes, command), lanes, beside)

    def reset(self, lanes, command: Reset, beside=None):
        return self._hand_in(lambda: self._reset(lanes, command), lanes, beside)

    def abandon(self, lanes):
        for place, (_, future, of) in enumerate(self.work):
            if of is not None and set(of) == set(lanes):
                self.work[place] = (self._too_late, future, of)

    def render(self, lanes):
        return self._hand_in(lambda: np.zeros((len(lanes), 2, 2, 3), np.uint8) + self.rows["value"][lanes[0]] % 256)

    def snapshot(self, lanes):
        return self._hand_in(lambda: b"".join(self.rows[name][lanes].tobytes() for name in FIELDS))

    def restore(self, lanes, snapshot):
        return self._hand_in(lambda: self._restore(lanes, snapshot))

    def copy(self, source, target, seeds):
        return self._hand_in(lambda: self._copy(source, target, seeds))

    def look(self, lanes):
        return self._hand_in(
            lambda: {"observation": np.where(self.rows["ended"][lanes] == 2, 0, self.rows["value"][lanes])[:, None]}
        )

    def accompany(self, before, after):
        self.before, self.after = before, after

    def let_go(self):
        """Does all the work that was held."""
        self.held = False
        self._do_all()

    # ---- inside ----

    def _hand_in(self, job, lanes=None, beside=None):
        future = asyncio.get_running_loop().create_future()
        self.work.append((job, future, lanes))
        if beside is not None:
            beside()
        if not self.held:
            asyncio.get_running_loop().call_soon(self._do_all)
        return future

    def _do_all(self):
        self.before()
        while self.work and not self.held:
            job, future, _ = self.work.popleft()
            try:
                result = job()
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # a failure nobody asks for is no failure of the test
            else:
                if not future.done():
                    future.set_result(result)
        self.after()

    @staticmethod
    def _too_late():
        raise DeadlineExceeded.not_begun()

    def _refusal(self, lanes):
        ended = self.rows["ended"][lanes]
        disabled = np.array([self.mode[lane] is AutoresetMode.DISABLED for lane in lanes])
        stuck = (ended == 2) | ((ended == 1) & disabled)
        return NeedsReset(np.flatnonzero(stuck).tolist()) if stuck.any() else None

    def _step(self, lanes, command):
        if self.fail_next:
            self.fail_next = False
            raise InternalError("the device broke")
        if error := self._refusal(lanes):
            raise error
        value, ended, elapsed = (self.rows[name][lanes] for name in ("value", "ended", "elapsed"))
        again = ended == 1  # NEXT_STEP: this step starts the lane again
        seed = (self.rows["seed"][lanes] * 31 + 7) % MODULUS
        value = np.where(again, seed, (value * 137 + command.action["action"] * 11 + elapsed + 1) % MODULUS)
        self.rows["seed"][lanes] = np.where(again, seed, self.rows["seed"][lanes])
        self.rows["elapsed"][lanes] = np.where(again, 0, elapsed + 1)
        self.rows["value"][lanes] = value
        terminated = ~again & (value % 5 == 0)
        self.rows["ended"][lanes] = terminated
        self.steps_done += 1
        reward = np.where(again, 0.0, value.astype(np.float64))
        return StepResult({"observation": value[:, None].copy()}, reward, terminated, np.zeros(len(lanes), bool), {})

    def _reset(self, lanes, command):
        chosen = lanes if command.mask is None else lanes[command.mask]
        seeds = self.rows["seed"][chosen] * 31 + 7
        if command.seeds is not None:
            given = command.seeds if command.mask is None else command.seeds[command.mask]
            seeds = np.where(given >= 0, given, seeds)
        self.rows["seed"][chosen] = self.rows["value"][chosen] = seeds % MODULUS
        self.rows["elapsed"][chosen] = self.rows["ended"][chosen] = 0
        self.steps_done += 1
        return ResetResult({"observation": self.rows["value"][lanes][:, None].copy()}, {})

    def _restore(self, lanes, snapshot):
        for name, row in zip(FIELDS, np.frombuffer(snapshot, np.int64).reshape(len(FIELDS), -1), strict=True):
            self.rows[name][lanes] = row

    def _copy(self, source, target, seeds):
        for name in FIELDS:
            self.rows[name][target] = self.rows[name][source]
        if seeds is not None:
            self.rows["seed"][target] = seeds % MODULUS


def encode(command):
    """A command of the counter world as bytes, as a wire would carry it."""
    if isinstance(command, Step):
        return json.dumps({"action": command.action["action"].tolist()}).encode()
    if isinstance(command, Fork):
        lanes, seeds = (None if array is None else array.tolist() for array in (command.lanes, command.seeds))
        return json.dumps({"fork": [lanes, command.copies, command.fresh, seeds, command.key.hex()]}).encode()
    if isinstance(command, Save):
        return json.dumps({"save": 0}).encode()
    if isinstance(command, Restore | Forget):
        return json.dumps(vars(command)).encode()
    seeds = None if command.seeds is None else command.seeds.tolist()
    mask = None if command.mask is None else command.mask.tolist()
    return json.dumps({"seeds": seeds, "mask": mask}).encode()


def decode(payload):
    """The inverse of encode."""
    fields = json.loads(payload)
    if "action" in fields:
        return Step({"action": np.array(fields["action"], np.int64)})
    if "fork" in fields:
        lanes, copies, fresh, seeds, key = fields["fork"]
        lanes, seeds = (None if numbers is None else np.array(numbers, np.int64) for numbers in (lanes, seeds))
        return Fork(lanes, copies, fresh, seeds, bytes.fromhex(key))
    if "save" in fields:
        return Save()
    if "point" in fields:
        return Restore(fields["point"])
    if "points" in fields:
        return Forget(tuple(fields["points"]))
    mask = None if fields["mask"] is None else np.array(fields["mask"], bool)
    seeds = None if fields["seeds"] is None else np.array(fields["seeds"], np.int64)
    return Reset(mask=mask, seeds=seeds)


def same(left, right):
    """Whether two results are the same, bit for bit."""
    mine, yours = arrays_of(left), arrays_of(right)
    return mine.keys() == yours.keys() and all(
        mine[name].dtype == yours[name].dtype and mine[name].tobytes() == yours[name].tobytes() for name in mine
    )


def arrays_of(result):
    """Every array of a result by name."""
    found = {}
    for name, value in vars(result).items():
        if isinstance(value, dict):
            for path, item in value.items():
                found |= {
                    f"{name} {path} {part}": array for part, array in getattr(item, "__dict__", {"": item}).items()
                }
        elif value is not None and name != "spent":  # times are nobody's future
            found[name] = value
    return found
