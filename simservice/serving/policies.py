"""Takes policies in: from the message to the world's library. Knows no gRPC and no ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from simservice.engine.policies import DistributionName
from simservice.errors import InvalidInput
from simservice.protocol.policies import decode_distribution, decode_update, encode_receipt
from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.quotas import Tenant

if TYPE_CHECKING:
    from simservice.serving.facade import Hosted


async def put_policy(request: pb.PutPolicyRequest, host: Hosted, tenant: Tenant) -> pb.PutPolicyReply:
    """The call PutPolicy, but for who may come in and how errors leave."""
    library = host.policies
    form = request.WhichOneof("form")
    if form == "whole":
        distribution = cast(DistributionName, decode_distribution(request.whole.distribution))
        put = await library.put_whole(tenant.name, request.whole.model, distribution)
    elif form == "weights":
        put = await library.put_weights(tenant.name, request.weights.graph_hash, decode_update(request.weights))
    else:
        raise InvalidInput("form", "holds neither a whole policy nor weights")
    graph = put.graph
    return encode_receipt(
        put.content_hash, graph.graph_hash, graph.weights, graph.rows_per_call, library.store.config.ttl_s
    )
