"""Worlds as folders: what comes back, what names a version, and what every kind of damage says."""

import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import Toy, ToyConfig, toy_spec

from simservice.errors import CorruptCheckpoint, InvalidInput, UnknownFamily
from simservice.types import Provenance
from simservice.worlds import checkpoint
from simservice.worlds.checkpoint import DESCRIPTION, STARTS, WEIGHTS, describe, load, save, update_provenance
from simservice.worlds.families.linear import Linear

PROVENANCE = Provenance(
    env_id="Toy-v0", env_kwargs={"gravity": 9.8}, real_steps=100, fidelity={"curve": [0.1, math.inf], "r2": 0.5}
)


def small():
    """A linear world of the toy's spaces: it has weights and starts."""
    torch.manual_seed(0)
    world = Linear(toy_spec(name="small", version="", family="linear", max_episode_steps=50))
    with torch.no_grad():
        world.dynamics.normal_()
    world.set_starts({"rows": torch.randn(5, 4)})
    return world


@pytest.fixture
def folder(tmp_path):
    save(small(), tmp_path / "w", provenance=PROVENANCE)
    return tmp_path / "w"


def rewritten(folder, change):
    """Changes the parsed description and writes it with right checksums, as a stranger might."""
    description = json.loads((folder / DESCRIPTION).read_bytes())
    change(description)
    description["version"] = checkpoint._version(description)
    description["checksum"] = checkpoint._checksum(description)
    (folder / DESCRIPTION).write_bytes(checkpoint._dumped(description))


