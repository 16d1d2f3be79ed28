"""Every session store keeps the promises of simservice/sessions/store.py: the durable one and its in-memory twin."""

import asyncio
from dataclasses import replace

import pytest
import redis

from simservice.errors import PointsExhausted, SequenceGap, SessionFenced, UnknownPoint, UnknownSession
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.redis_layout import DEADLINES, ROOMS
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.settings import PointLimits
from simservice.sessions.store import SessionRecord
from simservice.types import Caution

TTL_S = 600.0


@pytest.fixture(scope="module")
def server():
    with EmbeddedStore() as embedded:
        yield embedded


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 0.0

    def elapse(self, seconds):
        self.now += seconds


class ServerClock:
    """Lets time pass in a server by bringing every deadline nearer."""

    def __init__(self, url):
        self.url = url

    def elapse(self, seconds):
        with redis.Redis.from_url(self.url) as client:
            for key in client.keys("simservice:*"):
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, left - int(1000 * seconds))
            for listed in (DEADLINES, ROOMS[0]):
                for name in client.zrange(listed, 0, -1):
                    client.zincrby(listed, -1000 * seconds, name)


@pytest.fixture(params=["memory", "redis"])
def run(request, server):
    """Runs a test's coroutine function with a fresh store and its clock, in a loop of its own."""

    async def within(use):
        if request.param == "memory":
            clock = Clock()
            store = MemoryStore(idle_ttl_s=TTL_S, now=lambda: clock.now)
        else:
            clock = ServerClock(server.url)
            store = RedisStore(server.url, idle_ttl_s=TTL_S)
        try:
            await (use(store, clock.elapse) if use.__code__.co_argcount == 2 else use(store))
        finally:
            await store.close()

    return lambda use: asyncio.run(within(use))


def a_record(**changes) -> SessionRecord:
    number = next(COUNTER)
    token = f"{number:032x}"
    record = SessionRecord(
        token=token,
        world="toy@0123456789ab",
        num_envs=2,
        autoreset_mode="NextStep",
        seeds=bytes(range(16)),
        open_key=b"\x00\xff\r\n" + token.encode(),
        epoch=1,
    )
    return replace(record, **changes)


COUNTER = iter(range(1, 10_000))


def test_a_created_session_is_found_as_it_was(run):
    async def use(store):
        record = a_record()
        assert await store.create(record) == record
        assert await store.record(record.token) == record

    run(use)


def test_a_sessions_caution_is_part_of_its_record(run):
    async def use(store):
        caution = Caution(truncate_at_trust_horizon=True, max_uncertainty=0.1 + 0.2, uncertainty_penalty=1e-3)
        record = a_record(caution=caution)
        await store.create(record)
        assert (await store.record(record.token)).caution == caution
        assert (await store.claim(record.token)).record.caution == caution

    run(use)


def test_creating_with_a_known_open_key_returns_the_first_session(run):
    async def use(store):
        first = a_record()
        await store.create(first)
        second = a_record(open_key=first.open_key, seeds=bytes(16))
        assert await store.create(second) == first
        with pytest.raises(UnknownSession):
            await store.claim(second.token)

    run(use)


def test_concurrent_creations_with_one_open_key_agree(run):
    async def use(store):
        key = a_record().open_key
        records = [a_record(open_key=key) for _ in range(8)]
        stored = await asyncio.gather(*(store.create(record) for record in records))
        assert len({record.token for record in stored}) == 1

    run(use)


