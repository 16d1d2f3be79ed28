"""The ceiling of many clients: a bare grpc.aio server that steps a world for whoever waits, in one go, and no more.

As a program: `python -m bench.peers.raw_shared KIND` serves a world of stand_ins.py and prints its address. A stream is
as many lanes as its first message has actions, int64; each message is answered by observations, rewards and ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise

import numpy as np
import torch
from torch import Tensor

from bench import stand_ins
from bench.peers.raw_echo import serve_streams
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Tensors, World


@dataclass
class Member:
    """One stream's lanes."""

    seeds: Tensor
    state: Tensors
    step: int = 0


@dataclass
class Waiting:
    """One message that is to be answered."""

    member: Member
    actions: Tensor
    answer: asyncio.Future[bytes]


class Shared:
    """Streams of one world. A tick takes all that wait, in a thread; the event loop reads on meanwhile."""

    def __init__(self, world: World) -> None:
        self._world = world.eval().requires_grad_(False)
        self._waiting: list[Waiting] = []
        self._ticking: asyncio.Task[None] | None = None
        self._first = count()

    async def stream(self, requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        """Answers one client."""
        member: Member | None = None
        async for request in requests:
            actions = torch.from_numpy(np.frombuffer(request, np.int64).copy())
            member = member or self._entered(len(actions))
            waiting = Waiting(member, actions, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            if self._ticking is None or self._ticking.done():
                self._ticking = asyncio.create_task(self._ticks())
            yield await waiting.answer

    def _entered(self, lanes: int) -> Member:
        seeds = torch.arange(lanes) + 1_000 * next(self._first)
        with torch.inference_mode():
            luck = lane_draws(self._world.draws["init"], seeds, torch.zeros_like(seeds), "init")
            return Member(seeds, self._world.init(luck))

    async def _ticks(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            for one, answer in zip(batch, await asyncio.to_thread(self._tick, batch), strict=True):
                one.answer.set_result(answer)

    def _tick(self, batch: Sequence[Waiting]) -> list[bytes]:
        members = [one.member for one in batch]
        for member in members:
            member.step += 1
        with torch.inference_mode():
            seeds = torch.cat([member.seeds for member in members])
            steps = torch.cat([torch.full_like(member.seeds, member.step) for member in members])
            state = {name: torch.cat([member.state[name] for member in members]) for name in self._world.slots}
            luck = lane_draws(self._world.draws["step"], seeds, steps, "step")
            after, out = self._world.step(state, {"action": torch.cat([one.actions for one in batch])}, luck)
            seen = self._world.emit(after)[stand_ins.OBSERVATION].numpy()
            reward, ends = out.reward.numpy(), out.terminated.numpy()
        bounds = list(pairwise(accumulate((len(member.seeds) for member in members), initial=0)))
        for member, (start, end) in zip(members, bounds, strict=True):
            member.state = {name: rows[start:end] for name, rows in after.items()}
        return [b"".join(rows[start:end].tobytes() for rows in (seen, reward, ends)) for start, end in bounds]


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve_streams(Shared(stand_ins.world(sys.argv[1], sys.argv[1])).stream)
