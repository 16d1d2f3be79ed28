"""Fork, save, restore, forget; what they survive, what they cost, and that a session which kills is left alone."""

import asyncio
import pickle
import secrets

import numpy as np
import pytest
from counter_lanes import encode, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_service import NEXT_STEP, FailingStore, Replica, served

from simservice.errors import (
    CapacityExhausted,
    InvalidInput,
    PointsExhausted,
    QuotaExceeded,
    SequenceGap,
    SessionFenced,
    SessionQuarantined,
    StoreUnavailable,
    UnknownPoint,
)
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.lanes import Forget, Forgotten, Fork, Forked, Restore, Restored, Save, Saved
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.quotas import Tenant
from simservice.sessions.redis_store import RedisStore


async def ask(replica, session, sequence, command, **more):
    return await replica.service.branch(session, sequence, command, encode(command), **more)


def a_fork(lanes=None, copies=1, *, fresh=False, seeds=None, key=None):
    array = None if lanes is None else np.array(lanes)
    return Fork(array, copies, fresh, None if seeds is None else np.array(seeds), key or secrets.token_bytes(16))


def values(replica, session):
    return replica.engine.rows["value"][session.lanes].tolist()


# ---- fork ------------------------------------------------------------------------------------------------------------


@served
async def test_copies_with_the_same_luck_and_actions_go_the_parents_way():
    replica = Replica(MemoryStore())
    parent = await replica.begin(3)
    await replica.steps(parent, 2, 6)
    answer = await ask(replica, parent, 7, a_fork([2, 0], 2))
    child = await replica.service.resume(answer.token)
    assert (answer.num_envs, child.num_envs, child.mode) == (4, 4, parent.mode)
    for sequence in range(8, 60):
        ours = await replica.step(parent, sequence)
        theirs = await replica.step(child, sequence - 7, sequence % 10)
        for copy, lane in enumerate([2, 2, 0, 0]):
            assert theirs.observation["observation"][copy] == ours.observation["observation"][lane]
            assert theirs.terminated[copy] == ours.terminated[lane]
    await replica.service.stop()


@served
async def test_copies_with_fresh_luck_have_seeds_of_their_own():
    replica = Replica(MemoryStore())
    parent = await replica.begin(2)
    given_seeds = await ask(replica, parent, 2, a_fork([0], 3, fresh=True, seeds=[7, 8, 9]))
    drawn = await ask(replica, parent, 3, a_fork([0], 3, fresh=True))
    first, second = [await replica.service.resume(answer.token) for answer in (given_seeds, drawn)]
    assert replica.engine.rows["seed"][first.lanes].tolist() == [7, 8, 9]
    assert len(set(replica.engine.rows["seed"][second.lanes].tolist())) == 3
    assert values(replica, first) == values(replica, second) == [values(replica, parent)[0]] * 3
    await replica.service.stop()


@served
async def test_a_repeated_fork_makes_no_second_session():
    store = MemoryStore()
    replica = Replica(store)
    parent = await replica.begin()
    fork = a_fork()
    answer = await ask(replica, parent, 2, fork)
    assert await ask(replica, parent, 2, fork) is answer
    assert (replica.service.stats().open, len(store._sessions)) == (2, 2)
    await replica.service.stop()


@served
async def test_a_fork_is_answered_again_after_the_death_of_its_replica_and_its_session_lives():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    parent = await first.begin(3)
    await first.steps(parent, 2, 5)
    fork = a_fork([1], 4)
    answer = await ask(first, parent, 6, fork)
    there = values(first, parent)[1]
    successor = await second.service.resume(parent.token)  # the first one is dead and says nothing any more
    assert await ask(second, successor, 6, fork) == answer
    child = await second.service.resume(answer.token)
    assert values(second, child) == [there] * 4
    assert len(store._sessions) == 2
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_a_fork_that_died_half_way_is_done_again_with_the_same_session():
    store = FailingStore()
    first, second = Replica(store), Replica(store)
    parent = await first.begin()
    fork = a_fork(fresh=True)
    store.down = True  # the session was made, the journal does not know
    with pytest.raises(StoreUnavailable):
        await ask(first, parent, 2, fork)
    store.down = False
    (orphan,) = set(store._sessions) - {parent.token}
    luck = await store.claim(orphan)
    successor = await second.service.resume(parent.token)
    assert successor.last_sequence == 1
    answer = await ask(second, successor, 2, fork)
    assert (answer.token, len(store._sessions)) == (orphan, 2)
    assert (await store.claim(orphan)).snapshot == luck.snapshot, "fresh luck is drawn once"
    assert second.service.stats().lanes == 2, "its lanes come when it is resumed"
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_a_former_owner_forks_nothing():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    parent = await first.begin()
    await second.service.resume(parent.token)
    with pytest.raises(SessionFenced):
        await ask(first, parent, 2, a_fork())
    assert (first.service.stats().open, first.engine.lanes_in_use) == (0, 0)
    for replica in (first, second):
        await replica.service.stop()


