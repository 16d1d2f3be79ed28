"""A small real gRPC server that keeps the session contract and breaks its streams where a test says so.

Its world counts: the observation of a lane is the number of steps since its reset, plus 100 times the resets before.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np
from gymnasium import spaces

from simservice.errors import UnknownSession
from simservice.protocol.messages import Limits, WorldContract, encode_reset_result, encode_step_result, encode_world
from simservice.protocol.status import ERROR_METADATA_KEY, error_to_message, grpc_code
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceServicer, add_WorldServiceServicer_to_server
from simservice.types import ResetResult, StepResult, WorldSpec, leaves_of

CONTRACT = WorldContract(
    spec=WorldSpec(
        name="count",
        version="0123456789ab",
        family="count",
        observation_space=spaces.Box(0, np.inf, (1,), np.float32),
        action_space=spaces.Discrete(2),
    ),
    limits=Limits(max_num_envs=8),
)
LEAVES = leaves_of(CONTRACT.spec.observation_space, "observation")

Fault = Callable[[int, pb.PlayRequest], "object | None"]


@dataclass
class Count:
    """One session: what was applied, and its last reply."""

    num_envs: int
    token: str
    applied: list[int] = field(default_factory=list)
    replies: dict[int, pb.PlayReply] = field(default_factory=dict)
    steps: int = 0
    resets: int = 0
    closed: bool = False

    @property
    def last_sequence(self):
        return self.applied[-1] if self.applied else 0

    def apply(self, request):
        if request.sequence not in self.replies:
            assert request.sequence == self.last_sequence + 1
            self.applied.append(request.sequence)
            self.replies[request.sequence] = self._reply(request)
        return self.replies[request.sequence]

    def _reply(self, request):
        if request.HasField("reset"):
            self.steps, self.resets = 0, self.resets + 1
            done = encode_reset_result(LEAVES, ResetResult(self._observation(), {}), self.num_envs)
            return pb.PlayReply(sequence=request.sequence, reset=done)
        self.steps += 1
        ended = np.zeros(self.num_envs, bool)
        result = StepResult(self._observation(), np.full(self.num_envs, 0.1), ended, ended, {})
        return pb.PlayReply(sequence=request.sequence, stepped=encode_step_result(LEAVES, result))

    def _observation(self):
        value = self.steps + 100 * (self.resets - 1)
        return {"observation": np.full((self.num_envs, 1), value, np.float32)}


class ScriptedPeer(WorldServiceServicer):
    """`fault(stream, request)` is asked about each request, streams counted from 0, and may return

    ("before", status): the stream ends with that status, nothing is done; OK ends it without an error
    ("after", status):  the request is done, its answer is lost
    "silence":          the request is done and nothing is ever said
    an error of ours:   the stream ends with it; or a reply: it is sent instead.
    """

    def __init__(self):
        self.fault: Fault = lambda stream, request: None
        self.sessions: dict[bytes, Count] = {}
        self.streams = 0
        self.metadata: list[dict[str, str]] = []
        self.address = ""

    async def Play(self, requests, context):
        stream, self.streams = self.streams, self.streams + 1
        self.metadata.append(dict(context.invocation_metadata()))
        session = None
        async for request in requests:
            fault = self.fault(stream, request)
            if isinstance(fault, pb.PlayReply):
                yield fault
                continue
            if isinstance(fault, Exception):
                await self._abort(context, fault)
            if isinstance(fault, tuple) and fault[0] == "before":
                await self._end(context, fault[1])
                return
            if request.HasField("open"):
                key = request.open.open_key
                session = self.sessions.setdefault(key, Count(request.open.num_envs, key.hex()))
                reply = self._opened(session)
            elif request.HasField("resume"):
                found = [one for one in self.sessions.values() if one.token == request.resume.session]
                if not found:
                    await self._abort(context, UnknownSession(request.resume.session))
                session = found[0]
                reply = self._opened(session)
            elif request.HasField("close"):
                session.closed = True
                reply = pb.PlayReply(closed=pb.Closed())
            else:
                reply = session.apply(request)
            if fault == "silence":
                await asyncio.Event().wait()
            if isinstance(fault, tuple):
                await self._end(context, fault[1])
                return
            yield reply

    def _opened(self, session):
        opened = pb.Opened(
            session=session.token,
            world=encode_world(CONTRACT),
            num_envs=session.num_envs,
            last_sequence=session.last_sequence,
        )
        return pb.PlayReply(opened=opened)

    async def _end(self, context, status):
        if status is not grpc.StatusCode.OK:
            await context.abort(status, "as the script says")

    async def _abort(self, context, error):
        metadata = ((ERROR_METADATA_KEY, error_to_message(error).SerializeToString()),)
        await context.abort(grpc_code(error), str(error), metadata)

    # ---- its thread ------------------------------------------------------------------------------------------------

    def __enter__(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *exception):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, ready):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        add_WorldServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        ready.set()
        await self._stop.wait()
        await server.stop(0)
