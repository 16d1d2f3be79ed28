"""How families are found and worlds are made of them."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from gymnasium import spaces

from simservice.errors import ConfigError, UnknownFamily
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.world import World


@dataclass(frozen=True, kw_only=True)
class Settings:
    members: int = 5
    rate: float = 0.1


class Brought(World):
    family = "brought"
    Config = Settings

    @property
    def slots(self):
        return {}

    @property
    def draws(self):
        return {"init": {}, "observe": {}, "step": {}}

    def init(self, draws):
        return {}

    def observe(self, state, observation, previous_action, is_first, draws):
        return state

    def step(self, state, action, draws):
        raise AssertionError("never stepped")

    def emit(self, state):
        return {"observation": torch.zeros(16)}

    def prepare(self, episodes):
        pass


SPEC = WorldSpec(
    name="w", version="", family="brought", observation_space=spaces.Discrete(2), action_space=spaces.Discrete(2)
)


@pytest.fixture
def brought(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    return registry.register(Brought)


def test_the_installed_families_are_found_by_their_entry_points():
    found = registry.families()
    assert {"persistence", "linear", "oracle"} <= set(found)
    assert all(cls.family == name for name, cls in found.items())


def test_a_registered_family_makes_worlds_with_its_settings(brought):
    assert registry.families()["brought"] is Brought
    world = registry.create("brought", SPEC, {"members": 7})
    assert isinstance(world, Brought) and world.config == Settings(members=7)
    assert registry.create("brought", SPEC).config == Settings()


def test_a_wrong_setting_is_named_with_its_near_miss(brought):
    with pytest.raises(ConfigError, match=r"'member'.*did you mean 'members'"):
        registry.create("brought", SPEC, {"member": 7})
    with pytest.raises(ConfigError, match="members must be a whole number, found 'many'"):
        registry.create("brought", SPEC, {"members": "many"})


def test_an_unknown_family_is_named_with_its_near_miss():
    with pytest.raises(UnknownFamily, match="'persistance' is installed; did you mean 'persistence'"):
        registry.family("persistance")


def test_the_environment_variable_brings_families_to_a_process(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from simservice.worlds.families.persistence import Persistence\n"
        "class Mine(Persistence):\n    family = 'mine'\n"
    )
    code = (
        "from simservice.worlds import registry\n"
        "print(registry.family('mine').__module__, 'mine' in registry.families(), 'mine' in registry.names())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path), registry.EXTRA_FAMILIES: "mine:Mine", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["mine", "True", "True"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("nowhere", "not of the form module:Class"),
        ("no_such_module:X", "cannot be loaded"),
        ("json:Nothing", "cannot be loaded"),
        ("json:dumps", "is not a World class"),
    ],
)
def test_a_wrong_environment_variable_says_what_is_wrong(monkeypatch, value, problem):
    monkeypatch.setenv(registry.EXTRA_FAMILIES, value)
    with pytest.raises(ConfigError, match=problem):
        registry.families()


def test_only_worlds_can_be_registered():
    with pytest.raises(ConfigError, match="is not a World class"):
        registry.register(dict)
