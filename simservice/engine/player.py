"""Plays a rollout: the steps of some lanes of their own, one call of the world and one of the policy each.

The lanes are copies, so nothing of the session changes until the rollout is over, and what is played does not depend on
anybody else's steps. Runs on the rollout's thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from simservice.engine.actors import Actor
from simservice.engine.control import DISABLED
from simservice.engine.episodes import Episodes
from simservice.engine.luck import luck_ahead
from simservice.engine.pages import Pages
from simservice.engine.requests import Borrowed
from simservice.engine.rollouts import Rollout
from simservice.engine.snapshot import CACHE, pack, unpack
from simservice.engine.stages import Stages
from simservice.engine.turns import Turns
from simservice.types import Array, Imagine
from simservice.worlds.world import World

PART_BYTES = 2**20  # of a part, about: while one is sent the thread that plays the next waits for the interpreter
PART_S = 0.5  # after so long a part is handed out, full or not


@dataclass(frozen=True)
class Play:
    """All that a rollout is played from."""

    world: World
    command: Imagine
    borrowed: Borrowed
    before: bytes | None  # what the lanes were, where it is not what was borrowed
    actor: Actor
    seeds: Array | None  # of copies with luck of their own
    stages: Stages
    turns: Turns
    step_bytes: int  # of all lanes' answers to one step


def play(rollout: Rollout, given: Play) -> None:
    """Plays it to its end; the last part is handed out when `rollout.after` is set."""
    with torch.inference_mode():
        given.turns.begin("rollout")
        try:
            player = _Player(rollout, given)
        finally:
            given.turns.end()
        try:
            player.play()
        finally:
            given.stages.leave(player.stage)


class _Player:
    def __init__(self, rollout: Rollout, given: Play) -> None:
        self.rollout = rollout
        self.given = given
        command, world = given.command, given.world
        borrowed = given.borrowed
        lanes = len(borrowed.control.seed) - 1
        if given.before is not None:
            rows, columns = unpack(world.spec, dict(world.slots), lanes, given.before)
            for name, row in borrowed.rows.items():
                row[:lanes] = rows[name].to(row.device)
            borrowed.control.write(np.arange(lanes), columns)
        elif command.advance:
            columns = borrowed.control.columns(np.arange(lanes))
            rows = {name: row[:lanes] for name, row in borrowed.rows.items()}
            rollout.before = pack(world.spec, dict(world.slots), rows, columns)
        rows, control = borrowed.rows, borrowed.control
        if command.copies > 1:
            source = np.append(np.repeat(np.arange(lanes), command.copies), lanes)
            index = torch.from_numpy(source).to(next(iter(rows.values())).device)
            rows = {name: row.index_select(0, index) for name, row in rows.items()}
            control = control.taken(source)
        self.count = lanes * command.copies
        if given.seeds is not None:
            control.reseed(np.arange(self.count), given.seeds)
        if command.stop_at_end:
            control.mode[:] = DISABLED
        emits = command.advance or command.observation or given.actor.looks
        self.stage = given.stages.enter(rows, control, emits)
        self.runner = self.stage.runner
        self.control = self.runner.control
        self.runner.between = given.turns.give_way
        if not self.stage.kept:  # graphs draw their luck by themselves
            self.runner.ahead = luck_ahead(self.control, world, command.steps)
        self.episodes = Episodes(self.runner, self.control)
        self.stops = bool((control.mode[: self.count] == DISABLED).all())
        room = min(command.steps, max(1, PART_BYTES // max(1, given.step_bytes)))
        self.pages = Pages(command, self.count, room, "uncertainty" in world.spec.capabilities, given.actor.fits)

    def play(self) -> None:
        """All steps."""
        rollout, command, turns = self.rollout, self.given.command, self.given.turns
        control, pages, actor = self.control, self.pages, self.given.actor
        lanes, where = np.arange(self.count), slice(0, self.count)
        turns.begin("rollout")
        try:
            if self.given.before is not None and any(slot.role == CACHE for slot in self.given.world.slots.values()):
                self.runner.rebuild(lanes)
            observation = self.episodes.look(lanes) if self.runner.emits else {}
        finally:
            turns.end()
        pages.begin(observation)
        handed = time.monotonic()
        awake = False  # all lanes are in the middle of an episode; looked up again where that may have changed
        for number in range(command.steps):
            rollout.check()
            action = actor.act(number, observation, control, pages)
            if not awake:
                awake = control.steppable(where)
            resting = None if awake else control.ended[where].copy()
            turns.begin("rollout")
            try:
                taken = self.episodes.play(lanes, where, action, resting)
            finally:
                turns.end()
            awake = awake and not taken.ended
            pages.add(taken, resting, self.stops)
            observation = taken.done.observation
            if number + 1 < command.steps and (pages.full or time.monotonic() - handed > PART_S):
                rollout.give(pages.take(last=False))
                handed = time.monotonic()
        if command.advance:
            turns.begin("rollout")
            try:
                rollout.after = self.stage.played(self.count)
            finally:
                turns.end()
        rollout.give(pages.take(last=True))
