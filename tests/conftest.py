"""What tests of several rooms share: the toy world as a family, as a folder, and behind a running local server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Toy, ToyConfig, toy_spec

from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.service import RayService
from simservice.types import Provenance
from simservice.worlds import checkpoint

TESTS = Path(__file__).parent

# Server processes of the tests find the toy as this one does.
os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])

# A suite that was started in the background ignores Ctrl-C, and so would all that it starts: tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def save_toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a toy world: save_toy(name="toy", noise=0.1, spec={"max_episode_steps": 10}) gives its folder."""

    def save(name: str = "toy", spec: dict[str, Any] | None = None, **config: Any) -> Path:
        folder = tmp_path_factory.mktemp("worlds") / name
        checkpoint.save(Toy(toy_spec(name=name, **(spec or {})), ToyConfig(**config)), folder, provenance=Provenance())
        return folder

    return save


@pytest.fixture(scope="session")
def toy_folder(save_toy: Callable[..., Path]) -> Path:
    """The toy world as a checkpoint folder."""
    return save_toy()


@pytest.fixture(scope="session")
def noisy_folder(save_toy: Callable[..., Path]) -> Path:
    """The toy with luck in every step, for tests of determinism."""
    return save_toy("noisy", noise=0.1, growth=0.95)


@pytest.fixture(scope="module")
def toy_server(toy_folder: Path, noisy_folder: Path) -> Iterator[LocalServer]:
    """A running local server of the worlds "toy" and "noisy"; server.address is where."""
    with LocalServer([toy_folder, noisy_folder], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        yield server


@pytest.fixture(scope="session")
def ray_service(noisy_folder: Path) -> Iterator[RayService]:
    """The world "noisy" on two replicas of Ray Serve behind HAProxy: one cluster for the whole suite."""
    with RayService([noisy_folder], replicas=(2, 2), sessions_per_replica=7) as service:
        yield service
