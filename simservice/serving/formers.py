"""Former versions of a world, held for the sessions that began in them: loaded when one comes, ended with the last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from simservice.errors import SimserviceError
from simservice.serving.facade import Hosted
from simservice.serving.wiring import Replica
from simservice.worlds import checkpoint

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0


class Formers:
    """The versions in some folders, by name@version; `build` makes a replica of a folder."""

    def __init__(
        self, folders: Iterable[str | Path], build: Callable[[str | Path], Replica], look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self._folders = dict(_described(folders))
        self._build = build
        self._look_every_s = look_every_s
        self._loaded: dict[str, Replica] = {}
        self._turn = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> list[Hosted]:
        """Those that are held now."""
        return [replica.hosted for replica in self._loaded.values()]

    def of(self, name: str) -> list[Hosted]:
        """Those of one world that are held now."""
        return [host for host in self.loaded if host.name == name]

    async def hosted(self, full_name: str) -> Hosted | None:
        """The version, loaded if need be; None for one that is not known here, or cannot be loaded any more."""
        async with self._turn:
            if full_name not in self._loaded and full_name in self._folders:
                try:
                    replica = await asyncio.to_thread(self._build, self._folders[full_name])
                    if replica.hosted.full_name != full_name:  # the folder holds another world by now
                        del self._folders[full_name]
                        return None
                    await asyncio.to_thread(replica.engine.start)
                except SimserviceError as error:
                    log.warning("the former version %s cannot be held: %s", full_name, error)
                    return None
                self._loaded[full_name] = replica
                if self._watch is None:
                    self._watch = asyncio.create_task(self._let_go())
            held = self._loaded.get(full_name)
            return held.hosted if held is not None else None

    async def stop(self) -> None:
        """Ends all of them."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
        for full_name in list(self._loaded):
            await self._loaded.pop(full_name).stop()

    async def _let_go(self) -> None:
        """Ends versions that nobody has used for a while."""
        unused: set[str] = set()
        while True:
            await asyncio.sleep(self._look_every_s)
            async with self._turn:
                now = {name for name, replica in self._loaded.items() if not replica.service.stats().open}
                for full_name in unused & now:
                    log.info("no session of the former version %s is left", full_name)
                    await self._loaded.pop(full_name).stop()
                unused = now


def _described(folders: Iterable[str | Path]) -> Iterable[tuple[str, str | Path]]:
    for folder in folders:
        try:
            yield checkpoint.describe(folder)[0].full_name, folder
        except SimserviceError as error:
            log.warning("sessions of a former version are lost: %s", error)
