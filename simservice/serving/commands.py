"""Requests and results of one world to and from its messages: the wire's words, the session room's nouns."""

from __future__ import annotations

from collections.abc import Callable

from simservice.errors import InvalidInput
from simservice.protocol.branches import decode_fork
from simservice.protocol.imagine import decode_imagine
from simservice.protocol.messages import (
    decode_reset,
    decode_reset_result,
    decode_step_result,
    encode_reset_result,
    parse_request,
)
from simservice.protocol.rollout_parts import encode_imagined
from simservice.protocol.step_actions import PlainStep, StepActions
from simservice.protocol.step_replies import StepReplies
from simservice.protocol.tensors import decode_leaves, encode_leaves
from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.lanes import (
    Branch,
    Command,
    Forget,
    Forgotten,
    Fork,
    Forked,
    Reset,
    Restore,
    Restored,
    Result,
    Save,
    Saved,
    Step,
)
from simservice.types import Imagine, Imagined, Leaf, ResetResult, StepResult, WorldSpec, leaves_of

BRANCHES = frozenset({"fork", "save", "restore", "forget"})
MOST_POINTS = 1024  # that one message may forget


class CommandCodec:
    """Reads reset and step requests of one world, writes their replies."""

    def __init__(self, spec: WorldSpec, max_context_frames: int) -> None:
        self.max_context_frames = max_context_frames
        self._observation = leaves_of(spec.observation_space, "observation")
        self._action = leaves_of(spec.action_space, "action")
        self._actions = StepActions(self._action)
        self._replies = StepReplies(self._observation)

    def command(
        self, request: pb.PlayRequest, lanes: int, shown: Callable[[StepResult], None] | None = None
    ) -> Command:
        """The command of a reset or step for so many lanes, everything in it checked; InvalidInput names the field."""
        if request.HasField("step"):
            return Step(self._actions.decode(request.step, lanes), shown)
        mask, seeds, options, context = decode_reset(
            request.reset,
            lanes,
            observation=self._observation,
            action=self._action,
            max_context_frames=self.max_context_frames,
        )
        return Reset(mask=mask, seeds=seeds, context=context, options=options)

    def plain_step(self, message: bytes, sequence: int, lanes: int) -> PlainStep | None:
        """A request of that number that is a step and nothing else, checked; None: command() is to look at it."""
        return self._actions.read(message, sequence, lanes)

    def imagine(self, request: pb.PlayRequest, lanes: int) -> Imagine:
        """The rollout that is asked for of a session of so many lanes."""
        return decode_imagine(request.imagine, self._action, lanes)

    def branch(self, request: pb.PlayRequest) -> Branch:
        """The command of a fork, save, restore or forget."""
        if request.HasField("fork"):
            lanes, fresh, seeds = decode_fork(request.fork)
            return Fork(lanes, request.fork.copies, fresh, seeds, request.fork.fork_key)
        if request.HasField("restore"):
            return Restore(request.restore.point)
        if request.HasField("save"):
            return Save()
        points = tuple(request.forget.points)
        if not 1 <= len(points) <= MOST_POINTS:
            raise InvalidInput("points", f"{len(points)} were sent, 1 to {MOST_POINTS} can be")
        return Forget(points)

    def stored_command(self, payload: bytes) -> Command | Branch | Imagine:
        """The command of a journaled request. It was checked when it came; how many lanes it is for it tells itself."""
        request = parse_request(payload)
        if request.WhichOneof("call") in BRANCHES:
            return self.branch(request)
        if request.HasField("imagine"):
            steps = request.imagine.steps
            by_script = request.imagine.HasField("actions")
            return self.imagine(
                request, _rows(request.imagine.actions, self._action, "action") // steps if by_script else 1
            )
        if request.HasField("step"):
            return self.command(request, _rows(request.step.action, self._action, "action"))
        reset = request.reset
        if reset.HasField("context"):
            lanes = _rows(reset.context.observation, self._observation, "context") // max(reset.context.frames, 1)
        else:
            lanes = len(reset.mask) or len(reset.seeds) // 8
        return self.command(request, lanes)

    def reply(self, sequence: int, result: Result, lanes: int) -> bytes:
        """The reply that carries a result, a PlayReply."""
        if isinstance(result, StepResult):
            return self._replies.encode(sequence, result)
        return self._rarer_reply(sequence, result, lanes).SerializeToString()

    def part(self, sequence: int, part: Imagined) -> bytes:
        """The reply that carries a part of a rollout, a PlayReply."""
        return encode_imagined(sequence, part, self._observation, self._action)

    def _rarer_reply(self, sequence: int, result: Result, lanes: int) -> pb.PlayReply:
        if isinstance(result, ResetResult):
            return pb.PlayReply(sequence=sequence, reset=encode_reset_result(self._observation, result, lanes))
        if isinstance(result, Forked):
            return pb.PlayReply(sequence=sequence, forked=pb.Forked(session=result.token, num_envs=result.num_envs))
        if isinstance(result, Saved):
            return pb.PlayReply(sequence=sequence, saved=pb.Saved(point=result.point))
        if isinstance(result, Restored):
            observation = encode_leaves(self._observation, result.observation, (lanes,))
            return pb.PlayReply(sequence=sequence, restored=pb.Restored(observation=observation))
        if isinstance(result, Forgotten):
            return pb.PlayReply(sequence=sequence, forgotten=pb.Forgotten())
        raise InvalidInput("sequence", f"{sequence} was a rollout's; ask for its answer by an imagine that advances")

    def kept_reply(self, raw: bytes) -> Result:
        """The result in the bytes of a reply."""
        reply = pb.PlayReply.FromString(raw)
        kind = reply.WhichOneof("result")
        if kind == "stepped":
            return decode_step_result(self._observation, reply.stepped, len(reply.stepped.terminated))
        if kind == "reset":
            lanes = _rows(reply.reset.observation, self._observation, "observation")
            return decode_reset_result(self._observation, reply.reset, lanes)
        if kind == "restored":
            lanes = _rows(reply.restored.observation, self._observation, "observation")
            leaves = decode_leaves(self._observation, reply.restored.observation, (lanes,), check=False)
            return Restored(leaves)
        if kind == "forked":
            return Forked(reply.forked.session, reply.forked.num_envs)
        return Saved(reply.saved.point) if kind == "saved" else Forgotten()


def _rows(values: pb.Values, leaves: tuple[Leaf, ...], field: str) -> int:
    """How many rows the first leaf with a size holds."""
    for raw, leaf in zip(values.leaves, leaves, strict=False):
        size = leaf.dtype.itemsize
        for extent in leaf.shape:
            size *= extent
        if size:
            return len(raw) // size
    raise InvalidInput(field, "holds no values")
