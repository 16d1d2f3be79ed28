"""What each tenant uses of the whole fleet: leases that end by themselves when their replica dies. Knows no redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Usage(NamedTuple):
    """What a tenant uses, after a lease that was granted or refused."""

    granted: bool
    sessions: int
    lanes: int
    wait_s: float  # until the first lease would end if nobody renewed it


class LeaseStore(Protocol):
    """One count a tenant over all replicas. Each call is atomic, safe to repeat, and may fail with StoreUnavailable."""

    async def lease(
        self, tenant: str, token: str, owner: str, lanes: int, limits: tuple[int | None, int | None], ttl_s: float
    ) -> Usage:
        """Takes or renews a session's lease, unless more than (sessions, lanes) would then be in use."""

    async def renew(self, tenant: str, owner: str, held: Mapping[str, int], ttl_s: float) -> int:
        """Renews what an owner holds, lapsed leases as well; returns the lanes of all owners together."""

    async def used(self, tenant: str) -> Usage:
        """What the tenant uses; nothing is taken."""

    async def release(self, tenant: str, token: str, owner: str) -> None:
        """Ends a lease; one that is unknown or another owner's is left as it is."""


@dataclass
class _Lease:
    owner: str
    lanes: int
    deadline: float


class MemoryLeases:
    """A LeaseStore in a dict: for one process, and for unit tests."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._tenants: dict[str, dict[str, _Lease]] = {}

    async def lease(
        self, tenant: str, token: str, owner: str, lanes: int, limits: tuple[int | None, int | None], ttl_s: float
    ) -> Usage:
        """Counts and decides in one go."""
        now = self._now()
        leases = {key: lease for key, lease in self._tenants.get(tenant, {}).items() if lease.deadline > now}
        self._tenants[tenant] = leases
        held = leases.get(token)
        sessions, used = len(leases), sum(lease.lanes for lease in leases.values())
        more_sessions, more_lanes = int(held is None), lanes - (held.lanes if held else 0)
        most_sessions, most_lanes = limits
        too_many = more_sessions and most_sessions is not None and sessions + 1 > most_sessions
        too_wide = more_lanes > 0 and most_lanes is not None and used + more_lanes > most_lanes
        if too_many or too_wide:
            wait_s = min((lease.deadline for lease in leases.values()), default=now) - now
            return Usage(False, sessions, used, wait_s)
        leases[token] = _Lease(owner, lanes, now + ttl_s)
        return Usage(True, sessions + more_sessions, used + more_lanes, 0.0)

    async def renew(self, tenant: str, owner: str, held: Mapping[str, int], ttl_s: float) -> int:
        """Renews in one go."""
        leases = self._tenants.setdefault(tenant, {})
        for token, lanes in held.items():
            if token not in leases or leases[token].owner == owner:
                leases[token] = _Lease(owner, lanes, self._now() + ttl_s)
        return sum(lease.lanes for lease in leases.values())

    async def used(self, tenant: str) -> Usage:
        """Counts."""
        alive = [lease for lease in self._tenants.get(tenant, {}).values() if lease.deadline > self._now()]
        return Usage(True, len(alive), sum(lease.lanes for lease in alive), 0.0)

    async def release(self, tenant: str, token: str, owner: str) -> None:
        """Ends it."""
        leases = self._tenants.get(tenant, {})
        if token in leases and leases[token].owner == owner:
            del leases[token]
