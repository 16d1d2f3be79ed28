"""Leases of tenants' quotas in Redis or Valkey, beside the sessions: every call is one Lua script.

Keys, all of one tenant in one hash slot: simservice:{tenant:NAME}:deadlines (sorted set), :lanes and :owners (hashes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simservice.sessions.leases import LeaseStore, MemoryLeases, Usage
from simservice.sessions.redis_layout import PREFIX
from simservice.sessions.redis_store import RedisStore


class RedisLeases:
    """A LeaseStore beside the sessions, by the server's clock."""

    def __init__(self, store: RedisStore) -> None:
        self._run = store.run

    async def lease(
        self, tenant: str, token: str, owner: str, lanes: int, limits: tuple[int | None, int | None], ttl_s: float
    ) -> Usage:
        """One script."""
        most = [-1 if limit is None else limit for limit in limits]
        answer = await self._run("lease", _keys(tenant), [token, owner, lanes, *most, int(ttl_s * 1000)])
        return Usage(answer[0] == 1, answer[1], answer[2], answer[3] / 1000)

    async def renew(self, tenant: str, owner: str, held: Mapping[str, int], ttl_s: float) -> int:
        """One script."""
        pairs = [word for pair in held.items() for word in pair]
        return int(await self._run("lease_renew", _keys(tenant), [owner, int(ttl_s * 1000), *pairs]))

    async def used(self, tenant: str) -> Usage:
        """One script."""
        sessions, lanes = await self._run("lease_used", _keys(tenant), [])
        return Usage(True, sessions, lanes, 0.0)

    async def release(self, tenant: str, token: str, owner: str) -> None:
        """One script."""
        await self._run("lease_release", _keys(tenant), [token, owner])


def lease_store(store: Any) -> LeaseStore:
    """The leases that belong to a session store: shared by the fleet where the store is."""
    return RedisLeases(store) if isinstance(store, RedisStore) else MemoryLeases()


def _keys(tenant: str) -> tuple[str, str, str]:
    base = f"{PREFIX}{{tenant:{tenant}}}:"
    return base + "deadlines", base + "lanes", base + "owners"