def test_a_claim_raises_the_epoch_and_returns_all_that_is_stored(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.append(record.token, 1, 2, b"\x00\xfftwo")
        recovery = await store.claim(record.token)
        assert recovery.record == replace(record, epoch=2)
        assert (recovery.snapshot, recovery.snapshot_sequence, recovery.last_sequence) == (None, 0, 2)
        assert list(recovery.journal) == [b"one", b"\x00\xfftwo"]
        assert (await store.claim(record.token)).record.epoch == 3

    run(use)


def test_an_unknown_session_cannot_be_claimed_read_or_written(run):
    async def use(store):
        token = a_record().token
        for call in (store.claim(token), store.record(token), store.touch(token, 1), store.snapshot(token, 1, 1, b"")):
            with pytest.raises(UnknownSession):
                await call
        with pytest.raises(UnknownSession):
            await store.append(token, 1, 1, b"")

    run(use)


def test_appends_handed_in_together_keep_their_order(run):
    async def use(store):
        record = await store.create(a_record())
        await asyncio.gather(*(store.append(record.token, 1, n, b"%d" % n) for n in range(1, 101)))
        assert list((await store.claim(record.token)).journal) == [b"%d" % n for n in range(1, 101)]

    run(use)


def test_a_repeated_append_changes_nothing(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.append(record.token, 1, 1, b"one")
        recovery = await store.claim(record.token)
        assert (recovery.last_sequence, list(recovery.journal)) == (1, [b"one"])

    run(use)


@pytest.mark.parametrize("sequence", [0, 1, 4])
def test_an_append_out_of_order_names_the_expected_number(run, sequence):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.append(record.token, 1, 2, b"two")
        with pytest.raises(SequenceGap, match="expects 3") as caught:
            await store.append(record.token, 1, sequence, b"other")
        assert caught.value.details == {"found": str(sequence), "expected": "3"}
        assert list((await store.claim(record.token)).journal) == [b"one", b"two"]

    run(use)


def test_a_former_owner_can_write_nothing(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.claim(record.token)
        for call in (
            store.append(record.token, 1, 2, b"two"),
            store.snapshot(record.token, 1, 1, b"state"),
            store.retract(record.token, 1, 1),
            store.touch(record.token, 1),
            store.delete(record.token, 1),
        ):
            with pytest.raises(SessionFenced):
                await call
        recovery = await store.claim(record.token)
        assert (recovery.last_sequence, recovery.snapshot, list(recovery.journal)) == (1, None, [b"one"])

    run(use)


def test_a_snapshot_cuts_the_journal_where_it_stands(run):
    async def use(store):
        record = await store.create(a_record())
        for n in range(1, 6):
            await store.append(record.token, 1, n, b"%d" % n)
        await store.snapshot(record.token, 1, 3, b"\x00state")
        recovery = await store.claim(record.token)
        assert (recovery.snapshot, recovery.snapshot_sequence, recovery.last_sequence) == (b"\x00state", 3, 5)
        assert list(recovery.journal) == [b"4", b"5"]

    run(use)


def test_an_older_snapshot_changes_nothing_and_one_ahead_is_refused(run):
    async def use(store):
        record = await store.create(a_record())
        for n in range(1, 5):
            await store.append(record.token, 1, n, b"%d" % n)
        await store.snapshot(record.token, 1, 3, b"new")
        await store.snapshot(record.token, 1, 3, b"again")
        await store.snapshot(record.token, 1, 2, b"old")
        with pytest.raises(SequenceGap):
            await store.snapshot(record.token, 1, 5, b"ahead")
        recovery = await store.claim(record.token)
        assert (recovery.snapshot, recovery.snapshot_sequence, list(recovery.journal)) == (b"new", 3, [b"4"])

    run(use)


def test_a_retracted_request_leaves_no_trace_and_late_copies_of_it_are_refused(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.append(record.token, 1, 2, b"refused")
        assert await store.retract(record.token, 1, 2) == 2
        assert await store.retract(record.token, 1, 2) == 2, "a repeat has the same answer"
        with pytest.raises(SessionFenced):
            await store.append(record.token, 1, 2, b"refused")
        await store.append(record.token, 2, 2, b"two")
        recovery = await store.claim(record.token)
        assert (recovery.last_sequence, list(recovery.journal)) == (2, [b"one", b"two"])

    run(use)


def test_retracting_what_never_arrived_takes_nothing_back(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        assert await store.retract(record.token, 1, 2) == 2
        assert list((await store.claim(record.token)).journal) == [b"one"]

    run(use)


def test_a_repeated_retraction_after_a_takeover_is_refused(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.retract(record.token, 1, 1)
        await store.claim(record.token)
        with pytest.raises(SessionFenced):
            await store.retract(record.token, 1, 1)

    run(use)


def test_a_deleted_session_is_gone_and_its_open_key_is_free(run):
    async def use(store):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        await store.delete(record.token, 1)
        await store.delete(record.token, 1)
        with pytest.raises(UnknownSession):
            await store.claim(record.token)
        again = a_record(open_key=record.open_key)
        assert await store.create(again) == again

    run(use)


def test_a_session_nobody_uses_expires_with_all_its_parts(run):
    async def use(store, elapse):
        record = await store.create(a_record())
        await store.append(record.token, 1, 1, b"one")
        elapse(TTL_S * 9 / 8)  # an append may keep it for an eighth longer
        with pytest.raises(UnknownSession):
            await store.claim(record.token)
        again = a_record(open_key=record.open_key)
        assert (await store.create(again)).token == again.token

    run(use)


@pytest.mark.parametrize("use_it", ["append", "touch", "claim", "snapshot"])
def test_use_renews_the_time_to_live(run, use_it):
    async def use(store, elapse):
        record = await store.create(a_record())
        epoch, last = 1, 4
        for n in range(1, last + 1):
            await store.append(record.token, 1, n, b"n")
        for round_number in range(1, 5):
            elapse(0.7 * TTL_S)
            if use_it == "append":
                last += 1
                await store.append(record.token, epoch, last, b"n")
            elif use_it == "touch":
                await store.touch(record.token, epoch)
            elif use_it == "snapshot":
                await store.snapshot(record.token, epoch, round_number, b"state")
            else:
                epoch = (await store.claim(record.token)).record.epoch
        recovery = await store.claim(record.token)
        assert (recovery.last_sequence, recovery.snapshot_sequence + len(recovery.journal)) == (last, last)
        assert (recovery.snapshot is not None) == (use_it == "snapshot")

    run(use)


def test_announced_worlds_are_listed_until_their_time_is_over(run):
    async def use(store, elapse):
        await store.announce("long@1", b"\x00contract", 60.0)
        await store.announce("short@1", b"soon gone", 20.0)
        assert (await store.worlds())["short@1"] == b"soon gone"
        await store.announce("long@1", b"\x00changed", 60.0)
        elapse(30.0)
        worlds = await store.worlds()
        assert worlds["long@1"] == b"\x00changed"
        assert "short@1" not in worlds

    run(use)


# ---- points, forks, claims -------------------------------------------------------------------------------------------

LIMITS = PointLimits(3, 100)


def test_a_forked_session_begins_with_its_snapshot_and_no_request(run):
    async def use(store):
        record = await store.create(a_record(), b"\x00state")
        assert await store.create(replace(record, seeds=bytes(16)), b"another") == record, "the first one stays"
        recovery = await store.claim(record.token)
        assert (recovery.snapshot, recovery.snapshot_sequence, recovery.last_sequence) == (b"\x00state", 0, 0)
        await store.append(record.token, 2, 1, b"one")
        assert list((await store.claim(record.token)).journal) == [b"one"]

    run(use)


def test_a_save_is_journaled_and_its_point_read_by_a_restore_that_is_journaled_too(run):
    async def use(store):
        token = (await store.create(a_record())).token
        await store.append(token, 1, 1, b"reset")
        assert await store.save(token, 1, 2, b"save", b"\x00data", LIMITS) == 5
        assert await store.save(token, 1, 2, b"save", b"\x00data", LIMITS) == 5, "a repeat does nothing"
        assert await store.restore(token, 1, 3, b"restore", 2) == b"\x00data"
        assert await store.restore(token, 1, 3, b"restore", 2) == b"\x00data"
        assert await store.point(token, 2) == b"\x00data"
        recovery = await store.claim(token)
        assert list(recovery.journal) == [b"reset", b"save", b"restore"]
        assert (recovery.last_sequence, recovery.point_bytes) == (3, 5)

    run(use)


def test_a_restore_of_what_is_not_saved_journals_nothing(run):
    async def use(store):
        token = (await store.create(a_record())).token
        with pytest.raises(UnknownPoint, match="no point 7"):
            await store.restore(token, 1, 1, b"restore", 7)
        with pytest.raises(UnknownPoint):
            await store.point(token, 7)
        assert (await store.claim(token)).last_sequence == 0

    run(use)


def test_saves_beyond_a_limit_name_it_and_journal_nothing(run):
    async def use(store):
        token = (await store.create(a_record())).token
        await store.save(token, 1, 1, b"save", bytes(60), LIMITS)
        with pytest.raises(PointsExhausted, match="100 bytes of saved points; it has 60, and this save needs 41"):
            await store.save(token, 1, 2, b"save", bytes(41), LIMITS)
        await store.save(token, 1, 2, b"save", b"", LIMITS)
        await store.save(token, 1, 3, b"save", b"", LIMITS)
        with pytest.raises(PointsExhausted, match="3 saved points; it has 3") as caught:
            await store.save(token, 1, 4, b"save", b"", LIMITS)
        assert caught.value.details == {"limit": "3", "active": "3", "asked": "1", "quota": "points"}
        assert (await store.claim(token)).last_sequence == 3

    run(use)


def test_a_forgotten_point_is_gone_at_once_unless_a_journaled_restore_reads_it(run):
    async def use(store):
        token = (await store.create(a_record())).token
        await store.save(token, 1, 1, b"save", b"first", LIMITS)
        await store.save(token, 1, 2, b"save", b"second!", LIMITS)
        await store.restore(token, 1, 3, b"restore", 2)
        assert await store.forget(token, 1, 4, b"forget", [1, 2, 99]) == 7
        assert await store.forget(token, 1, 4, b"forget", [1, 2, 99]) == 7, "a repeat does nothing"
        with pytest.raises(UnknownPoint):
            await store.restore(token, 1, 5, b"restore", 2)
        assert await store.point(token, 2) == b"second!", "a replay still needs it"
        await store.snapshot(token, 1, 2, b"state")
        assert await store.point(token, 2) == b"second!"
        await store.snapshot(token, 1, 3, b"state")
        with pytest.raises(UnknownPoint):
            await store.point(token, 2)
        recovery = await store.claim(token)
        assert (recovery.point_bytes, list(recovery.journal)) == (0, [b"forget"])

    run(use)


def test_points_are_written_by_the_owner_alone_and_in_order(run):
    async def use(store):
        token = (await store.create(a_record())).token
        await store.save(token, 1, 1, b"save", b"data", LIMITS)
        for call in (
            store.save(token, 1, 3, b"", b"", LIMITS),
            store.restore(token, 1, 3, b"", 1),
            store.forget(token, 1, 3, b"", [1]),
        ):
            with pytest.raises(SequenceGap, match="expects 2"):
                await call
        await store.claim(token)
        for call in (
            store.save(token, 1, 2, b"", b"", LIMITS),
            store.restore(token, 1, 2, b"", 1),
            store.forget(token, 1, 2, b"", [1]),
        ):
            with pytest.raises(SessionFenced):
                await call

    run(use)


def test_claims_that_never_end_are_counted_until_one_brings_the_session_back(run):
    async def use(store):
        token = (await store.create(a_record())).token
        counts = [(await store.claim(token)).claims for _ in range(3)]
        assert counts == [1, 2, 3]
        await store.settle(token, 4, False)
        assert (await store.claim(token)).claims == 3, "one has ended"
        await store.settle(token, 4, True)
        assert (await store.claim(token)).claims == 3, "it brought the session back, but others have claimed it since"
        await store.settle(token, 6, True)
        assert (await store.claim(token)).claims == 1

    run(use)


def test_replies_are_kept_with_their_snapshot_and_go_with_it(run):
    async def use(store):
        token = (await store.create(a_record())).token
        for n in (1, 2):
            await store.append(token, 1, n, b"%d" % n)
        await store.snapshot(token, 1, 2, b"state", b"\x00replies")
        recovery = await store.claim(token)
        assert (recovery.snapshot, recovery.replies, list(recovery.journal)) == (b"state", b"\x00replies", [])
        await store.append(token, 2, 3, b"3")
        await store.snapshot(token, 2, 3, b"newer")
        assert (await store.claim(token)).replies is None

    run(use)


def test_points_live_and_go_with_their_session(run):
    async def use(store, elapse):
        token = (await store.create(a_record())).token
        await store.save(token, 1, 1, b"save", b"data", LIMITS)
        for sequence in (2, 3):
            elapse(0.7 * TTL_S)
            await store.append(token, 1, sequence, b"step")
        assert await store.point(token, 1) == b"data"
        await store.delete(token, 1)
        with pytest.raises(UnknownPoint):
            await store.point(token, 1)

    run(use)


def test_rooms_are_listed_until_their_replicas_are_silent(run):
    async def use(store, elapse):
        await store.announce_room("toy@1/one", b"\x00room", 60.0)
        await store.announce_room("toy@1/two", b"gone", 20.0)
        assert await store.rooms() == {"toy@1/one": b"\x00room", "toy@1/two": b"gone"}
        elapse(30.0)
        assert (await store.rooms()).get("toy@1/one") == b"\x00room"
        assert "toy@1/two" not in await store.rooms()

    run(use)
