"""Runs rows on a world folder, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from simservice.data.collect import RealStepCounter
from simservice.errors import ConfigError
from simservice.proving.recipe import Check
from simservice.proving.record import Behaviour
from simservice.proving.rows.contexts import given_starts
from simservice.proving.rows.determinism import bitwise
from simservice.proving.rows.ground import Row, Subject
from simservice.proving.rows.heads import reward_and_end, time_limits
from simservice.proving.rows.knowing import uncertainty
from simservice.proving.rows.long_horizon import stability, wrong_dreams
from simservice.proving.rows.luck import branches
from simservice.proving.rows.speed import steps_a_second
from simservice.proving.rows.starts import starts

ROWS: dict[str, tuple[Row, ...]] = {
    "A7": (stability, wrong_dreams),
    "A7b": (branches,),
    "A7c": (uncertainty,),
    "A7d": (reward_and_end, time_limits),
    "A7e": (starts,),
    "A9": (given_starts,),
    "A14": (bitwise,),
    "A16": (steps_a_second,),
}

OF_ONE_GROUND = {"A7b": "simservice/FlipBall-v0"}


def examine(
    folder: Path,
    rows: Sequence[str] = (),
    behaviour: Behaviour = "random",
    *,
    counter: RealStepCounter | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> list[Check]:
    """The named rows (none: all that fit the world's ground) of a world folder; `counter` has the real steps it took.

    Raises ConfigError for a row that is unknown, InvalidInput for a world that does not name its reality.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise ConfigError(f"no row {unknown[0]!r}; there are: {', '.join(ROWS)}", key="rows")
    subject = Subject.open(folder, behaviour, counter)
    chosen = rows or [row for row in ROWS if OF_ONE_GROUND.get(row, subject.env_id) == subject.env_id]
    checks: list[Check] = []
    for row in chosen:
        say(f"row {row}")
        checks += [found for part in ROWS[row] for found in part(subject)]
    return checks