@pytest.mark.parametrize(
    ("fork", "field"),
    [
        (a_fork([0, 2]), "lanes"),
        (a_fork([-1]), "lanes"),
        (a_fork([1, 1]), "lanes"),
        (a_fork(copies=0), "copies"),
        (a_fork(copies=17), "copies"),
        (a_fork(seeds=[1, 2]), "seeds"),
        (a_fork(fresh=True, seeds=[1]), "seeds"),
        (a_fork(fresh=True, seeds=[1, -1]), "seeds"),
        (a_fork(key=b"short"), "fork_key"),
    ],
)
def test_a_fork_that_cannot_be_meant_is_refused_and_uses_no_number(fork, field):
    @served
    async def check():
        replica = Replica(MemoryStore(), max_num_envs=32)
        parent = await replica.begin(2)
        with pytest.raises(InvalidInput, match=f"^{field}:"):
            await ask(replica, parent, 2, fork)
        await replica.step(parent, 2)
        await replica.service.stop()

    check()


@served
async def test_forked_lanes_count_against_capacity_and_quota():
    tenant = Tenant(name="lab", lanes=6)
    replica = Replica(MemoryStore(), capacity=12)
    parent = await replica.service.open(2, NEXT_STEP, secrets.token_bytes(16), tenant)
    with pytest.raises(QuotaExceeded, match="6 lanes, but 2 of its 6"):
        await ask(replica, parent, 1, a_fork(copies=3), tenant=tenant)
    other = await replica.begin(8)
    with pytest.raises(CapacityExhausted, match="8 lanes were asked for, but 10 of 12") as caught:
        await ask(replica, other, 2, a_fork())
    assert caught.value.retry_after_s is not None
    await ask(replica, parent, 1, a_fork(), tenant=tenant)
    assert (replica.service.stats().lanes, replica.engine.lanes_in_use) == (12, 12)
    await replica.service.stop()
    await replica.service.quotas.stop()


@served
async def test_a_forked_session_whose_stream_never_comes_gives_its_lanes_back():
    replica = Replica(MemoryStore(), detached_ttl_s=0.05)
    parent = await replica.begin()
    answer = await ask(replica, parent, 2, a_fork())
    while replica.engine.lanes_in_use > 2:
        await asyncio.sleep(0.01)
    assert (await replica.service.resume(answer.token)).num_envs == 2, "it is still in the store"
    await replica.service.stop()


# ---- save, restore, forget -------------------------------------------------------------------------------------------


@served
async def test_a_restored_session_goes_the_same_way_again():
    replica = Replica(MemoryStore())
    session = await replica.begin()
    before = await replica.steps(session, 2, 4)
    assert await ask(replica, session, 5, Save()) == Saved(5)
    once = [await replica.step(session, sequence, 3) for sequence in range(6, 30)]
    restored = await ask(replica, session, 30, Restore(5))
    assert restored.observation["observation"].tolist() == before[-1].observation["observation"].tolist()
    again = [await replica.step(session, sequence, 3) for sequence in range(31, 55)]
    assert all(same(*pair) for pair in zip(once, again, strict=True))
    await replica.service.stop()


@served
async def test_a_point_of_nobody_or_of_another_session_is_refused_and_uses_no_number():
    replica = Replica(MemoryStore())
    session, other = await replica.begin(), await replica.begin()
    await ask(replica, other, 2, Save())
    with pytest.raises(UnknownPoint, match="no point 2"):
        await ask(replica, session, 2, Restore(2))
    assert await ask(replica, session, 2, Save()) == Saved(2)
    assert await ask(replica, session, 3, Forget((2, 99))) == Forgotten()
    with pytest.raises(UnknownPoint):
        await ask(replica, session, 4, Restore(2))
    await replica.step(session, 4)
    await replica.service.stop()