def with_tensors(folder, name, change):
    """Changes a tensor file and everything that vouches for it."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)
    data = (folder / name).read_bytes()
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewritten(folder, lambda description: description["files"].update({name: facts}))


# ---- what comes back -------------------------------------------------------------------------------------------------


def test_a_world_comes_back_with_weights_starts_contract_and_provenance(folder):
    world = small()
    loaded = load(folder)
    assert not loaded.world.training and not any(p.requires_grad for p in loaded.world.parameters())
    assert loaded.provenance == PROVENANCE
    assert loaded.world.spec == dataclasses.replace(world.spec, version=loaded.world.spec.version)
    for name, tensor in world.state_dict().items():
        assert torch.equal(loaded.world.state_dict()[name], tensor)
    assert torch.equal(loaded.world.starts()["rows"], world.starts()["rows"])


def test_describing_gives_the_same_contract_without_the_weights(folder):
    spec, provenance = describe(folder)
    assert spec == load(folder).world.spec and provenance == PROVENANCE


def test_a_config_with_infinities_comes_back(tmp_path):
    config = ToyConfig(growth=1.25, broken_above=math.inf)
    save(Toy(toy_spec(metadata={"render_fps": 30}), config), tmp_path / "w", provenance=Provenance())
    loaded = load(tmp_path / "w").world
    assert loaded.config == config and loaded.spec.metadata == {"render_fps": 30}


def test_the_version_is_decided_by_what_decides_behaviour(tmp_path):
    def version(world, provenance=PROVENANCE):
        return save(world, tmp_path / "w", provenance=provenance)

    first = version(small())
    assert len(first) == 12 and set(first) <= set("0123456789abcdef")
    assert version(small()) == first
    assert version(small(), Provenance(env_id="Other-v0")) == first
    renamed = small()
    renamed.spec = dataclasses.replace(renamed.spec, name="another", trust_horizon_steps=7)
    assert version(renamed) == first

    heavier = small()
    heavier.dynamics[0, 0] += 1e-7
    elsewhere = small()
    elsewhere.set_starts({"rows": elsewhere.starts()["rows"] + 1})
    shorter = small()
    shorter.spec = dataclasses.replace(shorter.spec, max_episode_steps=49)
    stricter = small()
    stricter.config = dataclasses.replace(stricter.config, ridge=0.5)
    assert len({first, *map(version, (heavier, elsewhere, shorter, stricter))}) == 5


def test_figures_may_be_added_after_release_and_the_version_stays(folder):
    before = load(folder).world.spec
    update_provenance(folder, dataclasses.replace(PROVENANCE, fidelity={"k10": 0.02}), trust_horizon_steps=31)
    loaded = load(folder)
    assert loaded.world.spec == dataclasses.replace(before, trust_horizon_steps=31)
    assert loaded.provenance.fidelity == {"k10": 0.02}
    assert sorted(os.listdir(folder)) == sorted([DESCRIPTION, STARTS, WEIGHTS])


def test_saving_again_replaces_the_world_and_leaves_nothing_beside_it(folder):
    other = small()
    other.dynamics.zero_()
    version = save(other, folder, provenance=PROVENANCE)
    assert load(folder).world.spec.version == version
    assert os.listdir(folder.parent) == ["w"]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match="exists and is not a world"):
        save(small(), tmp_path, provenance=PROVENANCE)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_world(folder, monkeypatch):
    before = load(folder).world.spec.version
    real, written = checkpoint._write, []

    def full_disk(path, data):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        real(path, data)

    monkeypatch.setattr(checkpoint, "_write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(Toy(toy_spec()), folder, provenance=PROVENANCE)
    assert load(folder).world.spec.version == before
    assert os.listdir(folder.parent) == ["w"]


def test_a_killed_save_leaves_no_half_world(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from simservice.types import Provenance\n"
        "from simservice.worlds import checkpoint\n"
        "from toy import Toy, toy_spec\n"
        "real = checkpoint._write\n"
        "def deadly(path, data):\n"
        "    real(path, data)\n"
        "    if path.name == checkpoint.STARTS: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint._write = deadly\n"
        "checkpoint.save(Toy(toy_spec()), sys.argv[1], provenance=Provenance())\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "w")], capture_output=True)
    assert result.returncode == -9
    assert not (tmp_path / "w").exists()
    save(Toy(toy_spec()), tmp_path / "w", provenance=Provenance())
    assert load(tmp_path / "w").world.spec.name == "toy"


def test_provenance_must_be_json(tmp_path):
    with pytest.raises(InvalidInput, match=r"provenance\.fidelity\.curve: it must be a JSON value, found Tensor"):
        save(small(), tmp_path / "w", provenance=Provenance(fidelity={"curve": torch.zeros(3)}))
    assert not (tmp_path / "w").exists()


def test_a_device_the_family_does_not_run_on_is_refused(folder):
    with pytest.raises(InvalidInput, match="linear runs on cpu, cuda, not on meta"):
        load(folder, "meta")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInput, match="no CUDA device can be used here; choose cpu"):
            load(folder, "cuda")


# ---- damage ----------------------------------------------------------------------------------------------------------


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def flip(name, at):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[at if at >= 0 else len(data) + at] ^= 1
        (folder / name).write_bytes(data)

    return damage


def truncate(name, keep):
    return lambda folder: os.truncate(folder / name, keep)


def tensors(name, change):
    return lambda folder: with_tensors(folder, name, change)


def described(change):
    return lambda folder: rewritten(folder, change)


DAMAGES = {
    "no folder": (lambda folder: folder.rename(folder.parent / "x"), "there is no such folder"),
    "no description": (remove(DESCRIPTION), "world.json is missing"),
    "no weights": (remove(WEIGHTS), "weights.safetensors is missing"),
    "no starts": (remove(STARTS), "starts.safetensors is missing"),
    "not JSON": (write(DESCRIPTION, b"{"), "world.json is not JSON"),
    "not text": (write(DESCRIPTION, b"\xff\xfe\x00"), "world.json is not JSON"),
    "no object": (write(DESCRIPTION, b"[1]"), "world.json does not describe a world"),
    "an impossible number": (write(DESCRIPTION, b'{"format": 1, "x": 1e999}'), "world.json was changed"),
    "truncated description": (truncate(DESCRIPTION, 100), "world.json is not JSON"),
    "a changed description": (flip(DESCRIPTION, 40), "world.json"),
    "a changed space in it": (flip(DESCRIPTION, -2), "world.json"),
    "truncated weights": (truncate(WEIGHTS, 50), "weights.safetensors has 50 bytes"),
    "empty starts": (truncate(STARTS, 0), "starts.safetensors has 0 bytes"),
    "a flipped bit in the weights": (flip(WEIGHTS, -5), "weights.safetensors was changed.*SHA-256"),
    "a flipped bit in their header": (flip(WEIGHTS, 12), "weights.safetensors was changed.*SHA-256"),
    "a flipped bit in the starts": (flip(STARTS, -1), "starts.safetensors was changed.*SHA-256"),
    "an extra tensor": (tensors(WEIGHTS, lambda t: t.update(extra=torch.zeros(1))), "extra is not of this world"),
    "a missing tensor": (tensors(WEIGHTS, lambda t: t.pop("heads")), "weights.safetensors: heads is missing"),
    "a wrong shape": (
        tensors(WEIGHTS, lambda t: t.update(low=torch.zeros(5))),
        r"low is \(5,\) torch.float32, expected \(4,\) torch.float32",
    ),
    "a wrong dtype": (
        tensors(WEIGHTS, lambda t: t.update(low=torch.zeros(4, dtype=torch.float64))),
        r"low is \(4,\) torch.float64, expected \(4,\) torch.float32",
    ),
    "misshapen starts": (
        tensors(STARTS, lambda t: t.update(rows=torch.zeros(3, 9))),
        r"starts.safetensors: rows is \(3, 9\)",
    ),
    "extra starts": (tensors(STARTS, lambda t: t.update(more=torch.zeros(1))), "starts.safetensors: it must hold"),
    "a newer format": (write(DESCRIPTION, b'{"format": 2}'), "format 2, newer than the 1.*upgrade simservice"),
    "a missing part": (described(lambda d: d["contract"].pop("action_space")), "world.json does not describe a world"),
    "an impossible space": (
        described(lambda d: d["contract"]["action_space"].update(n=-3)),
        "world.json does not describe a world",
    ),
    "an unknown setting": (described(lambda d: d["config"].update(rigde=1.0)), "config that linear refuses.*'ridge'"),
    "a provenance of another kind": (
        described(lambda d: d["provenance"].update(author="x")),
        "world.json does not describe a world",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_names_the_file_and_what_is_wrong(folder, damage):
    change, problem = DAMAGES[damage]
    change(folder)
    with pytest.raises(CorruptCheckpoint, match=problem) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_contents_of_no_tensor_format_are_named(folder):
    (folder / WEIGHTS).write_bytes(b"\x80\x04pickled")
    facts = {"bytes": 9, "sha256": hashlib.sha256(b"\x80\x04pickled").hexdigest()}
    rewritten(folder, lambda description: description["files"].update({WEIGHTS: facts}))
    with pytest.raises(CorruptCheckpoint, match=r"weights\.safetensors is not a safetensors file"):
        load(folder)


def test_a_family_that_is_not_installed_is_named(folder):
    rewritten(folder, lambda description: description.update(family="lineal"))
    with pytest.raises(UnknownFamily, match="'lineal' is installed; did you mean 'linear'"):
        load(folder)
    assert describe(folder)[0].family == "lineal"


def test_a_claimed_version_must_be_the_contents(folder):
    description = json.loads((folder / DESCRIPTION).read_bytes())
    description["version"] = "0" * 12
    description["checksum"] = checkpoint._checksum(description)
    (folder / DESCRIPTION).write_bytes(checkpoint._dumped(description))
    with pytest.raises(CorruptCheckpoint, match="a version that its contents do not have"):
        describe(folder)
