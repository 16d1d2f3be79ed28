"""Real episodes that users reported of a world: kept once each, within bounds, by tenant. Knows no redis, no wire."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much is kept of each tenant and world. What is beyond gives way, the oldest first."""

    most_episodes: int = 512
    most_bytes: int = 16 * 2**20
    ids_kept: int = 8192  # so many of the newest episodes are known again
    ttl_s: float = 7 * 86400.0  # after the last report of a world all of its are forgotten


class StoredReport(NamedTuple):
    """One episode as it was reported."""

    number: int  # rises with every episode of a world
    tenant: str
    payload: bytes


class ReportStore(Protocol):
    """One list of episodes a world. Each call is atomic, safe to repeat, and may fail with StoreUnavailable."""

    async def add(self, world: str, tenant: str, episode: bytes, payload: bytes) -> bool:
        """Keeps an episode under its id; False, and nothing done, when the tenant has reported it before."""

    async def read(
        self, world: str, after: int, limit: int, most_bytes: int, tenant: str | None
    ) -> tuple[Sequence[StoredReport], int]:
        """The oldest episodes behind a number, of one tenant or (None) of all, and the number to go on from.

        At most `limit`, and as many as `most_bytes` hold, but at least one.
        """


@dataclass
class _World:
    reports: OrderedDict[int, StoredReport] = field(default_factory=OrderedDict)
    ids: dict[str, OrderedDict[bytes, int]] = field(default_factory=dict)
    queues: dict[str, deque[int]] = field(default_factory=dict)
    last: int = 0


class MemoryReports:
    """A ReportStore in a dict: for one process, and for unit tests."""

    def __init__(self, config: ReportConfig | None = None) -> None:
        self.config = config or ReportConfig()
        self._worlds: dict[str, _World] = {}

    async def add(self, world: str, tenant: str, episode: bytes, payload: bytes) -> bool:
        """Decides and keeps in one go."""
        kept = self._worlds.setdefault(world, _World())
        ids, queue = kept.ids.setdefault(tenant, OrderedDict()), kept.queues.setdefault(tenant, deque())
        if episode in ids:
            return False
        kept.last += 1
        ids[episode] = kept.last
        while len(ids) > self.config.ids_kept:
            ids.popitem(last=False)
        kept.reports[kept.last] = StoredReport(kept.last, tenant, payload)
        queue.append(kept.last)
        while len(queue) > self.config.most_episodes or self._held(kept, queue) > self.config.most_bytes:
            del kept.reports[queue.popleft()]
        return True

    async def read(
        self, world: str, after: int, limit: int, most_bytes: int, tenant: str | None
    ) -> tuple[Sequence[StoredReport], int]:
        """Looks through all that is kept."""
        found: list[StoredReport] = []
        last, held = after, 0
        for report in self._worlds.get(world, _World()).reports.values():
            if report.number <= after:
                continue
            if tenant in (None, report.tenant):
                if found and (held + len(report.payload) > most_bytes or len(found) >= limit):
                    break
                held += len(report.payload)
                found.append(report)
            last = report.number
        return found, last

    @staticmethod
    def _held(kept: _World, queue: deque[int]) -> int:
        return sum(len(kept.reports[number].payload) for number in queue)
