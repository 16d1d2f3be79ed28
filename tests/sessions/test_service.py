import asyncio
import gc
import secrets

import numpy as np
import pytest
from counter_lanes import CounterLanes, decode, encode, same
from gymnasium.vector import AutoresetMode

from simservice.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ModelRetired,
    NeedsReset,
    SequenceGap,
    SessionClosed,
    SessionFenced,
    StoreUnavailable,
    UnknownSession,
)
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig

NEXT_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


class FailingStore(MemoryStore):
    """Cannot be reached while `down`; `takes_effect` tells whether its writes arrive all the same."""

    down = False
    takes_effect = False

    def append(self, token, epoch, sequence, payload, observe=None):
        if not self.down or self.takes_effect:
            future = super().append(token, epoch, sequence, payload)
        if self.down:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(StoreUnavailable(self.address))
        return future


class SlowStore(MemoryStore):
    """Appends take effect when `arrive` is called."""

    def __init__(self):
        super().__init__()
        self.under_way = None

    def append(self, *request):
        future = asyncio.get_running_loop().create_future()
        if self.under_way is None:
            return super().append(*request)
        self.under_way.append((future, request))
        return future

    def arrive(self):
        for future, request in self.under_way:
            future.set_result(super().append(*request).result())
        self.under_way = None


class Replica:
    """A service with its engine, and shorthands for the requests of the tests."""

    def __init__(self, store, *, capacity=64, version="0123456789ab", replies=None, **config):
        self.engine = CounterLanes(capacity, version)
        self.service = SessionService(
            self.engine, store, decode=decode, replies=replies, config=SessionConfig(**config)
        )

    async def open(self, num_envs=2, mode=NEXT_STEP, key=None):
        return await self.service.open(num_envs, mode, key or secrets.token_bytes(16))

    async def begin(self, num_envs=2, mode=NEXT_STEP):
        session = await self.open(num_envs, mode)
        await self.reset(session, 1, range(num_envs))
        return session

    async def reset(self, session, sequence, seeds=None, mask=None):
        command = Reset(
            mask=None if mask is None else np.array(mask), seeds=None if seeds is None else np.array(list(seeds))
        )
        return await self.service.apply(session, sequence, command, encode(command))

    async def step(self, session, sequence, action=None):
        command = Step({"action": np.full(session.num_envs, sequence % 10 if action is None else action)})
        return await self.service.apply(session, sequence, command, encode(command))

    async def steps(self, session, first, last):
        return [await self.step(session, sequence) for sequence in range(first, last + 1)]


def served(test):
    """Runs a test as a coroutine."""

    def within():
        asyncio.run(asyncio.wait_for(test(), 30))

    within.__name__, within.__doc__ = test.__name__, test.__doc__
    return within


async def undisturbed(last, num_envs=2):
    """The answers to a reset and steps 2 ... last when nothing goes wrong."""
    replica = Replica(MemoryStore())
    session = await replica.open(num_envs)
    answers = [await replica.reset(session, 1, range(num_envs))]
    answers += await replica.steps(session, 2, last)
    await replica.service.stop()
    return answers


# ---- open, apply, close ----------------------------------------------------------------------------------------------


@served
async def test_a_session_answers_every_request_once_and_in_order():
    replica = Replica(MemoryStore())
    session = await replica.begin()
    assert (session.num_envs, session.mode, session.last_sequence, session.epoch) == (2, NEXT_STEP, 1, 1)
    await replica.steps(session, 2, 30)
    assert (session.last_sequence, replica.engine.steps_done) == (30, 30)
    await replica.service.stop()


@served
async def test_a_repeat_of_a_kept_request_gets_the_first_answer_and_steps_nothing():
    replica = Replica(MemoryStore(), replies_kept=3)
    session = await replica.begin()
    answers = await replica.steps(session, 2, 6)
    assert await replica.step(session, 6) is answers[-1]
    assert await replica.step(session, 4, action=9) is answers[-3], "the content of a repeat is ignored"
    assert replica.engine.steps_done == 6
    await replica.service.stop()


