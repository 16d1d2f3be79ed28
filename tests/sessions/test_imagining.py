"""Rollouts of sessions: exactly once, without their answers being kept; repeated, replayed, broken off, handed over."""

import asyncio
import secrets
import threading
from contextlib import aclosing

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from pilots import LinearPolicy
from toy import Toy, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ReplicaDraining,
    SequenceGap,
    SessionFenced,
    StoreUnavailable,
    UnknownPolicy,
)
from simservice.protocol.imagine import encode_imagine, joined
from simservice.protocol.messages import encode_step
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.commands import CommandCodec
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig
from simservice.types import Imagine, PolicyUse, leaves_of

LANES, STEPS = 5, 20
SPEC = toy_spec(max_episode_steps=9)
ACTION = leaves_of(SPEC.action_space, "action")


class Shelf:
    """The policies of one tenant, by number; None: they have gone."""

    def __init__(self):
        self.policies = {f"{seed:064x}": LinearPolicy(seed=seed) for seed in range(4)}
        self.gate = asyncio.Event()
        self.gate.set()

    async def loaded(self, tenant, content_hash):
        await self.gate.wait()
        if content_hash not in self.policies:
            raise UnknownPolicy(content_hash)
        return self.policies[content_hash]


class Replica:
    """A process, as far as sessions can tell."""

    def __init__(self, store, shelf=None, **config):
        codec = CommandCodec(SPEC, 0)
        self.engine = Engine(Toy(SPEC, ToyConfig(noise=0.2, bound=2.0)), capacity=64)
        self.engine.start()
        self.shelf = shelf or Shelf()
        self.service = SessionService(
            self.engine,
            store,
            decode=codec.stored_command,
            replies=codec,
            config=SessionConfig(**config),
            policies=self.shelf,
        )

    async def open(self, mode=AutoresetMode.NEXT_STEP):
        session = await self.service.open(LANES, mode, secrets.token_bytes(16))
        await self.reset(session)
        return session

    async def reset(self, session):
        request = pb.PlayRequest(sequence=1, reset=pb.Reset(seeds=np.arange(LANES, dtype="<i8").tobytes()))
        await self.service.apply(session, 1, Reset(seeds=np.arange(LANES)), request.SerializeToString())

    async def step(self, session, sequence):
        actions = {"action": np.random.default_rng(sequence).integers(0, 3, LANES)}
        request = pb.PlayRequest(sequence=sequence, step=encode_step(ACTION, actions, LANES))
        return await self.service.apply(session, sequence, Step(actions), request.SerializeToString())

    def rolling(self, session, sequence, command=None, timeout_ms=0):
        command = command or rollout_of(sequence)
        request = pb.PlayRequest(sequence=sequence, imagine=encode_imagine(command, ACTION, LANES))
        return self.service.imagine(session, sequence, command, request.SerializeToString(), timeout_ms)

    async def roll(self, session, sequence, command=None, timeout_ms=0):
        return joined([part async for part in self.rolling(session, sequence, command, timeout_ms)])

    async def vanish(self):
        await self.service.stop()
        self.engine.stop()


def rollout_of(sequence):
    """Every other one by a script."""
    if sequence % 2:
        actions = {"action": np.random.default_rng(sequence).integers(0, 3, (STEPS, LANES))}
        return Imagine(steps=STEPS, actions=actions, advance=True)
    return Imagine(steps=STEPS, policy=PolicyUse(content_hash=f"{sequence % 4:064x}"), advance=True)


def same(one, other):
    """The same bits."""
    return one.observation["observation"].tobytes() == other.observation["observation"].tobytes() and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("reward", "terminated", "truncated")
    )


def run(scenario, store=None, **config):
    """A scenario with one replica."""

    async def within():
        replica = Replica(store or MemoryStore(), **config)
        try:
            return await asyncio.wait_for(scenario(replica), 60)
        finally:
            await replica.vanish()

    return asyncio.run(within())


