"""What a serving process asks of Python's interpreter once everything is loaded."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 3e-5
"""After so long a thread that wants the interpreter gets it, where Python's 5 ms are many ticks: the event loop reads
and answers beside the engine's thread, whose kernels run without the interpreter and want it between two of them."""


def settle() -> None:
    """For the process that serves, not for a program that has a server in it."""
    gc.collect()
    gc.freeze()  # what is loaded now stays; walking it again and again made one step in a hundred slow
    sys.setswitchinterval(SWITCH_S)
