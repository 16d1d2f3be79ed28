"""What acceptance lines stand on: services that are started when the first line asks and end with the run."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cached_property
from pathlib import Path

from cartpole_world import CartPoleWorld, cartpole_spec
from ledger import save_ledger
from toy import Toy, ToyConfig, toy_spec

from simservice.serving.service import RayService
from simservice.types import Provenance
from simservice.worlds import checkpoint

FAMILIES = "toy:Toy,ledger:Ledger,cartpole_world:CartPoleWorld"


class Stage:
    """Folders and services, made once."""

    def __init__(self):
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def close(self):
        """Ends everything that was started."""
        for made in ("folder", "ray", "ledger", "cartpole", "toy"):
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
        """Two replicas of the ledger behind HAProxy."""
        return self._stack.enter_context(RayService([self.ledger], replicas=(2, 2), device="cpu"))
