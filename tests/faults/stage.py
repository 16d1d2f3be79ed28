"""What acceptance lines stand on: services that are started when the first line asks and end with the run."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from cartpole_world import CartPoleWorld, cartpole_spec
from ledger import save_ledger
from serving_tools import tenants_file
from toy import Toy, ToyConfig, toy_spec

from simservice.serving.service import RayService
from simservice.types import Provenance
from simservice.worlds import checkpoint

FAMILIES = "toy:Toy,ledger:Ledger,cartpole_world:CartPoleWorld"


TENANTS = ("north", "south")
TENANT_SESSIONS, TENANT_LANES = 16, 128
"""Their quotas: exactly what the crowd of kills.py needs, so that a lease of a dead replica would be in the way."""


class Stage:
    """Folders and services, made once."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self.calm_run: Any = None  # a crowd that nothing disturbed; kills.py makes it

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def close(self):
        """Ends everything that was started."""
        for made in ("folder", "ray", "ledger", "cartpole", "toy", "_tenants"):
            self.__dict__.pop(made, None)
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """A place for worlds."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    @cached_property
    def ledger(self) -> Path:
        """The world that keeps books."""
        return save_ledger(self.folder / "ledger")

    @cached_property
    def cartpole(self) -> Path:
        """CartPole's true dynamics."""
        world = self.folder / "cartpole"
        checkpoint.save(CartPoleWorld(cartpole_spec()), world, provenance=Provenance(env_id="CartPole-v1"))
        return world

    @cached_property
    def toy(self) -> Path:
        """The toy, bounded, so that no lane ends but by the time limit."""
        world = self.folder / "toy"
        checkpoint.save(Toy(toy_spec(name="toy"), ToyConfig(growth=0.9)), world, provenance=Provenance())
        return world

    @cached_property
    def ray(self) -> RayService:
        """Two replicas of the ledger behind HAProxy, for tenants with quotas."""
        tenants, _ = self._tenants
        return self._stack.enter_context(RayService([self.ledger], replicas=(2, 2), device="cpu", tenants=str(tenants)))

    @property
    def tokens(self) -> dict[str, str]:
        """Of the tenants of `ray`, by name."""
        return self._tenants[1]

    @cached_property
    def _tenants(self) -> tuple[Path, dict[str, str]]:
        quotas = {"sessions": TENANT_SESSIONS, "lanes": TENANT_LANES}
        return tenants_file(self.folder, **dict.fromkeys(TENANTS, quotas))
