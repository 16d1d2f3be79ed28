"""Puts policies onto a service, for rollouts there to act by. Knows no grpc and no ONNX.

    receipt = put_policy("127.0.0.1:50051", "cartpole", model=file, distribution="categorical")
    receipt = put_policy("127.0.0.1:50051", "cartpole", graph_hash=receipt.graph_hash, weights=arrays)

docs/policies.md says what a policy must be.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from simservice.client.access import Tls
from simservice.client.channel import Connection
from simservice.errors import InvalidInput, PolicyLimitExceeded, ServerUnavailable, StoreUnavailable
from simservice.protocol.policies import PolicyReceipt, decode_receipt, encode_update, encode_whole
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array

FIRST_PAUSE_S = 0.1


class PolicyShelf:
    """A connection for putting one policy after another, as training goes on. A `with` block ends it."""

    def __init__(
        self, address: str, world: str, *, patience_s: float = 120.0, token: str | None = None, tls: Tls = None
    ) -> None:
        self._world = world
        self._patience_s = patience_s
        self._connection = Connection(address, world, token=token, tls=tls)

    def __enter__(self) -> PolicyShelf:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def put(self, model: bytes, distribution: str) -> PolicyReceipt:
        """An ONNX file, whole. InvalidPolicy or PolicyLimitExceeded says what the service does not take."""
        return self._patiently(encode_whole(self._world, model, distribution))

    def update(self, graph_hash: str, weights: Mapping[str, Array]) -> PolicyReceipt:
        """Other weights for a graph that was put before: all that its receipt lists, by name.

        UnknownPolicy when the service has forgotten the graph: put the policy whole then.
        """
        return self._patiently(encode_update(self._world, graph_hash, weights))

    def close(self) -> None:
        """Ends the connection; the policies stay."""
        self._connection.close()

    def _patiently(self, request: pb.PutPolicyRequest) -> PolicyReceipt:
        deadline, pause = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                left = max(deadline - time.monotonic(), FIRST_PAUSE_S)
                return decode_receipt(self._connection.put_policy(request, left))
            except (ServerUnavailable, StoreUnavailable, PolicyLimitExceeded) as error:
                if isinstance(error, PolicyLimitExceeded) and error.retry_after_s is None:
                    raise
                wait_s = error.retry_after_s or pause
                if time.monotonic() + wait_s > deadline:
                    raise
                time.sleep(wait_s)
                pause = min(2 * pause, 2.0)


def put_policy(
    address: str,
    world: str,
    *,
    model: bytes | None = None,
    distribution: str = "",
    graph_hash: str = "",
    weights: Mapping[str, Array] | None = None,
    patience_s: float = 120.0,
    token: str | None = None,
    tls: Tls = None,
) -> PolicyReceipt:
    """Puts one policy: a model with its distribution, or weights for a known graph. See PolicyShelf."""
    if (model is None) == (weights is None):
        raise InvalidInput("model", "give either a model and its distribution, or graph_hash and weights")
    with contextlib.closing(PolicyShelf(address, world, patience_s=patience_s, token=token, tls=tls)) as shelf:
        return shelf.put(model, distribution) if model is not None else shelf.update(graph_hash, weights or {})
