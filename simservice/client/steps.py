"""A session's steps by the quick way: written and read array by array, without a message in between.

What is rarer than an ordinary reply (an error, a kind that has not been met) is read by the general way, which teaches
the quick one.
"""

from __future__ import annotations

from dataclasses import dataclass

from simservice.errors import SimserviceError
from simservice.protocol.messages import decode_step_result
from simservice.protocol.status import error_from_message
from simservice.protocol.step_actions import StepRequests
from simservice.protocol.step_replies import PlainReply, StepReplyReader
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.varints import numbered
from simservice.types import Leaf, Leaves, StepResult


@dataclass(slots=True, eq=False)
class StepRequest:
    """A step under way: what a session and its stream look at is what a PlayRequest has."""

    raw: tuple[bytes, ...]  # the actions
    reader: StepReplyReader
    sequence: int = 0
    timeout_ms: int = 0

    def SerializeToString(self) -> bytes:
        """A PlayRequest with `step`."""
        return StepRequests.message(self.sequence, self.raw, self.timeout_ms)

    def read(self, message: bytes | bytearray) -> PlainReply | None:
        """The reply to this request, where it is of a known kind."""
        begins = numbered(self.sequence)
        return self.reader.read(message, len(begins)) if message.startswith(begins) else None


class Steps:
    """The requests and replies of one session."""

    def __init__(self, action: tuple[Leaf, ...], observation: tuple[Leaf, ...], lanes: int) -> None:
        self._requests = StepRequests(action)
        self._observation = observation
        self._lanes = lanes
        self._reader = StepReplyReader(observation)

    def request(self, action: Leaves) -> StepRequest:
        """One action a lane, (lanes, ...) by leaf path; InvalidInput names the leaf that is none."""
        return StepRequest(self._requests.raw(action, self._lanes), self._reader)

    def result(self, reply: pb.PlayReply | PlainReply) -> StepResult:
        """What a reply says; all arrays are fresh and writable."""
        if isinstance(reply, PlainReply):
            return reply.result
        result = decode_step_result(self._observation, reply.stepped, self._lanes)
        self._reader.learn(result)
        return result


Request = pb.PlayRequest | StepRequest
Reply = pb.PlayReply | PlainReply


def rolls(request: Request) -> bool:
    """Whether a rollout is asked for."""
    return not isinstance(request, StepRequest) and request.HasField("imagine")


def kind_of(reply: Reply) -> str | None:
    """Which result it holds."""
    return "stepped" if isinstance(reply, PlainReply) else reply.WhichOneof("result")


def error_of(reply: Reply) -> SimserviceError:
    """That of a reply whose kind is "error"."""
    assert not isinstance(reply, PlainReply)
    return error_from_message(reply.error)