async def undisturbed(count, mode=AutoresetMode.NEXT_STEP):
    """The answers to requests 2 to count, from one replica."""
    replica = Replica(MemoryStore())
    session = await replica.open(mode)
    answers = {number: await replica.roll(session, number) for number in range(2, count + 1)}
    await replica.vanish()
    return answers


# ---- exactly once ----------------------------------------------------------------------------------------------------


def test_a_repeated_rollout_gives_the_first_bits_and_advances_nothing():
    async def scenario(replica):
        session = await replica.open()
        first = await replica.roll(session, 2)
        for _ in range(2):
            assert same(await replica.roll(session, 2), first)
        third = await replica.roll(session, 3)
        expected = await undisturbed(3)
        assert same(first, expected[2]) and same(third, expected[3])
        assert replica.service.stats().repeats == 2

    run(scenario)


def test_its_answer_can_be_fetched_until_the_next_request_is_done():
    async def scenario(replica):
        session = await replica.open()
        await replica.roll(session, 2)
        await replica.step(session, 3)
        await replica.roll(session, 4)
        with pytest.raises(SequenceGap):
            await replica.roll(session, 2)
        kept = await anext(replica.rolling(session, 3))
        assert kept.reward.tobytes() == (await replica.step(session, 3)).reward.tobytes()
        assert same(await replica.roll(session, 4), await replica.roll(session, 4))
        assert set(session.replies) == {1, 3, 4}
        with pytest.raises(SequenceGap, match="expects 5"):
            await replica.roll(session, 6)

    run(scenario)


def test_what_if_carries_no_number_and_is_not_stored():
    async def scenario(replica):
        session = await replica.open()
        before = await replica.engine.snapshot(session.lanes)
        stored = await store.claim(session.token)
        session = await replica.service.resume(session.token)
        one, two = [
            await replica.roll(session, 0, Imagine(steps=9, policy=PolicyUse(content_hash="0" * 64))) for _ in "12"
        ]
        assert same(one, two)
        assert (await store.claim(session.token)).journal == stored.journal
        session = await replica.service.resume(session.token)
        assert await replica.engine.snapshot(session.lanes) == before
        with pytest.raises(InvalidInput, match="carries 0"):
            await replica.roll(session, 2, Imagine(steps=9, policy=PolicyUse(content_hash="0" * 64)))

    store = MemoryStore()
    run(scenario, store)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_another_replica_repeats_the_last_rollout_and_goes_on_bit_for_bit(mode):
    async def scenario(replica):
        session = await replica.open(mode)
        answers = {number: await replica.roll(session, number) for number in range(2, 8)}
        await asyncio.sleep(0)
        other = Replica(store)
        resumed = await other.service.resume(session.token)
        assert resumed.last_sequence == 7
        assert same(await other.roll(resumed, 7), answers[7])
        answers[8] = await other.roll(resumed, 8)
        expected = await undisturbed(8, mode)
        assert all(same(answers[number], expected[number]) for number in expected)
        with pytest.raises(SessionFenced):
            await replica.roll(session, 8)
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_the_store_holds_where_the_last_rollout_began_and_the_rollout_itself():
    """Neither its answer nor a long replay, and the answers of steps that a repeat may ask for."""

    async def scenario(replica):
        session = await replica.open()
        steps = {number: await replica.step(session, number) for number in (2, 3)}
        for number in range(4, 9):
            await replica.roll(session, number)
        await asyncio.sleep(0.01)
        recovery = await store.claim(session.token)
        assert len(recovery.journal) <= 4  # 64 steps of rollouts between two snapshots
        assert max(map(len, recovery.journal)) < 1024
        other = Replica(store)
        resumed = await other.service.resume(session.token)
        for number, answer in steps.items():
            assert (await other.step(resumed, number)).reward.tobytes() == answer.reward.tobytes()
        assert resumed.stored_bytes < 20_000
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_a_long_rollout_is_the_only_one_that_a_replay_plays():
    async def scenario(replica):
        session = await replica.open()
        for number in range(2, 6):
            await replica.roll(
                session, number, Imagine(steps=64, policy=PolicyUse(content_hash="0" * 64), advance=True)
            )
            await asyncio.sleep(0.01)
            recovery = await store.record(session.token)
        recovery = await store.claim(session.token)
        assert (recovery.snapshot_sequence, recovery.last_sequence, len(recovery.journal)) == (4, 5, 1)
        session = await replica.service.resume(session.token)
        assert session.journal_bytes == len(recovery.journal[0])

    store = MemoryStore()
    run(scenario, store)