@served
async def test_too_many_points_are_refused_with_the_limit_until_some_are_forgotten():
    replica = Replica(MemoryStore(), max_points=2)
    session = await replica.begin()
    for sequence in (2, 3):
        await ask(replica, session, sequence, Save())
    with pytest.raises(PointsExhausted, match="2 saved points"):
        await ask(replica, session, 4, Save())
    await ask(replica, session, 4, Forget((2,)))
    assert await ask(replica, session, 5, Save()) == Saved(5)
    await replica.service.stop()


@served
async def test_a_point_that_was_forgotten_after_a_restore_is_there_for_the_replay():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    session = await first.begin()
    await ask(first, session, 2, Save())
    await first.steps(session, 3, 5)
    await ask(first, session, 6, Restore(2))
    await ask(first, session, 7, Forget((2,)))
    answer = await first.step(session, 8)
    successor = await second.service.resume(session.token)
    assert same(await second.step(successor, 8), answer)
    assert isinstance(await ask(second, successor, 6, Restore(2)), Restored)
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_saves_cut_the_journal_and_forgotten_points_go_with_the_cut():
    store = MemoryStore()
    replica = Replica(store, snapshot_every_steps=10_000, replies_kept=4)
    session = await replica.begin()
    sequence, longest, points = 1, 0, 0
    for _ in range(100):
        await ask(replica, session, sequence + 1, Save())
        await ask(replica, session, sequence + 2, Restore(sequence + 1))
        await ask(replica, session, sequence + 3, Forget((sequence + 1,)))
        sequence += 3
        longest = max(longest, len(store._sessions[session.token].journal))
        points = max(points, len(store._sessions[session.token].points))
    assert longest <= 2 * (4 + 1) + 1
    assert points <= 5
    await replica.service.stop()


@served
async def test_a_journal_of_large_requests_is_cut_by_its_bytes():
    store = MemoryStore()
    replica = Replica(store, snapshot_every_steps=10_000, replies_kept=2, max_journal_bytes=2000)
    session = await replica.begin(50)
    largest = 0
    for sequence in range(2, 100):
        await replica.step(session, sequence)
        largest = max(largest, sum(map(len, store._sessions[session.token].journal)))
    one = max(map(len, store._sessions[session.token].journal))
    assert largest <= 2000 + (2 + 2) * one
    assert session.journal_bytes == sum(map(len, store._sessions[session.token].journal))
    await replica.service.stop()


# ---- callers that go away, processes that die ------------------------------------------------------------------------


@pytest.mark.parametrize("command", [Save(), Restore(2), a_fork()])
def test_a_request_whose_caller_has_gone_is_finished_and_its_repeat_answered(command):
    @served
    async def check():
        replica = Replica(MemoryStore())
        session = await replica.begin()
        await ask(replica, session, 2, Save())
        replica.engine.held = True
        asked = asyncio.create_task(ask(replica, session, 3, command))
        for _ in range(5):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
        repeated = asyncio.create_task(ask(replica, session, 3, command))
        await asyncio.sleep(0)
        replica.engine.let_go()
        assert isinstance(await repeated, Saved | Restored | Forked)
        assert session.last_sequence == 3
        with pytest.raises(SequenceGap):
            await replica.step(session, 5)
        await replica.service.stop()

    check()


@served
async def test_a_session_whose_replay_ends_its_process_is_quarantined():
    store = MemoryStore()
    first = Replica(store)
    session = await first.begin()
    await first.steps(session, 2, 4)
    for _ in range(3):
        await store.claim(session.token)  # and never a word again
    last = Replica(store)
    for _ in range(2):
        with pytest.raises(SessionQuarantined, match="3 attempts in a row"):
            await last.service.resume(session.token)
    assert last.engine.lanes_in_use == 0
    for replica in (first, last):
        await replica.service.stop()