@pytest.mark.parametrize("sequence", [0, 3, 8, 100])
def test_a_gap_and_a_repeat_too_old_name_the_expected_number(sequence):
    @served
    async def check():
        replica = Replica(MemoryStore(), replies_kept=3)
        session = await replica.begin()
        await replica.steps(session, 2, 6)
        with pytest.raises(SequenceGap, match="expects 7"):
            await replica.step(session, sequence)
        await replica.step(session, 7)
        await replica.service.stop()

    check()


@served
async def test_pipelined_requests_are_done_in_their_order():
    replica = Replica(MemoryStore())
    session = await replica.begin()
    answers = await asyncio.gather(*(replica.step(session, sequence) for sequence in range(2, 20)))
    expected = await undisturbed(19)
    assert all(same(*pair) for pair in zip(answers, expected[1:], strict=True))
    await replica.service.stop()


@served
async def test_opening_again_with_the_same_key_gives_the_same_session():
    replica = Replica(MemoryStore(), capacity=2)
    key = secrets.token_bytes(16)
    first = await replica.open(key=key)
    second = await replica.open(key=key)
    assert (second.token, second.epoch) == (first.token, 2)
    assert replica.engine.lanes_in_use == 2
    with pytest.raises(SessionFenced):
        await replica.reset(first, 1)
    await replica.reset(second, 1)
    await replica.service.stop()