# ---- broken off ------------------------------------------------------------------------------------------------------


def test_one_that_is_broken_off_has_not_been_done_and_its_number_is_free():
    async def scenario(replica):
        session = await replica.open()
        before = await replica.engine.snapshot(session.lanes)
        policy = replica.shelf.policies["0" * 64]
        policy.hold = threading.Event()
        command = Imagine(steps=STEPS, policy=PolicyUse(content_hash="0" * 64), advance=True)
        waiting = asyncio.ensure_future(replica.roll(session, 2, command))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        policy.hold.set()
        assert session.last_sequence == 1
        assert await replica.engine.snapshot(session.lanes) == before
        assert same(await replica.roll(session, 2), (await undisturbed(2))[2])

    run(scenario)


def test_one_that_takes_longer_than_its_sender_waits_has_not_been_done():
    async def scenario(replica):
        session = await replica.open()
        policy = replica.shelf.policies["0" * 64]
        policy.hold = threading.Event()
        command = Imagine(steps=STEPS, policy=PolicyUse(content_hash="0" * 64), advance=True)
        asyncio.get_running_loop().call_later(0.1, policy.hold.set)
        with pytest.raises(DeadlineExceeded, match="had not ended"):
            await replica.roll(session, 2, command, timeout_ms=10)
        assert session.last_sequence == 1
        assert same(await replica.roll(session, 2), (await undisturbed(2))[2])

    run(scenario)


