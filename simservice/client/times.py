"""Which times to wait a client takes from its user."""

from __future__ import annotations

from typing import Any

import numpy as np

from simservice.errors import InvalidInput

LONGEST_WAIT_S = 1e9  # 31 years; the operating system's clocks take little more


def check_seconds(**times: Any) -> None:
    """Refuses what is no time to wait, before a wait of it goes wrong in a thread nobody sees."""
    for name, seconds in times.items():
        number = isinstance(seconds, int | float | np.number) and not isinstance(seconds, bool)
        if not (number and 0 <= seconds <= LONGEST_WAIT_S and (seconds > 0 or name != "timeout_s")):
            raise InvalidInput(name, f"{seconds!r} is no time to wait; take seconds, at most {LONGEST_WAIT_S:,.0f}")