@served
async def test_concurrent_opens_with_one_key_leave_one_session():
    store = MemoryStore()
    replicas = [Replica(store), Replica(store)]
    key = secrets.token_bytes(16)
    sessions = await asyncio.gather(*(replica.open(key=key) for replica in replicas * 3))
    assert len({session.token for session in sessions}) == 1
    newest = max(sessions, key=lambda session: session.epoch)
    outcomes = await asyncio.gather(
        *(r.reset(s, 1) for r, s in zip(replicas * 3, sessions, strict=True)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes].count(SessionFenced) == len(sessions) - 1
    assert not isinstance(outcomes[sessions.index(newest)], Exception)
    for replica in replicas:
        await replica.service.stop()


@served
async def test_an_open_key_used_for_other_arguments_is_refused():
    replica = Replica(MemoryStore())
    key = secrets.token_bytes(16)
    await replica.open(2, key=key)
    with pytest.raises(InvalidInput, match="open_key"):
        await replica.open(3, key=key)
    await replica.service.stop()


@pytest.mark.parametrize(
    ("num_envs", "key_bytes", "field"), [(0, 16, "num_envs"), (9, 16, "num_envs"), (1, 15, "open_key")]
)
def test_wrong_arguments_of_open_are_named(num_envs, key_bytes, field):
    @served
    async def check():
        replica = Replica(MemoryStore(), max_num_envs=8)
        with pytest.raises(InvalidInput) as caught:
            await replica.open(num_envs, key=bytes(key_bytes))
        assert caught.value.details["field"] == field
        assert replica.engine.lanes_in_use == 0

    check()


@served
async def test_an_open_beyond_the_capacity_leaves_nothing_behind():
    store = MemoryStore()
    replica = Replica(store, capacity=3)
    key = secrets.token_bytes(16)
    with pytest.raises(CapacityExhausted):
        await replica.open(4, key=key)
    assert (await replica.open(3, key=key)).epoch == 1, "the key is free again"
    await replica.service.stop()


@served
async def test_closing_frees_the_lanes_forgets_the_session_and_may_be_repeated():
    replica = Replica(MemoryStore())
    session = await replica.begin()
    await replica.service.close(session)
    await replica.service.close(session)
    await asyncio.sleep(0)
    assert replica.engine.lanes_in_use == 0
    with pytest.raises(SessionClosed):
        await replica.step(session, 2)
    with pytest.raises(UnknownSession):
        await replica.service.resume(session.token)
    await replica.service.stop()


@served
async def test_closing_waits_for_the_step_under_way():
    replica = Replica(MemoryStore())
    session = await replica.begin()
    replica.engine.held = True
    step = asyncio.create_task(replica.step(session, 2))
    await asyncio.sleep(0)
    close = asyncio.create_task(replica.service.close(session))
    await asyncio.sleep(0)
    replica.engine.let_go()
    await asyncio.gather(step, close)
    assert session.last_sequence == 2
    await replica.service.stop()


@served
async def test_rendering_uses_no_number_and_shows_all_lanes():
    replica = Replica(MemoryStore())
    session = await replica.begin(num_envs=3)
    assert (await replica.service.render(session)).shape == (3, 2, 2, 3)
    await replica.step(session, 2)
    await replica.service.stop()


class Untouchable(MemoryStore):
    """Fails some time after it was asked to renew a session."""

    async def touch(self, token, epoch):
        await asyncio.sleep(0.01)
        raise StoreUnavailable(self.address)


@served
async def test_pictures_that_fail_when_their_caller_has_gone_are_nobodys_failure():
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    replica = Replica(Untouchable())
    session = await replica.begin()
    rendering = asyncio.create_task(replica.service.render(session))
    await asyncio.sleep(0)
    rendering.cancel()
    await asyncio.wait([rendering])
    del rendering
    await asyncio.sleep(0.05)
    gc.collect()
    assert problems == []
    await replica.service.stop()


@served
async def test_stopping_frees_all_lanes_and_keeps_the_sessions_for_others():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    session = await first.begin()
    await first.service.stop()
    assert first.engine.lanes_in_use == 0
    resumed = await second.service.resume(session.token)
    assert same(await second.step(resumed, 2), (await undisturbed(2))[-1])
    await second.service.stop()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
def test_a_refused_request_uses_no_number_and_leaves_no_journal_entry(at_once):
    @served
    async def check():
        store = MemoryStore()
        replica = Replica(store)
        replica.engine.refuse_at_once = at_once
        session = await replica.open()
        with pytest.raises(NeedsReset):
            await replica.step(session, 1)
        assert session.last_sequence == 0
        answers = [await replica.reset(session, 1, range(2)), *await replica.steps(session, 2, 9)]
        assert all(same(*pair) for pair in zip(answers, await undisturbed(9), strict=True))
        assert len((await store.claim(session.token)).journal) == 9
        assert replica.service.stats().refused == 1
        await replica.service.stop()

    check()


@served
async def test_a_refused_request_of_a_replica_that_died_before_taking_it_back_does_not_count():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    session = await first.open(mode=DISABLED)
    refused = encode(Step({"action": np.zeros(2, np.int64)}))
    await store.append(session.token, session.epoch, 1, refused)
    resumed = await second.service.resume(session.token)
    assert (resumed.last_sequence, resumed.replies) == (0, {})
    await second.reset(resumed, 1, range(2))
    third = Replica(store)
    assert (await third.service.resume(session.token)).last_sequence == 1
    for replica in (first, second, third):
        await replica.service.stop()


@served
async def test_a_broken_device_costs_the_lanes_but_not_the_session():
    store = MemoryStore()
    replica = Replica(store)
    session = await replica.begin()
    replica.engine.fail_next = True
    with pytest.raises(InternalError, match="the device broke"):
        await replica.step(session, 2)
    with pytest.raises(InternalError, match="the device broke"):
        await replica.step(session, 2)
    assert replica.engine.lanes_in_use == 0
    resumed = await replica.service.resume(session.token)
    assert resumed.last_sequence == 1
    assert same(await replica.step(resumed, 2), (await undisturbed(2))[-1])
    await replica.service.stop()


# ---- takeover and recovery -------------------------------------------------------------------------------------------


@served
async def test_another_replica_goes_on_where_the_first_was_killed():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    session = await first.begin()
    answers = await first.steps(session, 2, 40)
    resumed = await second.service.resume(session.token)
    assert (resumed.last_sequence, resumed.epoch, resumed.num_envs) == (40, 2, 2)
    assert same(await second.step(resumed, 40), answers[-1])
    answers += await second.steps(resumed, 41, 60)
    assert all(same(*pair) for pair in zip(answers, (await undisturbed(60))[1:], strict=True))
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_a_fenced_replica_can_drive_no_further_and_gives_its_lanes_back():
    store = MemoryStore()
    first, second = Replica(store), Replica(store)
    session = await first.begin()
    resumed = await second.service.resume(session.token)
    for _ in range(2):
        with pytest.raises(SessionFenced):
            await first.step(session, 2)
    with pytest.raises(SessionFenced):
        await first.service.close(session)
    assert first.engine.lanes_in_use == 0
    assert same(await second.step(resumed, 2), (await undisturbed(2))[-1])
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_the_later_stream_of_one_replica_wins_and_takes_the_lanes_along():
    replica = Replica(MemoryStore(), capacity=2)
    session = await replica.begin()
    answer = await replica.step(session, 2)
    later = await replica.service.resume(session.token)
    with pytest.raises(SessionFenced):
        await replica.step(session, 3)
    assert await replica.step(later, 2) is answer
    assert same(await replica.step(later, 3), (await undisturbed(3))[-1])
    assert (replica.engine.lanes_in_use, replica.service.stats().adopted) == (2, 1)
    await replica.service.stop()


@served
async def test_a_replica_that_was_overtaken_forgets_its_own_lanes_when_the_session_returns():
    store = MemoryStore()
    first, second = Replica(store, capacity=2), Replica(store)
    session = await first.begin()
    resumed = await second.service.resume(session.token)
    await second.steps(resumed, 2, 5)
    returned = await first.service.resume(session.token)
    assert (returned.last_sequence, first.engine.lanes_in_use) == (5, 2)
    assert same(await first.step(returned, 6), (await undisturbed(6))[-1])
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_the_deadline_of_a_stream_that_has_lost_its_session_is_nobody_elses():
    """Whoever has its lanes now may be about to replay what was answered."""
    store = MemoryStore()
    first, second = Replica(store, capacity=2), Replica(store)
    session = await first.open()
    elsewhere = await second.service.resume(session.token)
    await second.reset(elsewhere, 1, range(2))
    first.engine.held = True
    resuming = asyncio.create_task(first.service.resume(session.token))
    await asyncio.sleep(0)
    first.service.deadlines.begin(session, 1)
    late = asyncio.create_task(first.reset(session, 1, range(2)))  # waits for its turn, which the resume has
    await asyncio.sleep(0.05)
    first.engine.let_go()
    assert (await resuming).last_sequence == 1
    with pytest.raises(SessionFenced):
        await late
    first.service.deadlines.end(session)
    for replica in (first, second):
        await replica.service.stop()


class SlowClaims(MemoryStore):
    """Answers a claim some time after it was made."""

    async def claim(self, token):
        recovery = await super().claim(token)
        await asyncio.sleep(0.02)
        return recovery


@served
async def test_a_claim_whose_caller_goes_before_it_is_answered_is_none_that_ended_a_process():
    store = SlowClaims()
    first, second = Replica(store), Replica(store, claims_in_replay=3)
    session = await first.begin()
    for _ in range(5):
        resuming = asyncio.create_task(second.service.resume(session.token))
        await asyncio.sleep(0.01)
        resuming.cancel()
        await asyncio.wait([resuming])
    resumed = await second.service.resume(session.token)
    assert resumed.last_sequence == 1
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_concurrent_resumes_leave_one_driver():
    store = MemoryStore()
    replicas = [Replica(store, capacity=4), Replica(store, capacity=4)]
    session = await replicas[0].begin()
    sessions = await asyncio.gather(*(replica.service.resume(session.token) for replica in replicas * 4))
    outcomes = await asyncio.gather(
        *(r.step(s, 2) for r, s in zip(replicas * 4, sessions, strict=True)), return_exceptions=True
    )
    done = [outcome for outcome in outcomes if not isinstance(outcome, SessionFenced)]
    assert len(done) == 1
    assert same(done[0], (await undisturbed(2))[-1])
    for replica in replicas:
        await replica.service.stop()
        assert replica.engine.lanes_in_use == 0


@served
async def test_a_request_whose_stream_was_cut_before_it_began_is_not_done_and_leaves_its_number_free():
    store = MemoryStore()
    replica = Replica(store)
    session = await replica.begin()
    replica.engine.held = True
    cut = asyncio.create_task(replica.step(session, 2))
    await asyncio.sleep(0)
    cut.cancel()
    await asyncio.wait([cut])
    assert cut.cancelled()
    resuming = asyncio.create_task(replica.service.resume(session.token))
    await asyncio.sleep(0)
    replica.engine.let_go()
    resumed = await resuming
    assert (resumed.last_sequence, replica.engine.steps_done) == (1, 1)
    assert len(store._sessions[session.token].journal) == 1
    expected = await undisturbed(3)
    assert same(await replica.step(resumed, 2), expected[1])
    assert same(await replica.step(resumed, 3), expected[2])
    await replica.service.stop()


@served
async def test_a_request_that_has_not_begun_when_its_time_is_over_is_refused_and_may_be_sent_again():
    replica = Replica(MemoryStore(), deadline_s=0.05)
    session, other = await replica.begin(), await replica.begin()
    replica.engine.held = True

    async def watched(session, timeout_ms):
        replica.service.deadlines.begin(session, timeout_ms)
        try:
            return await replica.step(session, 2)
        finally:
            replica.service.deadlines.end(session)

    hasty, patient = asyncio.create_task(watched(session, 0)), asyncio.create_task(watched(other, 20_000))
    await asyncio.sleep(0.2)
    replica.engine.let_go()
    with pytest.raises(DeadlineExceeded, match="had not begun"):
        await hasty
    expected = await undisturbed(2)
    assert same(await patient, expected[1])
    assert same(await watched(session, 0), expected[1])
    await replica.service.stop()


@served
async def test_a_resume_waits_for_the_journal_of_a_request_whose_stream_was_cut():
    store = SlowStore()
    replica = Replica(store)
    session = await replica.begin()
    store.under_way = []
    cut = asyncio.create_task(replica.step(session, 2))
    await asyncio.sleep(0)
    cut.cancel()
    await asyncio.wait([cut])
    resuming = asyncio.create_task(replica.service.resume(session.token))
    while replica.engine.steps_done < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.arrive()
    resumed = await resuming
    expected = await undisturbed(3)
    assert same(await replica.step(resumed, 2), expected[1])
    assert same(await replica.step(resumed, 3), expected[2])
    await replica.service.stop()


@served
async def test_a_resume_in_another_version_of_the_world_is_refused_and_disturbs_nobody():
    store = MemoryStore()
    first, second = Replica(store), Replica(store, version="ba9876543210")
    session = await first.begin()
    with pytest.raises(ModelRetired, match=r"counter@0123456789ab.*counter@ba9876543210"):
        await second.service.resume(session.token)
    await first.step(session, 2)
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_a_resume_without_room_leaves_the_session_for_another_replica():
    store = MemoryStore()
    first, small, roomy = Replica(store), Replica(store, capacity=1), Replica(store)
    session = await first.begin()
    with pytest.raises(CapacityExhausted):
        await small.service.resume(session.token)
    assert (await roomy.service.resume(session.token)).last_sequence == 1
    for replica in (first, small, roomy):
        await replica.service.stop()


@pytest.mark.parametrize("takes_effect", [True, False])
def test_a_lost_journal_entry_costs_the_lanes_but_never_a_step(takes_effect):
    @served
    async def check():
        store = FailingStore()
        replica = Replica(store)
        session = await replica.begin()
        store.down, store.takes_effect = True, takes_effect
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await replica.step(session, 2)
        assert replica.engine.lanes_in_use == 0
        store.down = False
        resumed = await replica.service.resume(session.token)
        assert resumed.last_sequence == (2 if takes_effect else 1)
        expected = await undisturbed(3)
        assert same(await replica.step(resumed, 2), expected[1])
        assert same(await replica.step(resumed, 3), expected[2])
        await replica.service.stop()

    check()


# ---- snapshots -------------------------------------------------------------------------------------------------------


@served
async def test_snapshots_bound_the_journal_and_replays_start_from_them():
    store = MemoryStore()
    first, second = (Replica(store, snapshot_every_steps=10, replies_kept=4) for _ in range(2))
    session = await first.begin()
    longest = 0
    for sequence in range(2, 100):
        await first.step(session, sequence)
        longest = max(longest, len(store._sessions[session.token].journal))
    assert longest <= 10 + 4 + 2
    resumed = await second.service.resume(session.token)
    assert second.engine.steps_done <= longest
    assert same(await second.step(resumed, 100), (await undisturbed(100))[-1])
    for replica in (first, second):
        await replica.service.stop()


@pytest.mark.parametrize("last", range(8, 32))
def test_every_kept_answer_survives_a_failover_wherever_the_snapshot_stands(last):
    @served
    async def check():
        store = MemoryStore()
        first, second = (Replica(store, snapshot_every_steps=8, replies_kept=4) for _ in range(2))
        session = await first.begin()
        answers = await first.steps(session, 2, last)
        await first.service.stop()
        resumed = await second.service.resume(session.token)
        for sequence in range(last - 3, last + 1):
            assert same(await second.step(resumed, sequence), answers[sequence - 2])
        assert same(await second.step(resumed, last + 1), (await undisturbed(last + 1))[-1])
        await second.service.stop()

    check()


@served
async def test_a_snapshot_that_cannot_be_stored_costs_no_step():
    class WithoutSnapshots(MemoryStore):
        async def snapshot(self, token, epoch, sequence, data):
            raise StoreUnavailable(self.address)

    store = WithoutSnapshots()
    first, second = (Replica(store, snapshot_every_steps=8, replies_kept=2) for _ in range(2))
    session = await first.begin()
    await first.steps(session, 2, 50)
    assert first.service.stats().snapshots == 0
    resumed = await second.service.resume(session.token)
    assert same(await second.step(resumed, 51), (await undisturbed(51))[-1])
    for replica in (first, second):
        await replica.service.stop()


@served
async def test_an_interval_shorter_than_the_kept_replies_still_stores_snapshots():
    store = MemoryStore()
    replica = Replica(store, snapshot_every_steps=1, replies_kept=4)
    session = await replica.begin()
    await replica.steps(session, 2, 40)
    assert replica.service.stats().snapshots >= 5
    await replica.service.stop()


# ---- idle sessions ---------------------------------------------------------------------------------------------------


@served
async def test_an_idle_session_gives_its_lanes_back_and_a_driven_one_does_not():
    replica = Replica(MemoryStore(), idle_ttl_s=0.2)
    idle, driven = await replica.begin(), await replica.begin()
    sequence = 2
    while replica.service.stats().expired == 0:
        await replica.step(driven, sequence)
        sequence += 1
        await asyncio.sleep(0.01)
    assert replica.engine.lanes_in_use == 2
    with pytest.raises(UnknownSession):
        await replica.step(idle, 2)
    await replica.step(driven, sequence)
    await replica.service.stop()


@served
async def test_a_broken_stream_keeps_its_lanes_for_a_while_only():
    store = MemoryStore()
    replica = Replica(store, detached_ttl_s=0.05)
    session = await replica.begin()
    await replica.step(session, 2)
    replica.service.detach(session)
    while replica.service.stats().open:
        await asyncio.sleep(0.01)
    assert replica.engine.lanes_in_use == 0
    resumed = await replica.service.resume(session.token)
    assert same(await replica.step(resumed, 3), (await undisturbed(3))[-1])
    await replica.service.stop()


@served
async def test_a_session_in_the_middle_of_a_request_is_not_idle():
    replica = Replica(MemoryStore(), idle_ttl_s=0.02)
    session = await replica.begin()
    replica.engine.held = True
    step = asyncio.create_task(replica.step(session, 2))
    await asyncio.sleep(0.1)
    replica.engine.let_go()
    await step
    assert (session.last_sequence, replica.service.stats().expired) == (2, 0)
    await replica.service.stop()
