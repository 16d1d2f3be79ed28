"""Brings a stored session back to life: lanes from its snapshot, then its journal through the engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from gymnasium.vector import AutoresetMode

from simservice.errors import InternalError, SimserviceError
from simservice.sessions.branches import redo
from simservice.sessions.imagining import NoPolicies, Policies, replayed
from simservice.sessions.lanes import Branch, Command, LaneEngine, Reset, Result, Rolled, Step
from simservice.sessions.replies import unpack_replies
from simservice.sessions.snapshots import ReplyCodec
from simservice.sessions.store import Recovery, SessionStore
from simservice.sessions.waiting import heard
from simservice.types import Array, Imagine

AHEAD = 16  # requests handed to the engine before the first of them is answered


@dataclass(frozen=True)
class Revived:
    """Lanes that stand where the session stood."""

    lanes: Array
    replies: dict[int, Result]  # the newest, by sequence
    last_sequence: int
    refused: bool  # the journal ended with a request that the engine refuses: it was never answered and does not count


def submit(
    engine: LaneEngine, lanes: Array, command: Command, beside: Callable[[], None] | None = None
) -> asyncio.Future[Result]:
    """Hands a command to the engine."""
    if isinstance(command, Step):
        return cast(asyncio.Future[Result], engine.step(lanes, command, beside))
    return cast(asyncio.Future[Result], engine.reset(lanes, command, beside))


async def revive(
    recovery: Recovery,
    engine: LaneEngine,
    store: SessionStore,
    decode: Callable[[bytes], Command | Branch | Imagine],
    replies_kept: int,
    codec: ReplyCodec | None = None,
    policies: Policies | None = None,
) -> Revived:
    """Allocates lanes, restores the snapshot and replays the journal; leaves no lane allocated when it fails.

    A journal is cut only behind the requests whose replies must be kept, so replaying it makes all of them again.
    """
    record = recovery.record
    if len(recovery.journal) != recovery.last_sequence - recovery.snapshot_sequence:
        raise InternalError(
            f"session {record.token[:8]}… is damaged: its journal holds {len(recovery.journal)} of "
            f"{recovery.last_sequence - recovery.snapshot_sequence} requests; the store must not evict keys "
            "(maxmemory-policy noeviction)"
        )
    seeds = np.frombuffer(record.seeds, dtype="<i8").astype(np.int64)
    lanes = engine.allocate(record.num_envs, AutoresetMode(record.autoreset_mode), seeds, record.caution)
    try:
        if recovery.snapshot is not None:
            await engine.restore(lanes, recovery.snapshot)
        kept = {} if codec is None or recovery.replies is None else _kept(recovery.replies, codec)
        replay = partial(_replay, recovery, engine, lanes, store, decode, replies_kept)
        replies, refused = await replay(policies or NoPolicies())
    except BaseException:
        engine.release(lanes)
        raise
    last = recovery.last_sequence - refused
    newest = {number: reply for number, reply in (kept | replies).items() if number > last - replies_kept}
    return Revived(lanes, newest, last, refused)


def _kept(blob: bytes, codec: ReplyCodec) -> dict[int, Result]:
    """The answers that were stored with the snapshot."""
    return {sequence: codec.kept_reply(raw) for sequence, raw in unpack_replies(blob)}


async def _replay(
    recovery: Recovery,
    engine: LaneEngine,
    lanes: Array,
    store: SessionStore,
    decode: Callable[[bytes], Command | Branch | Imagine],
    replies_kept: int,
    policies: Policies,
) -> tuple[dict[int, Result], bool]:
    replies: dict[int, Result] = {}
    sequence = recovery.snapshot_sequence
    under_way: deque[asyncio.Future[Result]] = deque()
    commands = enumerate(map(decode, recovery.journal), sequence + 1)
    try:
        while True:
            while len(under_way) < AHEAD and (numbered := next(commands, None)) is not None:
                number, command = numbered
                if isinstance(command, Step | Reset):
                    under_way.append(submit(engine, lanes, command))
                elif isinstance(command, Imagine):
                    if under_way:  # what is handed in later must not come before it
                        await asyncio.wait(under_way)
                    rolling: asyncio.Future[Result] = asyncio.ensure_future(
                        replayed(engine, lanes, recovery.record, command, policies)
                    )
                    under_way.append(rolling)
                    await asyncio.wait([rolling])
                else:
                    under_way.append(await redo(engine, lanes, recovery.record, number, command, store))
            if not under_way:
                return replies, False
            sequence += 1
            try:
                replies[sequence] = await under_way.popleft()
            except SimserviceError as error:
                if error.recoverable and sequence == recovery.last_sequence:
                    return replies, True
                raise InternalError(
                    f"session {recovery.record.token[:8]}… cannot be brought back: its request {sequence} fails now "
                    f"({error})"
                ) from error
            replies.pop(sequence - replies_kept, None)
            if isinstance(replies.get(sequence - 1), Rolled):
                del replies[sequence - 1]
    finally:
        for future in under_way:  # of these nobody hears; and what has not been handed in by now must not be any more
            future.cancel()
            future.add_done_callback(heard)
