"""Reported episodes in Redis or Valkey, beside the sessions: every call is one Lua script.

Keys, all of one world in one hash slot: simservice:{reports:WORLD}:next, :payloads, :owners, :bytes (hashes), :index
(sorted set), and of each tenant :queue:TENANT (list) and :ids:TENANT (sorted set).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simservice.sessions.redis_layout import PREFIX
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.reports import MemoryReports, ReportConfig, ReportStore, StoredReport


class RedisReports:
    """A ReportStore beside the sessions."""

    def __init__(self, store: RedisStore, config: ReportConfig | None = None) -> None:
        self.config = config or ReportConfig()
        self._run = store.run

    async def add(self, world: str, tenant: str, episode: bytes, payload: bytes) -> bool:
        """One script."""
        base, config = f"{PREFIX}{{reports:{world}}}:", self.config
        keys = [*_shared(base), base + "bytes", f"{base}queue:{tenant}", f"{base}ids:{tenant}"]
        bounds = (config.most_episodes, config.most_bytes, config.ids_kept, int(config.ttl_s * 1000))
        return bool(await self._run("report", keys, [episode, payload, tenant, *bounds]))

    async def read(
        self, world: str, after: int, limit: int, most_bytes: int, tenant: str | None
    ) -> tuple[Sequence[StoredReport], int]:
        """One script."""
        keys = _shared(f"{PREFIX}{{reports:{world}}}:")
        answer = await self._run("reports", keys, [after, limit, most_bytes, tenant or "", int(tenant is None)])
        rows = zip(answer[1::3], answer[2::3], answer[3::3], strict=True)
        return [StoredReport(int(number), owner.decode(), payload) for number, owner, payload in rows], int(answer[0])


def report_store(store: Any, config: ReportConfig | None = None) -> ReportStore:
    """The reports that belong to a session store: shared by the fleet where the store is."""
    return RedisReports(store, config) if isinstance(store, RedisStore) else MemoryReports(config)


def _shared(base: str) -> list[str]:
    return [base + "next", base + "index", base + "payloads", base + "owners"]
