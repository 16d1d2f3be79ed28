"""Policies that tenants uploaded: graphs and weights by hash, bounded a tenant, for as long as they are used.

Every replica reads them here. Knows no redis, no wire and not what is in the bytes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simservice.errors import UnknownPolicy


@dataclass(frozen=True, kw_only=True)
class PolicyStoreConfig:
    """How much is kept of each tenant. What is beyond gives way, the longest unused first."""

    most_policies: int = 64
    most_bytes: int = 256 * 2**20  # of graphs and weights together
    ttl_s: float = 3600.0  # a policy nobody put or used for so long is forgotten


class StoredPolicy(NamedTuple):
    """All there is of one policy."""

    graph_hash: str
    graph: bytes  # the graph's record
    weights: bytes


class PolicyStore(Protocol):
    """One shelf a tenant. Each call is atomic, safe to repeat, and may fail with StoreUnavailable.

    A tenant meets what it put itself and nothing else: another one's hash is as unknown as one that never was.
    """

    config: PolicyStoreConfig

    async def put(self, tenant: str, content_hash: str, graph_hash: str, graph: bytes, weights: bytes) -> None:
        """Keeps a policy, or renews it; others of the tenant give way."""

    async def graph(self, tenant: str, graph_hash: str) -> bytes:
        """The record of a graph that a kept policy has. UnknownPolicy."""

    async def get(self, tenant: str, content_hash: str) -> StoredPolicy:
        """A policy, whose time to live is renewed. UnknownPolicy."""

    async def touch(self, tenant: str, content_hash: str) -> None:
        """Renews a policy's time to live. UnknownPolicy."""


@dataclass
class _Kept:
    policy: StoredPolicy
    used_at: float

    @property
    def bytes(self) -> int:
        return len(self.policy.graph) + len(self.policy.weights)


class MemoryPolicies:
    """A PolicyStore in a dict: for one process, and for unit tests."""

    def __init__(self, config: PolicyStoreConfig | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.config = config or PolicyStoreConfig()
        self._now = now
        self._shelves: dict[str, OrderedDict[str, _Kept]] = {}  # the longest unused first

    async def put(self, tenant: str, content_hash: str, graph_hash: str, graph: bytes, weights: bytes) -> None:
        """Keeps, and lets others give way."""
        kept = self._fresh(tenant)
        kept[content_hash] = _Kept(StoredPolicy(graph_hash, graph, weights), self._now())
        kept.move_to_end(content_hash)
        while len(kept) > self.config.most_policies or sum(one.bytes for one in kept.values()) > self.config.most_bytes:
            kept.popitem(last=False)

    async def graph(self, tenant: str, graph_hash: str) -> bytes:
        """Looks through the policies."""
        for kept in self._fresh(tenant).values():
            if kept.policy.graph_hash == graph_hash:
                return kept.policy.graph
        raise UnknownPolicy(graph_hash)

    async def get(self, tenant: str, content_hash: str) -> StoredPolicy:
        """Reads and renews."""
        await self.touch(tenant, content_hash)
        return self._shelves[tenant][content_hash].policy

    async def touch(self, tenant: str, content_hash: str) -> None:
        """Renews."""
        kept = self._fresh(tenant)
        if content_hash not in kept:
            raise UnknownPolicy(content_hash)
        kept[content_hash].used_at = self._now()
        kept.move_to_end(content_hash)

    def _fresh(self, tenant: str) -> OrderedDict[str, _Kept]:
        """A tenant's policies without those that have expired."""
        kept = self._shelves.setdefault(tenant, OrderedDict())
        oldest = self._now() - self.config.ttl_s
        while kept and next(iter(kept.values())).used_at <= oldest:
            kept.popitem(last=False)
        return kept
