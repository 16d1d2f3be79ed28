"""Requests and results of one world to and from its messages: the wire's words, the session room's nouns."""

from __future__ import annotations

from simservice.errors import InvalidInput
from simservice.protocol.messages import (
    decode_reset,
    decode_step,
    encode_reset_result,
    encode_step_result,
    parse_request,
)
from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.lanes import Command, Reset, Result, Step
from simservice.types import Leaf, StepResult, WorldSpec, leaves_of


class CommandCodec:
    """Reads reset and step requests of one world, writes their replies."""

    def __init__(self, spec: WorldSpec, max_context_frames: int) -> None:
        self.max_context_frames = max_context_frames
        self._observation = leaves_of(spec.observation_space, "observation")
        self._action = leaves_of(spec.action_space, "action")

    def command(self, request: pb.PlayRequest, lanes: int) -> Command:
        """The command of a reset or step for so many lanes, everything in it checked; InvalidInput names the field."""
        if request.HasField("step"):
            return Step(decode_step(self._action, request.step, lanes))
        mask, seeds, options, context = decode_reset(
            request.reset,
            lanes,
            observation=self._observation,
            action=self._action,
            max_context_frames=self.max_context_frames,
        )
        return Reset(mask=mask, seeds=seeds, context=context, options=options)

    def stored_command(self, payload: bytes) -> Command:
        """The command of a journaled request. It was checked when it came; how many lanes it is for it tells itself."""
        request = parse_request(payload)
        if request.HasField("step"):
            return self.command(request, _rows(request.step.action, self._action, "action"))
        reset = request.reset
        if reset.HasField("context"):
            lanes = _rows(reset.context.observation, self._observation, "context") // max(reset.context.frames, 1)
        else:
            lanes = len(reset.mask) or len(reset.seeds) // 8
        return self.command(request, lanes)

    def reply(self, sequence: int, result: Result, lanes: int) -> pb.PlayReply:
        """The reply that carries a result."""
        if isinstance(result, StepResult):
            return pb.PlayReply(sequence=sequence, stepped=encode_step_result(self._observation, result))
        return pb.PlayReply(sequence=sequence, reset=encode_reset_result(self._observation, result, lanes))


def _rows(values: pb.Values, leaves: tuple[Leaf, ...], field: str) -> int:
    """How many rows the first leaf with a size holds."""
    for raw, leaf in zip(values.leaves, leaves, strict=False):
        size = leaf.dtype.itemsize
        for extent in leaf.shape:
            size *= extent
        if size:
            return len(raw) // size
    raise InvalidInput(field, "holds no values")
