"""Who a session belongs to, and how much of the fleet that tenant may use. Knows no tokens and no store's technology.

Sessions and lanes are counted over all replicas, by leases in the store. A session holds a lease while it holds lanes
on a replica, which renews it; when a replica dies its leases lapse. Steps are counted here, without asking anybody:
a replica's share of a tenant's steps is its share of the tenant's lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from simservice.errors import CapacityExhausted, QuotaExceeded, StoreUnavailable
from simservice.sessions.leases import LeaseStore, Usage

log = logging.getLogger(__name__)

SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""What a client is told to wait, before it asks for a session again."""


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One customer of a service; None: without limit."""

    name: str = ""
    sessions: int | None = None
    lanes: int | None = None
    steps_per_second: float | None = None  # one step of one lane is one
    monitor: bool = False  # may read what all tenants report of reality

    @property
    def limited(self) -> bool:
        """Whether anything need be counted."""
        return (self.sessions, self.lanes, self.steps_per_second) != (None, None, None)


ANYONE = Tenant()
"""Whoever comes where there are no tenants."""


def own_key(tenant: Tenant, open_key: bytes) -> bytes:
    """An open key in the tenant's own name, so that no tenant meets another one's keys."""
    if not tenant.name:
        return open_key
    return hashlib.blake2b(open_key, digest_size=32, key=hashlib.sha256(tenant.name.encode()).digest()).digest()


class StepBudget:
    """A tenant's steps on one replica: a bucket that fills at its share of the rate and holds one second of it.

    A message is let in while the bucket is not empty, and may leave it in debt: so a session with more lanes than the
    rate has steps a second is slow, and not refused for ever.
    """

    def __init__(self, tenant: Tenant, now: Callable[[], float] = time.monotonic) -> None:
        assert tenant.steps_per_second is not None
        self.tenant = tenant
        self.rate = tenant.steps_per_second
        self._now = now
        self._level = self.rate
        self._filled_at = now()

    def share(self, part: float) -> None:
        """Sets the share of the tenant's rate that this replica has."""
        assert self.tenant.steps_per_second is not None
        self._fill()
        self.rate = self.tenant.steps_per_second * part
        self._level = min(self._level, self.rate)

    def spend(self, steps: int) -> None:
        """Takes steps out; QuotaExceeded, and nothing taken, tells how long to wait."""
        self._fill()
        if self._level <= 0.0:
            limit = self.tenant.steps_per_second or 0.0
            raise QuotaExceeded(
                self.tenant.name,
                "steps a second",
                asked=steps,
                active=round(limit),
                limit=round(limit),
                retry_after_s=max(0.001, -self._level / self.rate),
            )
        self._level -= steps

    def _fill(self) -> None:
        now = self._now()
        self._level = min(self.rate, self._level + (now - self._filled_at) * self.rate)
        self._filled_at = now


@dataclass
class _Account:
    tenant: Tenant
    held: dict[str, int] = field(default_factory=dict)  # lanes by session, on this replica
    budget: StepBudget | None = None


class QuotaKeeper:
    """Takes, renews and gives back the leases of one process. Called from one event loop."""

    def __init__(self, leases: LeaseStore, *, ttl_s: float = 15.0, renew_every_s: float = 4.0) -> None:
        self.leases = leases
        self.owner = secrets.token_hex(8)
        self._ttl_s = ttl_s
        self._renew_every_s = renew_every_s
        self._accounts: dict[str, _Account] = {}
        self._turn = asyncio.Lock()  # so that a release is never overtaken by the next lease of the same session
        self._renewing: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def acquire(self, tenant: Tenant, token: str, lanes: int) -> None:
        """Leases a session's lanes, or renews that lease; QuotaExceeded when the tenant has no more."""
        if not tenant.limited:
            return
        async with self._turn:
            limits = (tenant.sessions, tenant.lanes)
            usage = await self.leases.lease(tenant.name, token, self.owner, lanes, limits, self._ttl_s)
            if not usage.granted:
                raise _exceeded(tenant, usage.sessions, usage.lanes, lanes, usage.wait_s)
            account = self._accounts.setdefault(tenant.name, _Account(tenant))
            if account.tenant != tenant:  # the operator changed the quota
                account.tenant, account.budget = tenant, None
            account.held[token] = lanes
            self._share(account, usage.lanes)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())

    def release(self, tenant_name: str, token: str) -> None:
        """Gives a session's lease back, in the background; one that was never taken is no error."""
        account = self._accounts.get(tenant_name)
        if account is not None and account.held.pop(token, None) is not None:
            task = asyncio.create_task(self._release(account, token))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def used(self, tenant: Tenant) -> Usage | None:
        """What the tenant uses of the whole fleet; None for one that is not counted."""
        return await self.leases.used(tenant.name) if tenant.limited else None

    def budget(self, tenant: Tenant) -> StepBudget | None:
        """What the sessions of this tenant on this replica spend their steps from; None: they need not count."""
        if tenant.steps_per_second is None:
            return None
        account = self._accounts.setdefault(tenant.name, _Account(tenant))
        if account.budget is None:
            account.budget = StepBudget(tenant)
        return account.budget

    async def stop(self) -> None:
        """Gives all leases back, as far as the store answers."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            self._renewing = None
        for name, account in self._accounts.items():
            for token in list(account.held):
                self.release(name, token)
        await self.settle()

    async def settle(self) -> None:
        """Returns when all that was given back is given back."""
        while self._background:
            await asyncio.wait(self._background)

    async def _release(self, account: _Account, token: str) -> None:
        async with self._turn:
            if token not in account.held:  # it may have come back meanwhile
                with contextlib.suppress(StoreUnavailable):  # then it lapses
                    await self.leases.release(account.tenant.name, token, self.owner)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            for account in list(self._accounts.values()):
                if not account.held:
                    continue
                try:
                    lanes = await self.leases.renew(account.tenant.name, self.owner, account.held, self._ttl_s)
                except StoreUnavailable as error:
                    log.warning("the leases of tenant %s could not be renewed: %s", account.tenant.name, error)
                else:
                    self._share(account, lanes)

    def _share(self, account: _Account, all_lanes: int) -> None:
        here = sum(account.held.values())
        budget = self.budget(account.tenant)
        if budget is not None and here:
            budget.share(min(1.0, here / max(1, all_lanes)))


def _exceeded(tenant: Tenant, sessions: int, lanes: int, asked: int, wait_s: float) -> QuotaExceeded:
    wait_s = min(max(SHORTEST_WAIT_S, wait_s), LONGEST_WAIT_S)
    if tenant.sessions is not None and sessions + 1 > tenant.sessions:
        hint = wait_s if tenant.sessions else None
        return QuotaExceeded(
            tenant.name, "sessions", asked=1, active=sessions, limit=tenant.sessions, retry_after_s=hint
        )
    assert tenant.lanes is not None
    hint = wait_s if asked <= tenant.lanes else None  # else no waiting helps
    return QuotaExceeded(tenant.name, "lanes", asked=asked, active=lanes, limit=tenant.lanes, retry_after_s=hint)


def hinted(error: CapacityExhausted, deadlines_s: Iterable[float]) -> CapacityExhausted:
    """The same, with the time until the next lanes are free: when the first of the sessions ends, or earlier."""
    wait_s = min(max(min(deadlines_s, default=0.0), SHORTEST_WAIT_S), LONGEST_WAIT_S)
    asked, active, limit = (int(error.details[name]) for name in ("asked", "active", "limit"))
    return CapacityExhausted(asked, active, limit, retry_after_s=wait_s)
