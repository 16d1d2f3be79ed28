"""Where the service stands while it is measured: one on Ray Serve behind HAProxy, with sessions, journal and metrics.

Worlds are written into a folder, deployed for a row, and taken down after it, so that nothing idles beside a row.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from local_process import LocalProcess

from bench import stand_ins
from bench.processes import with_our_folders
from simservice.serving.service import RayService
from simservice.types import Provenance
from simservice.worlds import checkpoint
from simservice.worlds.registry import EXTRA_FAMILIES


class Stage:
    """The service of one run; started when a row first needs it. Without Ray only to try the machinery."""

    def __init__(self, ray: bool = True) -> None:
        self.ray = ray
        self._stack = contextlib.ExitStack()
        self._service: RayService | None = None
        self._folder = Path()
        self._number = 0

    def __enter__(self) -> Stage:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self._stack.enter_context(_environment())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def serving(self, kind: str, replicas: int = 1) -> Iterator[tuple[str, str]]:
        """(address, name) of such a world while the block lasts."""
        self._number += 1
        name = f"{kind}{self._number}"
        folder = self._folder / name
        checkpoint.save(stand_ins.world(kind, name), folder, provenance=Provenance())
        if not self.ray:
            with LocalProcess(folder) as local:
                yield local.address, name
            return
        if self._service is None:
            self._service = self._stack.enter_context(RayService())
        self._service.deploy(folder, replicas=(replicas, replicas))
        try:
            yield self._service.address, name
        finally:
            self._service.remove(name)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Every process that starts finds our worlds."""
    before = dict(os.environ)
    os.environ.update(with_our_folders())
    os.environ[EXTRA_FAMILIES] = f"toy:Toy,{stand_ins.families()}"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
