"""Keeps a server's copy of a policy at the module's weights: the graph once, then weights when they have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from simservice.client.policies import PolicyShelf
from simservice.client.rllib.export import PolicyGraph
from simservice.errors import UnknownPolicy
from simservice.protocol.policies import PolicyReceipt
from simservice.types import Array


class Uploader:
    """Puts one graph's policies onto one shelf, one after another; asks nobody where nothing has changed."""

    def __init__(self, shelf: PolicyShelf, graph: PolicyGraph) -> None:
        self._shelf = shelf
        self._graph = graph
        self._receipt: PolicyReceipt | None = None  # of what was put last
        self._digest = b""  # of its weights

    def put(self, state: Mapping[str, Array]) -> str:
        """The content hash of the policy with this state of the module, once the server has it."""
        weights = self._graph.weights(state)
        digest = _digest(weights)
        if self._receipt is None or digest != self._digest:
            self._receipt = self._put(weights)
            self._digest = digest
        return self._receipt.content_hash

    def forget(self) -> None:
        """What was put has expired at the server: the next call puts it again."""
        self._digest = b""

    def close(self) -> None:
        """Ends the shelf's connection."""
        self._shelf.close()

    def _put(self, weights: Mapping[str, Array]) -> PolicyReceipt:
        if self._receipt is not None:
            try:
                return self._shelf.update(self._receipt.graph_hash, weights)
            except UnknownPolicy:
                pass  # it was not used for long, or the store is another one: all of it again
        return self._shelf.put(self._graph.with_weights(weights), self._graph.distribution)


def _digest(weights: Mapping[str, Array]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        found.update(weights[name].data)
    return found.digest()
