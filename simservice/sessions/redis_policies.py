"""Uploaded policies in Redis or Valkey, beside the sessions: every call is one Lua script.

Keys, all of one tenant in one hash slot: simservice:{policies:TENANT}:used (sorted set of content hashes by the ms
of their last use), :weights, :graph_of, :sizes (hashes by content hash), :graphs, :users (hashes by graph hash: the
record, and how many policies have it).
"""

from __future__ import annotations

from typing import Any

from simservice.errors import UnknownPolicy
from simservice.sessions.policies import MemoryPolicies, PolicyStore, PolicyStoreConfig, StoredPolicy
from simservice.sessions.redis_layout import PREFIX
from simservice.sessions.redis_store import RedisStore

_NAMES = ("used", "weights", "graph_of", "sizes", "graphs", "users")


class RedisPolicies:
    """A PolicyStore beside the sessions."""

    def __init__(self, store: RedisStore, config: PolicyStoreConfig | None = None) -> None:
        self.config = config or PolicyStoreConfig()
        self._run = store.run
        self._ttl_ms = int(self.config.ttl_s * 1000)

    async def put(self, tenant: str, content_hash: str, graph_hash: str, graph: bytes, weights: bytes) -> None:
        """One script."""
        bounds = (self._ttl_ms, self.config.most_policies, self.config.most_bytes)
        await self._run("policy_put", _keys(tenant), [content_hash, graph_hash, graph, weights, *bounds])

    async def graph(self, tenant: str, graph_hash: str) -> bytes:
        """One script."""
        found = await self._run("policy_graph", _keys(tenant), [graph_hash, self._ttl_ms])
        if found is None:
            raise UnknownPolicy(graph_hash)
        return bytes(found)

    async def get(self, tenant: str, content_hash: str) -> StoredPolicy:
        """One script."""
        found = await self._run("policy_get", _keys(tenant), [content_hash, self._ttl_ms, 1])
        if not found:
            raise UnknownPolicy(content_hash)
        return StoredPolicy(found[0].decode(), found[1], found[2])

    async def touch(self, tenant: str, content_hash: str) -> None:
        """One script."""
        if not await self._run("policy_get", _keys(tenant), [content_hash, self._ttl_ms, 0]):
            raise UnknownPolicy(content_hash)


def policy_store(store: Any, config: PolicyStoreConfig | None = None) -> PolicyStore:
    """The policies that belong to a session store: shared by the fleet where the store is."""
    return RedisPolicies(store, config) if isinstance(store, RedisStore) else MemoryPolicies(config)


def _keys(tenant: str) -> list[str]:
    return [f"{PREFIX}{{policies:{tenant}}}:{name}" for name in _NAMES]
