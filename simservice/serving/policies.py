"""Takes policies in: from the message to the world's library. Knows no gRPC and no ONNX.

A call's message is read only when its tenant owes nothing for those before it. Until then gRPC takes no more of it than
a window, so who sends much, or what is refused, waits for itself instead of keeping the event loop from other tenants'
steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from simservice.engine.policies import DistributionName
from simservice.engine.uploads.budget import Budget
from simservice.errors import InvalidInput, PolicyLimitExceeded, UnknownWorld
from simservice.protocol.policies import decode_distribution, decode_put, decode_update, encode_receipt
from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.quotas import Tenant

if TYPE_CHECKING:
    from simservice.serving.facade import Hosted

PAID_S = 1e-3  # who owes for less owes nothing
LEAST_PAUSE_S = 0.1  # until somebody is to come again
BESIDE_FILE_BYTES = 2**20  # of a request: names and shapes


@dataclass(frozen=True, kw_only=True)
class TollConfig:
    """How much one tenant may send to one process before it waits."""

    bytes_per_s: float = 8 * 2**20  # receiving and reading a megabyte takes about 3 ms of the process
    burst_bytes: float = 32 * 2**20
    least_bytes: int = 64 * 2**10  # that any call counts for
    refused_times: int = 32  # what is refused for what it is counts for twice its size, the next 4 times, up to this
    longest_wait_s: float = 5.0  # whoever would wait longer is sent away after that
    longest_debt_s: float = 60.0  # nobody is told to come again later than this
    waiting_calls: int = 8  # of one tenant, with what gRPC holds of each; beyond them they are sent away at once
    come_again_s: float = 1.0  # at most, that an answer waits which only says when to come again
    reading_calls: int = 4  # of one tenant at a time
    reading_s: float = 60.0  # for a message to arrive


@dataclass
class _Door:
    """One tenant's."""

    reading: asyncio.Semaphore
    calls: int = 0
    times: int = 1  # what the last refused one counted for; half as much after each that was not refused
    last: float = 0.0  # bytes that the last one counted for