class Waiting(MemoryStore):
    """A store whose appends can be held up, or fail after they took effect."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False

    def append(self, *arguments):
        async def late():
            await self.gate.wait()
            await MemoryStore.append(self, *arguments)
            if self.failing:
                raise StoreUnavailable("nowhere")

        return asyncio.ensure_future(late())


def test_one_whose_caller_goes_while_it_is_journaled_has_been_done():
    async def scenario(replica):
        session = await replica.open()
        store.gate.clear()
        waiting = asyncio.ensure_future(replica.roll(session, 2))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        store.gate.set()
        resumed = await replica.service.resume(session.token)
        assert resumed.last_sequence == 2
        expected = await undisturbed(3)
        assert same(await replica.roll(resumed, 2), expected[2])
        assert same(await replica.roll(resumed, 3), expected[3])

    store = Waiting()
    run(scenario, store)


def test_one_that_may_be_journaled_or_not_is_found_out_when_the_session_is_resumed():
    async def scenario(replica):
        session = await replica.open()
        store.failing = True
        with pytest.raises(StoreUnavailable):
            await replica.roll(session, 2)
        store.failing = False
        resumed = await replica.service.resume(session.token)
        assert resumed.last_sequence == 2
        assert same(await replica.roll(resumed, 2), (await undisturbed(2))[2])

    store = Waiting()
    run(scenario, store)


def test_a_fenced_owner_never_gives_the_last_part():
    async def scenario(replica):
        session = await replica.open()
        other = Replica(store)
        policy = replica.shelf.policies["0" * 64]
        policy.hold = threading.Event()
        command = Imagine(steps=STEPS, policy=PolicyUse(content_hash="0" * 64), advance=True)
        waiting = asyncio.ensure_future(replica.roll(session, 2, command))
        await asyncio.sleep(0.05)
        resumed = await other.service.resume(session.token)
        policy.hold.set()
        with pytest.raises(SessionFenced):
            await waiting
        assert resumed.last_sequence == 1
        assert same(await other.roll(resumed, 2), (await undisturbed(2))[2])
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_what_if_asked_by_a_fenced_owner_is_answered_by_why():
    async def scenario(replica):
        session = await replica.open()
        other = Replica(store)
        await other.service.resume(session.token)
        policy = replica.shelf.policies["0" * 64]
        policy.hold = threading.Event()
        asking = asyncio.ensure_future(
            replica.roll(session, 0, Imagine(steps=STEPS, policy=PolicyUse(content_hash="0" * 64)))
        )
        await asyncio.sleep(0.05)  # the store has told whose the session is
        policy.hold.set()
        with pytest.raises(SessionFenced):
            await asking
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_a_stream_that_stops_reading_parts_holds_only_its_own_session():
    async def scenario(replica):
        session, other = await replica.open(), await replica.open()
        async with aclosing(replica.rolling(session, 0, Imagine(steps=4000, actions=many, copies=64))) as parts:
            await anext(parts)
            assert same(await replica.roll(other, 2), (await undisturbed(2))[2])
        assert same(await replica.roll(session, 2), (await undisturbed(2))[2])

    many = {"action": np.ones((4000, 64 * LANES), np.int64)}
    run(scenario)


def test_a_stream_that_stopped_reading_keeps_its_session_from_nobody(monkeypatch):
    """A half-open connection, as far as sessions can tell."""
    monkeypatch.setattr("simservice.engine.player.PART_BYTES", 2**14)  # so that the rollout has many parts

    async def scenario(replica):
        session = await replica.open()
        command = Imagine(steps=4000, policy=PolicyUse(content_hash="0" * 64), advance=True)
        parts = replica.rolling(session, 2, command)
        await anext(parts)
        await asyncio.sleep(0.3)  # its rollout waits for its reader
        resumed = await asyncio.wait_for(replica.service.resume(session.token), 5)
        assert resumed.last_sequence == 1
        assert same(await replica.roll(resumed, 2), (await undisturbed(2))[2])
        with pytest.raises(SessionFenced):
            while True:
                await anext(parts)

    run(scenario)


@pytest.mark.parametrize("soon", [False, True])
def test_a_caller_that_goes_as_it_begins_leaves_nothing_of_it(soon):
    async def scenario(replica):
        session = await replica.open()
        imagine = replica.engine.imagine

        def begin(*arguments):
            if soon:
                asyncio.get_running_loop().call_soon(waiting.cancel)
            else:
                waiting.cancel()
            return imagine(*arguments)

        replica.engine.imagine = begin
        many = Imagine(steps=4000, actions={"action": np.ones((4000, 64 * LANES), np.int64)}, copies=64)
        waiting = asyncio.ensure_future(replica.roll(session, 0, many))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        replica.engine.imagine = imagine
        async with asyncio.timeout(5):
            while replica.engine._ticker.rollouts:
                await asyncio.sleep(0.01)
        assert not replica.service._imagining._under_way
        assert same(await replica.roll(session, 2), (await undisturbed(2))[2])

    run(scenario)


# ---- handed over -----------------------------------------------------------------------------------------------------


def test_a_replica_that_ends_breaks_a_rollout_off_and_another_one_plays_it():
    async def scenario(replica):
        session = await replica.open()
        policy = replica.shelf.policies["0" * 64]
        policy.hold = threading.Event()
        command = Imagine(steps=STEPS, policy=PolicyUse(content_hash="0" * 64), advance=True)
        waiting = asyncio.ensure_future(replica.roll(session, 2, command))
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.05, policy.hold.set)
        await replica.service.put_down_all()
        with pytest.raises(ReplicaDraining):
            await waiting
        other = Replica(store)
        resumed = await other.service.resume(session.token)
        assert resumed.last_sequence == 1
        assert same(await other.roll(resumed, 2), (await undisturbed(2))[2])
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


ENDS = {
    "put down": (ReplicaDraining, lambda replica, session: replica.service.put_down(session)),
    "stopped": (ReplicaDraining, lambda replica, session: replica.service.stop()),
    "taken over": (SessionFenced, lambda replica, session: replica.service.resume(session.token)),
}


@pytest.mark.parametrize(("error", "end"), ENDS.values(), ids=ENDS)
def test_one_whose_policy_is_on_its_way_keeps_its_session_from_nobody(error, end):
    async def scenario(replica):
        session = await replica.open()
        replica.shelf.gate.clear()
        parts = replica.rolling(session, 2, Imagine(steps=4000, policy=PolicyUse(content_hash="0" * 64), advance=True))
        first = asyncio.ensure_future(anext(parts))  # and no part more, however many there are
        await asyncio.sleep(0.01)
        ending = asyncio.ensure_future(end(replica, session))
        await asyncio.sleep(0.01)
        replica.shelf.gate.set()
        with pytest.raises(error):
            await first
        await asyncio.wait_for(ending, 5)
        assert session.end is not None

    run(scenario)


def test_a_replay_whose_caller_goes_does_nothing_more_to_its_lanes():
    async def scenario(replica):
        session = await replica.open()
        await replica.roll(session, 2)
        other = Replica(store)
        other.shelf.gate.clear()
        resuming = asyncio.ensure_future(other.service.resume(session.token))
        await asyncio.sleep(0.05)
        assert other.engine.lanes_in_use == LANES
        resuming.cancel()
        await asyncio.wait([resuming])
        next_owner = await other.open()
        before = await other.engine.snapshot(next_owner.lanes)
        other.shelf.gate.set()
        await asyncio.sleep(0.1)
        assert await other.engine.snapshot(next_owner.lanes) == before
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_the_last_part_of_a_long_rollout_leaves_before_its_snapshot_does():
    left = []

    class Watched(MemoryStore):
        async def snapshot(self, *words):
            left.append("snapshot")
            await super().snapshot(*words)

    async def scenario(replica):
        session = await replica.open()
        for number in (2, 4):
            command = Imagine(steps=64, policy=PolicyUse(content_hash="0" * 64), advance=True)
            async for part in replica.rolling(session, number, command):
                if part.last:
                    left.append("last part")
            await asyncio.sleep(0.01)
            await replica.step(session, number + 1)
        assert left == ["last part", "snapshot"] * 2

    run(scenario, Watched())


def test_a_session_that_is_put_down_after_a_rollout_has_its_answer_elsewhere():
    async def scenario(replica):
        session = await replica.open()
        step = await replica.step(session, 2)
        third = await replica.roll(session, 3)
        await replica.service.put_down_all()
        recovery = await store.claim(session.token)
        assert (recovery.snapshot_sequence, len(recovery.journal)) == (2, 1)
        other = Replica(store)
        resumed = await other.service.resume(session.token)
        assert (await other.step(resumed, 2)).reward.tobytes() == step.reward.tobytes()
        assert same(await other.roll(resumed, 3), third)
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_a_journaled_rollout_whose_policy_has_gone_is_told_as_such():
    async def scenario(replica):
        session = await replica.open()
        await replica.roll(session, 2)
        other = Replica(store)
        other.shelf.policies.clear()
        with pytest.raises(InternalError, match="cannot be played again: no policy 0000"):
            await other.service.resume(session.token)
        other.shelf.policies.update(replica.shelf.policies)
        assert (await other.service.resume(session.token)).last_sequence == 2
        await other.vanish()

    store = MemoryStore()
    run(scenario, store)


def test_a_policy_that_nobody_put_is_refused_and_nothing_is_done():
    async def scenario(replica):
        session = await replica.open()
        with pytest.raises(UnknownPolicy):
            await replica.roll(session, 2, Imagine(steps=9, policy=PolicyUse(content_hash="f" * 64), advance=True))
        assert same(await replica.roll(session, 2), (await undisturbed(2))[2])

    run(scenario)
