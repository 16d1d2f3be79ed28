"""What goes wrong for people, and what they read: one clear line that names what was found and what to do.

Every mistake is made with the real parts: a running service, the client, files on disk, the command line.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from simservice.cli import run
from simservice.client.env import RemoteEnv
from simservice.client.vector_env import RemoteVectorEnv
from simservice.data.collect import RealStepCounter, collect
from simservice.data.minari import load_dataset
from simservice.errors import (
    ConfigError,
    CorruptCheckpoint,
    InvalidInput,
    MissingDataset,
    NeedsReset,
    PortInUse,
    RealStepBudgetExceeded,
    ServerUnavailable,
    SessionClosed,
    SimserviceError,
    StoreUnavailable,
    UnknownEnvironment,
    UnknownFamily,
    UnknownWorld,
)
from simservice.serving.local import LocalConfig, LocalServer
from simservice.worlds import checkpoint


@dataclass(frozen=True)
class Place:
    """Where the mistakes are made."""

    address: str
    toy: Path  # a good world's folder
    tmp: Path

    def env(self, world: str = "toy") -> RemoteEnv:
        """One lane, ready to be stepped."""
        env = RemoteEnv(self.address, world)
        env.reset(seed=0)
        return env

    def damaged(self, file: str, change: Callable[[bytes], bytes]) -> Path:
        """A copy of the good world with one file changed."""
        folder = self.tmp / "damaged"
        shutil.copytree(self.toy, folder)
        path = folder / file
        path.write_bytes(change(path.read_bytes()))
        return folder


@pytest.fixture(scope="module")
def server(save_toy: Callable[..., Path]) -> Iterator[tuple[LocalServer, Path]]:
    """The toy with discrete and with continuous actions."""
    toy = save_toy()
    box = save_toy("box", spec={"action_space": spaces.Box(-1.0, 1.0, (2,), np.float32)})
    with LocalServer([toy, box], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        yield server, toy


@pytest.fixture
def place(server: tuple[LocalServer, Path], tmp_path: Path) -> Place:
    return Place(server[0].address, server[1], tmp_path)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def step(place: Place, action: Any, world: str = "toy") -> None:
    with closing(place.env(world)) as env:
        env.step(action)


def step_vector(place: Place, actions: Any) -> None:
    with closing(RemoteVectorEnv(3, address=place.address, world="toy")) as env:
        env.reset(seed=0)
        env.step(actions)


def step_closed(place: Place) -> None:
    env = place.env()
    env.close()
    env.step(1)


def step_before_reset(place: Place) -> None:
    with closing(RemoteEnv(place.address, "toy")) as env:
        env.step(1)


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def start(folder: Path, **arguments: Any) -> None:
    LocalServer([folder], **{"store_url": "memory:", **arguments}).start().stop()


@dataclass(frozen=True)
class Mistake:
    """What somebody did, and what the message must hold."""

    what: str
    make: Callable[[Place], Any]
    error: type[SimserviceError]
    words: tuple[str, ...]


MISTAKES = (
    Mistake(
        "wrong address",
        lambda place: RemoteEnv(f"127.0.0.1:{free_port()}", "toy", connect_timeout_s=1.0),
        ServerUnavailable,
        ("no world service answers at 127.0.0.1:", "simservice serve DIR"),
    ),
    Mistake(
        "an address without a port",
        lambda place: RemoteEnv("localhost", "toy"),
        InvalidInput,
        ("localhost", "host:port"),
    ),
    Mistake("unknown world", lambda place: RemoteEnv(place.address, "tay"), UnknownWorld, ("'tay'", "mean 'toy'")),
    Mistake("unknown version", lambda place: RemoteEnv(place.address, "toy@123"), UnknownWorld, ("'toy@123'", "toy@")),
    Mistake("wrong action shape", lambda place: step(place, np.zeros(3, np.int64)), InvalidInput, ("action", "shape")),
    Mistake(
        "too few actions", lambda place: step_vector(place, np.zeros(2, np.int64)), InvalidInput, ("action", "(3,)")
    ),
    Mistake("wrong action dtype", lambda place: step(place, 0.5), InvalidInput, ("action", "int64")),
    Mistake("an action outside the space", lambda place: step(place, 7), InvalidInput, ("action", "Discrete(3)")),
    Mistake(
        "NaN",
        lambda place: step(place, np.array([0.0, np.nan], np.float32), "box"),
        InvalidInput,
        ("action", "only finite numbers"),
    ),
    Mistake("closed session", step_closed, SessionClosed, ("closed", "make the environment again")),
    Mistake("step before reset", step_before_reset, NeedsReset, ("must be reset", "reset() first")),
    Mistake(
        "unknown option",
        lambda place: place.env().reset(options={"gravity": 3}),
        InvalidInput,
        ("option", "gravity"),
    ),
    Mistake(
        "a changed byte in the weights",
        lambda place: start(place.damaged("weights.safetensors", flip)),
        CorruptCheckpoint,
        ("damaged", "weights.safetensors", "simservice train"),
    ),
    Mistake(
        "half a description",
        lambda place: checkpoint.load(place.damaged("world.json", lambda data: data[: len(data) // 2])),
        CorruptCheckpoint,
        ("world.json", "simservice train"),
    ),
    Mistake(
        "a family that is not installed",
        lambda place: checkpoint.load(place.damaged("world.json", lambda data: data.replace(b'"toy"', b'"tyo"'))),
        (CorruptCheckpoint, UnknownFamily),
        ("world",),
    ),
    Mistake(
        "a folder that is no world",
        lambda place: start(place.tmp),
        CorruptCheckpoint,
        ("world.json", "simservice train"),
    ),
    Mistake(
        "missing dataset",
        lambda place: load_dataset("simservice/cartpole-v1/random-v9", place.tmp),
        MissingDataset,
        ("random-v9", "simservice collect ENV"),
    ),
    Mistake(
        "unknown environment",
        lambda place: collect("CartPool-v1", steps=1, seed=0),
        UnknownEnvironment,
        ("'CartPool-v1'", "did you mean 'CartPole-v1'"),
    ),
    Mistake(
        "spent budget",
        lambda place: collect("CartPole-v1", steps=20, seed=0, budget=RealStepCounter(10)),
        RealStepBudgetExceeded,
        ("20 more real steps", "budget of 10"),
    ),
    Mistake(
        "port in use",
        lambda place: start(place.toy, port=int(place.address.rpartition(":")[2])),
        PortInUse,
        ("in use", "--port"),
    ),
    Mistake(
        "no Valkey",
        lambda place: start(place.toy, store_url=f"redis://127.0.0.1:{free_port()}"),
        StoreUnavailable,
        ("redis://127.0.0.1:", "REDIS_URL"),
    ),
    Mistake(
        "plaintext for everybody",
        lambda place: start(place.toy, config=LocalConfig(host="0.0.0.0")),
        ConfigError,
        ("0.0.0.0", "--insecure"),
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_gets_one_clear_message(mistake: Mistake, place: Place):
    with pytest.raises(mistake.error) as caught:
        mistake.make(place)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 400
    for words in mistake.words:
        assert words in message


def test_a_refused_action_changes_nothing(place: Place):
    with closing(place.env()) as env, closing(place.env()) as other:
        for wrong in (np.zeros(3, np.int64), 0.5, 7, "left", None):
            with pytest.raises(InvalidInput):
                env.step(wrong)
        np.testing.assert_array_equal(env.step(2)[0], other.step(2)[0])


COMMANDS = (
    ("worlds --address 127.0.0.1:{free}", "simservice serve DIR"),
    ("worlds --address nonsense", "host:port"),
    ("serve {tmp} --local --port 0", "simservice train"),
    ("serve {toy} --local --port {taken} --store-url memory:", "--port"),
    ("serve {toy} --local --port 0 --store-url redis://127.0.0.1:{free}", "REDIS_URL"),
    ("serve {toy} --local --host 0.0.0.0", "--insecure"),
    ("serve {toy} --local --replicas 3", "--local"),
    ("serve {toy} --replicas many", "N or MIN-MAX"),
    ("serve {toy} --device tpu", "auto, cpu or cuda"),
    ("collect CartPool-v1", "CartPole-v1"),
    ("collect CartPole-v1 --set gravty=12 --root {tmp}", "gravity"),
    ("collect CartPole-v1 --set gravity --root {tmp}", "name=value"),
    ("collect CartPole-v1 --policy {tmp}/none.npz --root {tmp}", "there is no file"),
    ("collect CartPole-v1 --dataset nonsense --root {tmp}", "namespace/name-v0"),
    ("collect CartPole-v1 --dataset a/b-v0 --append c/d-v0 --root {tmp}", "simservice collect ENV"),
    ("probe tay --address {address}", "did you mean 'toy'"),
    ("probe toy --address {address}", "--env"),
    ("probe toy --address {address} --env CartPole-v1", "observation space"),
)


@pytest.mark.parametrize(("line", "words"), COMMANDS, ids=[re.sub(r"\W+", " ", line) for line, _ in COMMANDS])
def test_a_command_that_fails_says_so_in_one_line_and_ends_with_two(
    line: str, words: str, place: Place, capsys: pytest.CaptureFixture[str]
):
    names = {
        "tmp": place.tmp,
        "toy": place.toy,
        "address": place.address,
        "taken": place.address.rpartition(":")[2],
        "free": free_port(),
    }
    assert run([word.format(**names) for word in line.split()]) == 2
    captured = capsys.readouterr()
    lines = [text for text in captured.err.splitlines() if text.strip()]
    assert lines[-1].startswith("error: ")
    assert words in lines[-1]
    assert sum(text.startswith("error:") for text in lines) == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_gymnasium_finds_the_environment_and_hands_the_message_on(place: Place):
    with pytest.raises(UnknownWorld, match="did you mean 'toy'"):
        gym.make_vec(
            "simservice.client:simservice/World-v0",
            num_envs=2,
            vectorization_mode="vector_entry_point",
            address=place.address,
            world="tay",
        )
