"""What the capture of a CUDA graph asks of the process around it. Knows no world."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def nothing_freed() -> Iterator[None]:
    """No garbage is collected: to free a former graph while another is captured ends the process."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
