"""Uploaded policies to and from their messages. What is in a model is not looked at here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from simservice.errors import InvalidInput, InvalidPolicy, near_miss
from simservice.protocol.strict import refuse_unknown
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array

_PREFIX = "POLICY_DISTRIBUTION_"

DISTRIBUTIONS: Mapping[str, int] = {
    name.removeprefix(_PREFIX).lower(): number for name, number in pb.PolicyDistribution.items() if number
}
_NAMES: Mapping[int, str] = {number: name for name, number in DISTRIBUTIONS.items()}

HASH_CHARACTERS = 64


@dataclass(frozen=True)
class PolicyReceipt:
    """What a service says of a policy that it keeps."""

    content_hash: str  # of graph, weights and distribution: what a rollout names
    graph_hash: str  # of all but the weights: what an update names
    weights: Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape of each weight that an update must hold
    rows_per_call: int  # a rollout runs larger batches in several calls
    ttl_s: float  # a policy that nobody puts or uses for so long is forgotten


def encode_whole(world: str, model: bytes, distribution: str) -> pb.PutPolicyRequest:
    """A request with an ONNX file."""
    if not isinstance(model, bytes) or not model:
        raise InvalidPolicy(f"the model is {type(model).__name__} and not bytes", "give the bytes of an ONNX file")
    if distribution not in DISTRIBUTIONS:
        raise InvalidInput("distribution", f"{distribution!r} is none{near_miss(str(distribution), DISTRIBUTIONS)}")
    whole = pb.PutPolicyRequest.Whole(model=model, distribution=pb.PolicyDistribution.Name(DISTRIBUTIONS[distribution]))
    return pb.PutPolicyRequest(world=world, whole=whole)


def encode_update(world: str, graph_hash: str, weights: Mapping[str, Array]) -> pb.PutPolicyRequest:
    """A request with other weights for a known graph."""
    told = [
        pb.PolicyWeight(name=name, dtype=array.dtype.name, shape=array.shape, data=_raw(array))
        for name, array in weights.items()
    ]
    return pb.PutPolicyRequest(world=world, weights=pb.PutPolicyRequest.Weights(graph_hash=graph_hash, weights=told))


def decode_put(raw: bytes) -> pb.PutPolicyRequest:
    """A request of its bytes; InvalidInput for what is none, or has fields that nobody knows here."""
    try:
        request = pb.PutPolicyRequest.FromString(raw)
    except DecodeError:
        raise InvalidInput("request", "its bytes are no such message; see protos/ for the wire") from None
    refuse_unknown(request)
    return request


def decode_distribution(number: int) -> str:
    """Its name; InvalidPolicy for none."""
    name = _NAMES.get(number)
    if name is None:
        raise InvalidPolicy(f"the distribution is {number}", f"take one of: {', '.join(DISTRIBUTIONS)}")
    return name


def decode_update(message: pb.PutPolicyRequest.Weights) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """dtype, shape and raw elements by name; they are held against the graph by whoever knows it."""
    check_hash(message.graph_hash, "weights.graph_hash")
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for weight in message.weights:
        if weight.name in found:
            raise InvalidPolicy(f"weight {weight.name[:60]!r} comes twice", "send each weight once")
        found[weight.name] = (weight.dtype, tuple(weight.shape), weight.data)
    return found


def check_hash(found: str, field: str) -> None:
    """InvalidInput for what is no hash."""
    if len(found) != HASH_CHARACTERS or not set(found) <= set("0123456789abcdef"):
        raise InvalidInput(field, f"{found[:80]!r} is no hash; PutPolicy gives {HASH_CHARACTERS} hexadecimal digits")


def encode_receipt(
    content_hash: str,
    graph_hash: str,
    weights: Sequence[tuple[str, str, tuple[int, ...]]],
    rows_per_call: int,
    ttl_s: float,
) -> pb.PutPolicyReply:
    """The reply."""
    told = [pb.PolicyWeight(name=name, dtype=dtype, shape=shape) for name, dtype, shape in weights]
    return pb.PutPolicyReply(
        content_hash=content_hash, graph_hash=graph_hash, weights=told, rows_per_call=rows_per_call, ttl_s=ttl_s
    )


def decode_receipt(message: pb.PutPolicyReply) -> PolicyReceipt:
    """The reply as a client sees it."""
    return PolicyReceipt(
        content_hash=message.content_hash,
        graph_hash=message.graph_hash,
        weights={weight.name: (weight.dtype, tuple(weight.shape)) for weight in message.weights},
        rows_per_call=message.rows_per_call,
        ttl_s=message.ttl_s,
    )


def _raw(array: Array) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