@served
async def test_claims_that_fail_without_a_death_do_not_count():
    store = MemoryStore()
    first, full, last = Replica(store), Replica(store, capacity=1), Replica(store)
    session = await first.begin()
    for _ in range(5):
        with pytest.raises(CapacityExhausted):
            await full.service.resume(session.token)
    for replica in (last, first, last, first, last):
        session = await replica.service.resume(session.token)
    await last.step(session, 2)
    for replica in (first, full, last):
        await replica.service.stop()


# ---- any program, any deaths -----------------------------------------------------------------------------------------

PROGRAMS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, 9)),
        st.tuples(st.just("save")),
        st.tuples(st.just("restore"), st.integers(0, 5)),
        st.tuples(st.just("forget"), st.integers(0, 5)),
        st.tuples(st.just("fork"), st.integers(1, 2)),
        st.tuples(st.just("die")),
        st.tuples(st.just("hand over")),
        st.tuples(st.just("repeat")),
    ),
    max_size=40,
)


class PickledReplies:
    """Answers as bytes, for tests."""

    def reply(self, sequence, result, lanes):
        return pickle.dumps(result)

    def kept_reply(self, raw):
        return pickle.loads(raw)


def a_replica(store):
    return Replica(store, replies=PickledReplies(), snapshot_every_steps=5, replies_kept=3, capacity=512)


async def play(program, store, *, deaths):
    """All answers of a program, and those of a step of every forked session at its end."""
    replicas = [a_replica(store)]
    session = await replicas[-1].begin()
    answers, points, children = [], [], []
    for number, (verb, *arguments) in enumerate(program):
        if verb in ("die", "hand over", "repeat"):
            if not deaths:
                continue
            if verb == "hand over":
                await replicas[-1].service.put_down(session)
                assert replicas[-1].service.held.get(session.token) is None
            if verb != "repeat":
                replicas.append(a_replica(store))
                session = await replicas[-1].service.resume(session.token)
            for sequence, command, answer in [one for one in answers if isinstance(one, tuple)][-3:]:
                again = await do(replicas[-1], session, sequence, command)
                assert again == answer if not hasattr(answer, "observation") else same(again, answer)
            continue
        command = chosen(verb, arguments, points, number)
        sequence = session.last_sequence + 1
        try:
            answer = await do(replicas[-1], session, sequence, command)
        except UnknownPoint as error:
            answers.append(str(error))
            continue
        answers.append((sequence, command, answer))
        if isinstance(answer, Saved):
            points.append(answer.point)
        if isinstance(answer, Forked):
            children.append(answer.token)
    for token in children:
        child = await replicas[-1].service.resume(token)
        answers.append((1, 7, await replicas[-1].step(child, 1, 7)))
    for replica in replicas:
        await replica.service.stop()
    return answers


async def do(replica, session, sequence, command):
    if isinstance(command, int):
        return await replica.step(session, sequence, command)
    return await ask(replica, session, sequence, command)


def chosen(verb, arguments, points, number):
    if verb == "step":
        return arguments[0]
    if verb == "save":
        return Save()
    if verb == "fork":
        return a_fork(None, arguments[0], key=number.to_bytes(16))
    point = points[arguments[0] % len(points)] if points else 1000
    return Restore(point) if verb == "restore" else Forget((point,))


@pytest.fixture(scope="module")
def server():
    with EmbeddedStore() as embedded:
        yield embedded


@settings(max_examples=300, deadline=None)
@given(PROGRAMS)
def test_any_program_gives_the_same_answers_whatever_dies(program):
    compare(program, MemoryStore)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROGRAMS)
def test_any_program_gives_the_same_answers_with_a_real_store(server, program):
    compare(program, lambda: RedisStore(server.url))


def compare(program, make_store):
    """The same program undisturbed, and with the deaths and hand-overs that it names."""

    async def once(deaths):
        store = make_store()
        try:
            return await play(program, store, deaths=deaths)
        finally:
            await store.close()

    async def both():
        return await once(False), await once(True)

    calm, stormy = asyncio.run(asyncio.wait_for(both(), 60))
    assert len(calm) == len(stormy)
    for left, right in zip(calm, stormy, strict=True):
        if isinstance(left, str):
            assert left == right
            continue
        assert left[0] == right[0]
        if isinstance(left[2], Forked):
            assert left[2].num_envs == right[2].num_envs  # tokens differ, as the parents' do
        elif hasattr(left[2], "observation"):
            assert same(left[2], right[2])
        else:
            assert left[2] == right[2]
