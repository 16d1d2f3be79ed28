"""A session under any schedule of duplicates, reorderings, retries, take-overs and lost answers that chance draws.

Its clients speak to three services over one store; the lanes tell a hash of their rows with every answer, so the
history checker sees what was done to them, and an undisturbed session is replayed beside it at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from dataclasses import replace

import hypothesis
import numpy as np
from counter_history import CounterHistory
from counter_lanes import FIELDS, CounterLanes, arrays_of, decode, encode
from gymnasium.vector import AutoresetMode
from history import Entry, digest, violations
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from line import Line, at_least

from simservice.errors import NeedsReset, SequenceGap, SessionClosed, SimserviceError, StoreUnavailable
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig

CONFIG = SessionConfig(snapshot_every_steps=6, replies_kept=3)
NUM_ENVS, SERVICES = 2, 3
FACTORS = np.array([[1_000_003], [998_244_353], [19_260_817], [7_368_787]])
BOOKS = "books"


class BookedLanes(CounterLanes):
    """Counter lanes whose answers carry a hash of their rows, before and after."""

    def _step(self, lanes, command):
        return self._booked(lanes, lambda: CounterLanes._step(self, lanes, command))

    def _reset(self, lanes, command):
        return self._booked(lanes, lambda: CounterLanes._reset(self, lanes, command))

    def _booked(self, lanes, work):
        before = self.hashes(lanes)
        result = work()
        books = np.stack([before, self.hashes(lanes)], axis=-1)
        return replace(result, observation={**result.observation, BOOKS: books})

    def hashes(self, lanes):
        """(lanes,) of all that a lane is."""
        return (np.stack([self.rows[name][lanes] for name in FIELDS]) * FACTORS).sum(axis=0)


class SlowStore(MemoryStore):
    """Acknowledges an append some turns of the event loop after it took effect; may lose the append or its answer."""

    def __init__(self):
        super().__init__()
        self.turns = 0
        self.fails = None  # "lost": the next append has no effect, "unanswered": it has; both fail

    def append(self, token, epoch, sequence, payload, observe=None):
        fails, self.fails = self.fails, None
        done = asyncio.get_running_loop().create_future()
        if fails != "lost":
            done = super().append(token, epoch, sequence, payload)
        if fails is not None:
            with contextlib.suppress(SimserviceError):
                if done.done():
                    done.result()
            done = asyncio.get_running_loop().create_future()
            done.set_exception(StoreUnavailable("memory", "as the test wants it"))
        return asyncio.ensure_future(self._later(done, self.turns))

    @staticmethod
    async def _later(done, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        return await done


class Schedules(RuleBasedStateMachine):
    """What may happen to one session; `settle` says what must hold at the end."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.entries = []
        self.commands = CounterHistory()
        self.moment = 0.0
        self.sequence = 0  # of the last request that was answered
        self.store = SlowStore()
        self.services = [self.new_service() for _ in range(SERVICES)]
        self.holder, self.session = self.services[0], None
        self.resets = set()  # numbers whose step was refused until a reset, which then had the number
        self.former = []  # (service, session) that were taken over

    def new_service(self):
        return SessionService(BookedLanes(), self.store, decode=decode, config=CONFIG)

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize(seed=st.integers(0, 2**32), mode=st.sampled_from([AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]))
    def open(self, seed, mode):
        self.mode, self.seed = mode, seed
        self.session = self.run(self.holder.open(NUM_ENVS, mode, random.Random(seed).randbytes(16)))
        self.seeds = np.frombuffer(self.session.record.seeds, np.int64)
        self.run(self.ask(1))

    # ---- what may happen -------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def go_on(self, count):
        for _ in range(count):
            self.run(self.ask(self.sequence + 1))

    @rule(back=st.integers(0, CONFIG.replies_kept - 1))
    def repeat(self, back):
        if self.sequence > back:
            self.run(self.ask(self.sequence - back))

    @rule(ahead=st.integers(2, 2**40))
    def skip(self, ahead):
        error = self.run(self.ask(self.sequence + ahead))
        assert isinstance(error, SequenceGap) and error.details["expected"] == str(self.sequence + 1), error

    @rule(offsets=st.lists(st.integers(-2, 4), min_size=2, max_size=6))
    def race(self, offsets):
        """Several requests at once, in any order, some of them twice."""
        numbers = [number for offset in offsets if (number := self.sequence + offset) > 0]
        self.run(self.all_at_once(numbers))

    @rule(turns=st.integers(0, 8), service=st.integers(0, SERVICES - 1), again=st.booleans())
    def lose_the_stream(self, turns, service, again):
        """In mid-request; the client comes back, here or elsewhere, and sends it again."""
        self.run(self.cut(self.sequence + 1, turns))
        self.take_over(service)
        if again:
            self.run(self.ask(self.sequence + 1))

    @rule(service=st.integers(0, SERVICES - 1))
    def take_over(self, service):
        self.former.append((self.holder, self.session))
        self.holder = self.services[service]
        self.session = self.run(self.holder.resume(self.session.token))
        assert self.sequence <= self.session.last_sequence <= self.sequence + 1, "an acknowledged step was lost"
        if self.session.last_sequence > self.sequence:  # what was under way had been done: its answer is still kept
            self.run(self.ask(self.session.last_sequence))

    @rule(which=st.integers(0, 99), offset=st.integers(-1, 2))
    def late_request_of_a_former_stream(self, which, offset):
        if self.former and self.sequence + offset > 0:
            service, session = self.former[which % len(self.former)]
            error = self.run(self.ask(self.sequence + offset, service, session))
            # A former owner that has not heard of its end may still give an old answer again, but do nothing new.
            assert error is not None or offset < 1

    @rule(how=st.sampled_from(["lost", "unanswered"]), service=st.integers(0, SERVICES - 1))
    def the_store_fails(self, how, service):
        self.store.fails = how
        error = self.run(self.ask(self.sequence + 1))
        # A request that is refused at once never reaches the store.
        assert isinstance(error, StoreUnavailable) or self.store.fails, error
        self.store.fails = None
        self.take_over(service)

    @rule(place=st.integers(0, SERVICES - 1), successor=st.integers(0, SERVICES - 1))
    def a_replica_dies(self, place, successor):
        self.run(self.services[place].stop())
        lost = self.services[place] is self.holder
        self.services[place] = self.new_service()
        if lost:
            self.take_over(successor)

    @rule(turns=st.integers(0, 6))
    def the_store_slows_down(self, turns):
        self.store.turns = turns

    # ---- how it is asked -------------------------------------------------------------------------------------------

    def command(self, sequence):
        """The same for the same number: retries send what was sent before."""
        if sequence in self.resets:
            return Reset()
        luck = random.Random(sequence * 7919 + self.seed)
        if sequence == 1 or luck.random() < 0.15:
            return Reset(seeds=np.array([luck.randrange(2**40) for _ in range(NUM_ENVS)]))
        return Step({"action": np.array([luck.randrange(10) for _ in range(NUM_ENVS)])})

    async def ask(self, sequence, service=None, session=None):
        """One request; what it got, or its error, goes into the history. Returns the error."""
        command, began = self.command(sequence), self.tick()
        call = "step" if isinstance(command, Step) else "reset"
        entry = Entry(session=self.session.token, call=call, sequence=sequence, asked=encode(command), began_s=began)
        try:
            result = await (service or self.holder).apply(session or self.session, sequence, command, encode(command))
        except SimserviceError as error:
            self.entries.append(replace(entry, ended_s=self.tick()))
            if isinstance(error, NeedsReset):
                self.resets.add(sequence)
                return await self.ask(sequence, service, session)
            return error
        self.answered(entry, command, result)
        return None

    def answered(self, entry, command, result):
        before, after = result.observation[BOOKS].T
        self.sequence = max(self.sequence, entry.sequence)
        self.commands.asked(entry.sequence, command)
        self.commands.answered(entry.sequence, result)
        self.entries.append(
            replace(
                entry, answered=digest(*arrays_of(result).values()), ended_s=self.tick(), before=before, after=after
            )
        )

    async def all_at_once(self, numbers):
        await asyncio.gather(*[self.ask(number) for number in numbers])

    async def cut(self, sequence, turns):
        task = asyncio.create_task(self.ask(sequence))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    def tick(self):
        self.moment += 1.0
        return self.moment

    # ---- what must hold --------------------------------------------------------------------------------------------

    def teardown(self):
        try:
            if self.session is not None:
                self.settle()
        finally:
            for service in self.services:  # one that does not know yet that it lost the session lets its lanes go
                self.run(service.stop())
            self.loop.close()
        assert [service.engine.lanes_in_use for service in self.services] == [0] * SERVICES

    def settle(self):
        """Closes; then reads the history."""
        self.run(self.holder.close(self.session))
        self.entries.append(Entry(session=self.session.token, call="close", answered=b"", ended_s=self.tick()))
        error = self.run(self.ask(self.sequence + 1))
        assert isinstance(error, SessionClosed), error
        broken = violations(self.entries)
        assert not broken, "\n".join(broken)
        self.run(self.commands.check(NUM_ENVS, self.mode, self.seeds, BookedLanes))


def play(examples, seed=None, smallest=True, told=lambda done: None):
    """So many schedules; raises the smallest that breaks a rule, or just the first. Returns how many were played."""
    played = itertools.count(1)
    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if smallest else [])]
    quick = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=12,
        deadline=None,
        phases=phases,
        report_multiple_bugs=False,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    class Counted(Schedules):
        def teardown(self):
            super().teardown()
            told(next(played))

    run_state_machine_as_test(Counted if seed is None else hypothesis.seed(seed)(Counted), settings=quick)
    return next(played) - 1


def ten_thousand(stage, options, told):
    wanted = 500 if options.short else 10_000
    played = play(wanted, options.seed, told=lambda done: told(f"{done:,} of {wanted:,}", done / wanted))
    yield at_least("schedules in which every rule of the history held", played, wanted)


LINES = (Line("schedules", "10,000 random schedules of duplicates, reorderings and retries", ten_thousand),)
