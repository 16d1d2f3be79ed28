"""A7b: luck as reality has it. A world of FlipBall turns its ball as often, and its futures cannot be told apart."""

from __future__ import annotations

import numpy as np

from simservice.data.environments import close, make_environment
from simservice.errors import InvalidInput
from simservice.grounds import flip_ball
from simservice.proving.recipe import Check
from simservice.proving.rows.ground import Subject, check, told_apart
from simservice.types import Array, Context, Leaves
from simservice.worlds.rollout import imagine

FORKS = 2_000
AHEAD = 5
FLIP = 0.3


def branches(subject: Subject) -> list[Check]:
    """2,000 lanes from one start, with luck of their own and with one luck."""
    if subject.env_id != "simservice/FlipBall-v0":
        raise InvalidInput("world", f"{subject.folder} was learned from {subject.env_id}; this row needs FlipBall")
    start, real = _reality(subject)
    context = Context({"observation": np.repeat(start[None, None], FORKS, axis=0)}, {})
    actions: Leaves = {"action": np.zeros((FORKS, AHEAD), np.int64)}
    own = imagine(subject.world, actions, context=context).observation["observation"]
    same = imagine(subject.world, actions, context=context, seeds=np.full(FORKS, 7, dtype=np.int64)).observation[
        "observation"
    ]
    before, after = flip_ball.read(own[:, 0]), flip_ball.read(own[:, 1])
    turned = float((before["direction"] != after["direction"]).mean())
    truly = float((real["direction"][:, 1] != real["direction"][:, 0]).mean())
    dreamt = flip_ball.read(own)
    area = told_apart(_futures(dreamt), _futures(real))
    return [
        check("A7b", f"branch frequency's distance from {FLIP} ({FORKS} forks; reality {truly:.3f})",
              abs(turned - FLIP), most=0.05),
        check("A7b", "frames with one ball", float(dreamt["clean"].mean()), least=0.98),
        check("A7b", "forks with one luck that differ", float((same != same[:1]).any()), most=0),
        check("A7b", f"futures of {AHEAD} steps told from real ones, AUC", area, most=0.6),
    ]  # fmt: skip


def _reality(subject: Subject) -> tuple[Array, dict[str, Array]]:
    """A real start, and what follows it in as many real futures: the environment is put there again and again."""
    environment = make_environment(subject.env_id, subject.env_kwargs)
    try:
        start, _ = environment.reset(seed=TEST_START)
        real = environment.unwrapped
        column, direction = real.column, real.direction  # type: ignore[attr-defined]
        futures = np.empty((FORKS, AHEAD + 1, 2), dtype=np.int64)
        for fork in range(FORKS):
            real.column, real.direction = column, direction  # type: ignore[attr-defined]
            futures[fork, 0] = column, direction
            for step in range(AHEAD):
                real.step(0)
                futures[fork, step + 1] = real.column, real.direction  # type: ignore[attr-defined]
            subject.counter.spend(AHEAD)
        return np.asarray(start), {"column": futures[..., 0], "direction": futures[..., 1]}
    finally:
        close(environment)


TEST_START = 123


def _futures(read: dict[str, Array]) -> Array:
    """(n, 2 x AHEAD) numbers of what came after the start; the column as a place on the ring."""
    turn = 2 * np.pi * read["column"][:, 1:] / flip_ball.CELLS
    return np.concatenate([np.sin(turn), np.cos(turn), read["direction"][:, 1:]], axis=1).astype(np.float64)
