"""The monitor's process: one thread a world, one page for Prometheus. A client of the service like any other.

Nothing here can delay a step: the service does not know that it is watched. When this process is stopped, slow or
dead, the page is silent or its timestamps grow old, and alerts say so.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from simservice.client.worlds import list_worlds
from simservice.errors import ConfigError, InvalidInput, SimserviceError
from simservice.monitor.rig import RigConfig
from simservice.monitor.watch_reading import fidelity_reading, watch_reading
from simservice.monitor.world_watch import WatchConfig, WorldWatch
from simservice.protocol.messages import WorldContract
from simservice.telemetry import DriftMetrics, FidelityMetrics, MetricsServer, WatchReading, start_http

LOG = logging.getLogger(__name__)

GRACE_S = 3.0
PATIENCE_S = 1.0
"""A watch that waits for its next probe looks this often whether its alarm was acknowledged."""


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What is watched, and where that is kept and shown."""

    address: str
    folder: Path
    worlds: Sequence[str] = ()  # names; none: all whose real environment is known
    rig: RigConfig | None = None  # instead of the environment that a world was learned from
    policy: str | None = None  # a policy file that joins the mixture
    seed: int = 0
    watch: WatchConfig = field(default_factory=WatchConfig)
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    look_every_s: float = 10.0  # for worlds that were added


class Monitor:
    """Watches the worlds served at an address."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self.stopped = threading.Event()
        self.watches: dict[str, WorldWatch] = {}
        self._threads: list[threading.Thread] = []
        self._told: set[str] = set()
        self._lock: IO[str] | None = None
        self._fidelity = FidelityMetrics()
        self.registry = self._fidelity.registry
        DriftMetrics(self.registry, self.readings)
        self._spent: dict[tuple[str, str], int] = {}

    def readings(self) -> list[WatchReading]:
        """Of all worlds, as they stand."""
        return [watch_reading(watch) for watch in list(self.watches.values())]

    def run(self, ready: Callable[[MetricsServer], None] = lambda page: None) -> None:
        """Watches until stop(). Raises ConfigError when another monitor has the folder, PortInUse for the page's."""
        self._take_folder()
        page = start_http(self.registry, self.config.metrics_port, self.config.metrics_host)
        try:
            ready(page)
            while not self.stopped.is_set():
                self._find_worlds()
                self.stopped.wait(self.config.look_every_s)
        finally:
            self.stopped.set()
            for watch in self.watches.values():
                watch.interrupt()
            for thread in self._threads:
                thread.join(
                    GRACE_S
                )  # what is longer under way is lost, and played again: nothing counts before it is kept
            page.close()
            assert self._lock is not None
            self._lock.close()

    def stop(self) -> None:
        """Ends run() after what is under way; from any thread, and from a signal's handler."""
        self.stopped.set()

    def _take_folder(self) -> None:
        self.config.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.config.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            problem = f"another monitor keeps its evidence in {self.config.folder}; end it, or choose another --folder"
            raise ConfigError(problem, key="folder") from error

    def _find_worlds(self) -> None:
        try:
            contracts = list_worlds(self.config.address)
        except SimserviceError as error:
            LOG.warning("the service does not say what it serves (%s)", error)
            return
        for contract in contracts:
            name = contract.spec.name
            if name not in self.watches and (not self.config.worlds or name in self.config.worlds):
                self._watch(contract)
        for name in set(self.config.worlds) - {contract.spec.name for contract in contracts} - set(self.watches):
            self._tell(f"no world {name!r} is served at {self.config.address}; it is watched once it is")

    def _watch(self, contract: WorldContract) -> None:
        name = contract.spec.name
        rig = self.config.rig or rig_of(contract)
        if rig is None:
            self._tell(f"world {name!r} does not say what it was learned from; nobody watches it")
            return
        rig = replace(rig, policy=self.config.policy, seed=self.config.seed)
        try:
            watch = WorldWatch(self.config.address, name, rig, self.config.watch, self.config.folder)
        except InvalidInput as error:
            self._tell(str(error))
            return
        self.watches[name] = watch
        thread = threading.Thread(target=self._keep_watching, args=(watch,), name=f"watch of {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep_watching(self, watch: WorldWatch) -> None:
        try:
            self._publish(watch)  # what was known before
            while not self.stopped.is_set():
                wait_s = watch.step()
                self._publish(watch)
                self.stopped.wait(min(wait_s, PATIENCE_S))
        finally:
            watch.close()

    def _publish(self, watch: WorldWatch) -> None:
        found = fidelity_reading(watch)
        if found is not None:
            self._fidelity.publish(found[0], at=found[1])
        for source, steps in dict(watch.kept.real_steps).items():
            known = self._spent.get((watch.world, source), 0)
            if steps > known:
                self._fidelity.add_real_transitions(watch.world, source, steps - known)
                self._spent[watch.world, source] = steps

    def _tell(self, message: str) -> None:
        """Once each."""
        if message not in self._told:
            self._told.add(message)
            LOG.warning("%s", message)


def rig_of(contract: WorldContract) -> RigConfig | None:
    """The real environment that a world was learned from, as its provenance names it."""
    origin = contract.provenance
    env_id = origin.get("env_id")
    if not env_id:
        return None
    return RigConfig(
        env_id=str(env_id),
        env_kwargs=dict(origin.get("env_kwargs") or {}),
        attributes=dict(origin.get("env_attributes") or {}),
    )
