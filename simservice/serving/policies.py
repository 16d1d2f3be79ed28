"""Takes policies in: from the message to the world's library. Knows no gRPC and no ONNX.

A message is in memory before anybody can refuse it, so who sends much is answered late: a flood then waits for itself
instead of keeping the event loop from other tenants' steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from simservice.engine.policies import DistributionName
from simservice.errors import InvalidInput, PolicyLimitExceeded
from simservice.protocol.policies import decode_distribution, decode_update, encode_receipt
from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.quotas import Tenant

if TYPE_CHECKING:
    from simservice.serving.facade import Hosted


@dataclass(frozen=True, kw_only=True)
class TollConfig:
    """How much one tenant may send to one process before it waits."""

    bytes_per_s: float = 8 * 2**20  # receiving and reading a megabyte takes about 3 ms of the process
    burst_bytes: float = 32 * 2**20
    least_bytes: int = 128 * 2**10  # that any call counts for
    longest_wait_s: float = 5.0  # whoever would wait longer is sent away after that
    waiting_bytes: int = 64 * 2**20  # of one tenant's calls that wait; beyond it they are sent away at once


@dataclass
class _Account:
    level: float
    filled_at: float
    waiting: int = 0  # bytes


class Toll:
    """A bucket a tenant, which fills steadily; a call that finds it empty waits until its debt is paid."""

    def __init__(
        self,
        config: TollConfig | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config = config or TollConfig()
        self._now = now
        self._sleep = sleep
        self._accounts: dict[str, _Account] = {}

    async def pay(self, tenant: str, size: int) -> None:
        """Waits as long as the tenant owes; PolicyLimitExceeded, with the time to come again, when that is too long."""
        config, cost = self.config, max(size, self.config.least_bytes)
        account = self._filled(tenant)
        account.level = max(account.level - cost, -2.0 * config.longest_wait_s * config.bytes_per_s)
        wait_s = -account.level / config.bytes_per_s
        if wait_s <= 0.0:
            return
        if account.waiting + size <= config.waiting_bytes:
            account.waiting += size
            try:
                await self._sleep(min(wait_s, config.longest_wait_s))
            finally:
                account.waiting -= size
            if wait_s <= config.longest_wait_s:
                return
        raise PolicyLimitExceeded(
            "bytes a second of one tenant's policies",
            found="more",
            most=config.bytes_per_s,
            remedy="send fewer, or smaller ones",
            retry_after_s=wait_s,
        )

    def _filled(self, tenant: str) -> _Account:
        now, config = self._now(), self.config
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account(config.burst_bytes, now)
        account.level = min(config.burst_bytes, account.level + (now - account.filled_at) * config.bytes_per_s)
        account.filled_at = now
        return account


class PolicyDesk:
    """The call PutPolicy, but for who may come in and how errors leave."""

    def __init__(self, toll: Toll | None = None) -> None:
        self._toll = toll or Toll()

    async def put(self, request: pb.PutPolicyRequest, host: Hosted, tenant: Tenant) -> pb.PutPolicyReply:
        """Keeps the policy, or says what is wrong with it."""
        await self._toll.pay(tenant.name, request.ByteSize())
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