class Toll:
    """Lets calls' messages in; those of a tenant who owes wait until the debt is paid.

    How large a message is shows when it is there; until then it counts like the tenant's last one.
    """

    def __init__(
        self,
        config: TollConfig | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config = config = config or TollConfig()
        self._now, self._sleep = now, sleep
        self._budget = Budget(config.bytes_per_s, config.burst_bytes, config.longest_debt_s * config.bytes_per_s, now)
        self._doors: dict[str, _Door] = {}

    async def read(self, tenant: str, requests: AsyncIterator[bytes]) -> bytes:
        """A call's message; PolicyLimitExceeded, with the time to come again, of a tenant who owes too much."""
        door = self._door(tenant)
        if door.calls >= self.config.waiting_calls:
            await self.hold(self.config.come_again_s)
            raise self._too_much(tenant)
        until = self._now() + self.config.longest_wait_s
        door.calls += 1
        try:
            await self._place(tenant, door)
            try:
                await self._paid(tenant, until)
                return await self._charged(tenant, door, requests)
            finally:
                door.reading.release()
        finally:
            door.calls -= 1

    def judge(self, tenant: str, size: int, refused: bool) -> None:
        """Says of a message that was read whether it was refused for what it is."""
        door = self._door(tenant)
        if not refused:
            door.times = max(1, door.times // 2)
            return
        door.times = min(2 * door.times, self.config.refused_times)
        more = (door.times - 1) * max(size, self.config.least_bytes)
        door.last += more
        self._budget.take(tenant, more)

    async def hold(self, seconds: float) -> float:
        """Waits as long, or as answers are held; gives what is left."""
        held_s = min(seconds, self.config.come_again_s)
        await self._sleep(held_s)
        return seconds - held_s

    def _door(self, tenant: str) -> _Door:
        if tenant not in self._doors:
            self._doors[tenant] = _Door(asyncio.Semaphore(self.config.reading_calls))
        return self._doors[tenant]

    async def _place(self, tenant: str, door: _Door) -> None:
        try:
            async with asyncio.timeout(self.config.longest_wait_s):
                await door.reading.acquire()
        except TimeoutError:
            raise self._too_much(tenant) from None

    async def _charged(self, tenant: str, door: _Door, requests: AsyncIterator[bytes]) -> bytes:
        """The message, paid for; one that breaks off counts like the last one, one that never comes as refused."""
        expected = min(door.last, self.config.longest_debt_s * self.config.bytes_per_s)
        self._budget.take(tenant, expected)
        try:
            raw = await self._received(requests)
        except Exception:
            self.judge(tenant, self.config.least_bytes, refused=True)
            raise
        door.last = max(len(raw), self.config.least_bytes)
        self._budget.take(tenant, door.last - expected)
        return raw

    async def _paid(self, tenant: str, until: float) -> None:
        while (owed_s := self._budget.owed_s(tenant)) > PAID_S:
            left_s = max(0.0, until - self._now())
            await self._sleep(min(owed_s, left_s))
            if owed_s > left_s:
                raise self._too_much(tenant)

    async def _received(self, requests: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self.config.reading_s):
                return await anext(aiter(requests))
        except StopAsyncIteration:
            raise InvalidInput("request", "the call ended without a message; send one PutPolicyRequest") from None
        except TimeoutError:
            raise PolicyLimitExceeded(
                "seconds for its message to arrive",
                found=f"over {self.config.reading_s:g}",
                most=self.config.reading_s,
                remedy="send a smaller network, or by a quicker connection",
            ) from None

    def _too_much(self, tenant: str) -> PolicyLimitExceeded:
        return PolicyLimitExceeded(
            "bytes a second of one tenant's policies",
            found="more",
            most=self.config.bytes_per_s,
            remedy="send fewer, or smaller ones",
            retry_after_s=max(self._budget.owed_s(tenant), LEAST_PAUSE_S),
        )


class PolicyDesk:
    """The call PutPolicy, but for who may come in and how errors leave."""

    def __init__(self, most_file_bytes: int, toll: Toll | None = None) -> None:
        self._most_file_bytes = most_file_bytes
        self._toll = toll or Toll()

    async def put(
        self, requests: AsyncIterator[bytes], host_of: Callable[[str], Awaitable[Hosted]], tenant: Tenant
    ) -> pb.PutPolicyReply:
        """Keeps the policy, or says what is wrong with it."""
        raw = await self._toll.read(tenant.name, requests)
        try:
            request = self._parsed(raw)
            reply = await self._put(request, await host_of(request.world), tenant)
        except (InvalidInput, PolicyLimitExceeded, UnknownWorld) as error:
            if error.retry_after_s is None:
                self._toll.judge(tenant.name, len(raw), refused=True)
            else:  # for those who come again at once
                left_s = await self._toll.hold(error.retry_after_s)
                error.details["retry_after_s"] = f"{max(left_s, LEAST_PAUSE_S):.3f}"
            raise
        self._toll.judge(tenant.name, len(raw), refused=False)
        return reply

    def _parsed(self, raw: bytes) -> pb.PutPolicyRequest:
        if len(raw) > self._most_file_bytes + BESIDE_FILE_BYTES:  # known without a copy of it
            raise PolicyLimitExceeded(
                "bytes of the file", found=len(raw), most=self._most_file_bytes, remedy="send a smaller network"
            )
        return decode_put(raw)

    async def _put(self, request: pb.PutPolicyRequest, host: Hosted, tenant: Tenant) -> pb.PutPolicyReply:
        library = host.policies
        form = request.WhichOneof("form")
        if form == "whole":
            distribution = cast(DistributionName, decode_distribution(request.whole.distribution))
            put = await library.put_whole(tenant.name, request.whole.model, distribution)
        elif form == "weights":
            put = await library.put_weights(tenant.name, request.weights.graph_hash, decode_update(request.weights))
        else:
            raise InvalidInput("form", "holds neither a whole policy nor weights")
        graph = put.graph
        return encode_receipt(
            put.content_hash, graph.graph_hash, graph.weights, graph.rows_per_call, library.store.config.ttl_s
        )
