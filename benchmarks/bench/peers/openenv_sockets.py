"""OpenEnv: a web socket for each environment, JSON on it, its own server under uvicorn and its own client.

Its client waits for each answer before the next request; so that many environments need not queue behind each other,
all requests are sent here before the first answer is read, which is the best that one thread can get out of it.

As a program: `python -m bench.peers.openenv_sockets` serves.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn
from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient
from openenv.core.env_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

from bench.numpy_lanes import NumpyLanes
from bench.processes import served_by
from bench.timing import Round, timed

MOST_SESSIONS = 1024


class Push(Action):
    """A discrete action."""

    action: int


class Numbers(Observation):
    """Four numbers."""

    values: list[float]


class OneLane(Environment[Push, Numbers, State]):
    """One lane of the toy."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._lane, self._state = NumpyLanes(1), State()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **rest: Any) -> Numbers:
        """Goes on where it is."""
        return Numbers(values=self._lane.observe()[0].tolist())

    def step(self, action: Push, timeout_s: float | None = None, **rest: Any) -> Numbers:
        """One step."""
        observation, reward, terminated, _ = self._lane.step(np.array([action.action]))
        return Numbers(values=observation[0].tolist(), reward=float(reward[0]), done=bool(terminated[0]))

    @property
    def state(self) -> State:
        """Nothing that anybody asks for."""
        return self._state


class Client(EnvClient[Push, Numbers, State]):
    """What OpenEnv asks of the author of an environment."""

    def _step_payload(self, action: Push) -> dict[str, Any]:
        return {"action": action.action}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[Numbers]:
        told = payload["observation"]
        return StepResult(Numbers(values=told["values"]), payload.get("reward"), payload.get("done", False))

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State(**payload)


class Sockets:
    """So many clients."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self._actions = [Push(action=int(n)) for n in np.random.default_rng(0).integers(0, 3, len(clients))]

    def step(self) -> list[StepResult[Numbers]]:
        """One step of all."""
        for client, action in zip(self._clients, self._actions, strict=True):
            client._send({"type": "step", "data": client._step_payload(action)})
        return [client._parse_result(client._receive()["data"]) for client in self._clients]

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(self.step, len(self._clients), seconds)


@contextlib.contextmanager
def peer(lanes: int, frames: bool = False) -> Iterator[Sockets]:
    """Its own server and a client for each lane."""
    assert not frames, "pictures as JSON lists are nobody's idea"
    with served_by("bench.peers.openenv_sockets") as address, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(base_url=f"http://{address}")) for _ in range(lanes)]
        for client in clients:
            client.reset()
        yield Sockets(clients)


def main() -> None:
    """Serves until it is ended."""
    app = create_fastapi_app(OneLane, Push, Numbers, max_concurrent_envs=MOST_SESSIONS)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(MOST_SESSIONS)  # connections wait in the queue until the server reads it
        print(f"127.0.0.1:{door.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[door])


if __name__ == "__main__":
    main()
