"""A world as a folder: world.json, weights.safetensors, starts.safetensors. Nothing in it is ever executed.

The version is the first 12 hexadecimal digits of a SHA-256 over all that decides how the world behaves: family,
config, spaces and the rest of the contract, weights and starts. Its name, provenance and fidelity figures do not, so
they may be corrected after release (update_provenance); a second checksum guards them against damage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from simservice.errors import ConfigError, CorruptCheckpoint, InvalidInput
from simservice.types import Provenance, WorldSpec
from simservice.worlds import registry
from simservice.worlds.spaces_json import space_from_json, space_to_json
from simservice.worlds.world import Tensors, World

FORMAT = 1
"""Raised when a newer simservice writes what an older one cannot read."""

DESCRIPTION, WEIGHTS, STARTS = "world.json", "weights.safetensors", "starts.safetensors"


@dataclass(frozen=True)
class Loaded:
    """A world in evaluation mode on its device, and where it comes from."""

    world: World
    provenance: Provenance


def save(world: World, folder: str | Path, *, provenance: Provenance) -> str:
    """Writes the world to the folder and returns its version (12 hexadecimal digits).

    All is written beside the folder and renamed into place, so a killed save leaves the old world or none, never half
    of one. A folder that holds something else than a world is left alone: InvalidInput.
    """
    folder = Path(folder).absolute()
    check_target(folder)
    contents = {WEIGHTS: _packed(world.weights()), STARTS: _packed(world.starts())}
    description = _description(world, contents, provenance)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".saving", dir=folder.parent))
    try:
        staging.chmod(0o755)
        for name, data in {**contents, DESCRIPTION: _dumped(description)}.items():
            _write(staging / name, data)
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return str(description["version"])


def check_target(folder: Path) -> None:
    """Raises InvalidInput if save would refuse the folder: to be asked before the work is done."""
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput("folder", f"{folder} exists and is not a world; choose another or remove it")


def load(folder: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """The world in the folder, every byte verified against its version.

    Raises CorruptCheckpoint, which names the file and what is wrong with it, UnknownFamily for a family that is not
    installed here, and InvalidInput for a device the family does not run on.
    """
    folder = Path(folder)
    description = _read_description(folder)
    spec, provenance = _parsed(folder, description)
    tensors = {name: _read_tensors(folder, name, description["files"][name]) for name in (WEIGHTS, STARTS)}
    try:
        world = registry.create(spec.family, spec, _from_json(description["config"]))
    except ConfigError as error:
        raise CorruptCheckpoint(
            str(folder), f"{DESCRIPTION} has a config that {spec.family} refuses: {error}"
        ) from error
    device = torch.device(device)
    if device.type not in world.device_types:
        raise InvalidInput(
            "device", f"{spec.family} runs on {', '.join(sorted(world.device_types))}, not on {device.type}"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device", "no CUDA device can be used here; choose cpu")
    _fill(world, tensors, folder)
    world.to(device).eval().requires_grad_(False)
    return Loaded(world, provenance)


def describe(folder: str | Path) -> tuple[WorldSpec, Provenance]:
    """The contract and provenance of the world in the folder; weights are not read, only that they are there.

    Raises CorruptCheckpoint.
    """
    return _parsed(Path(folder), _read_description(Path(folder)))


def update_provenance(folder: str | Path, provenance: Provenance, *, trust_horizon_steps: int | None = None) -> None:
    """Replaces what is known about the world; its version stays, and a reader sees the old or the new, never half."""
    folder = Path(folder)
    description = {
        **_read_description(folder),
        "provenance": _to_json(dataclasses.asdict(provenance), "provenance"),
        "trust_horizon_steps": trust_horizon_steps,
    }
    description["checksum"] = _checksum(description)
    handle, name = tempfile.mkstemp(prefix=f".{DESCRIPTION}.", dir=folder)
    os.close(handle)
    try:
        _write(Path(name), _dumped(description))
        os.chmod(name, 0o644)
        os.replace(name, folder / DESCRIPTION)
    finally:
        Path(name).unlink(missing_ok=True)


# ---- writing -------------------------------------------------------------------------------------------------------


def _packed(tensors: Tensors) -> bytes:
    return bytes(save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


def _description(world: World, contents: Mapping[str, bytes], provenance: Provenance) -> dict[str, Any]:
    spec = world.spec
    description: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "family": world.family,
        "config": _to_json(dataclasses.asdict(world.config), "config"),
        "contract": {
            "observation_space": space_to_json(spec.observation_space, "observation"),
            "action_space": space_to_json(spec.action_space, "action"),
            "max_episode_steps": spec.max_episode_steps,
            "render_modes": list(spec.render_modes),
            "metadata": _to_json(spec.metadata, "metadata"),
            "capabilities": sorted(spec.capabilities),
        },
        "trust_horizon_steps": spec.trust_horizon_steps,
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in contents.items()},
        "provenance": _to_json(dataclasses.asdict(provenance), "provenance"),
    }
    description["version"] = _version(description)
    description["checksum"] = _checksum(description)
    return description


def _to_json(value: Any, where: str) -> Any:
    """As json.loads would give it back; infinities and NaN, which JSON has no numbers for, as {"float": word}."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise InvalidInput(where, f"it must be a JSON value, found {type(value).__name__}")


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _version(description: Mapping[str, Any]) -> str:
    behaviour = ("format", "family", "config", "contract", "files")
    return _sha256(_canonical({key: description[key] for key in behaviour}))[:12]


def _checksum(description: Mapping[str, Any]) -> str:
    return _sha256(_canonical({key: value for key, value in description.items() if key != "checksum"}))


def _dumped(description: Mapping[str, Any]) -> bytes:
    """For people too: indented, in the order written. One form only, so that a changed byte shows."""
    return json.dumps(description, indent=1, allow_nan=False).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(staging: Path, folder: Path) -> None:
    """Renames; an old world is moved aside first, for a folder cannot be renamed onto a full one."""
    if not folder.exists():
        os.rename(staging, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".replaced", dir=folder.parent))
    os.rename(folder, aside / folder.name)
    os.rename(staging, folder)
    shutil.rmtree(aside)


# ---- reading -------------------------------------------------------------------------------------------------------


def _read(folder: Path, name: str) -> bytes:
    if not folder.is_dir():
        raise CorruptCheckpoint(str(folder), "there is no such folder")
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise CorruptCheckpoint(str(folder), f"{name} is missing") from None
    except OSError as error:
        raise CorruptCheckpoint(str(folder), f"{name} cannot be read: {error.strerror}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    data = _read(folder, DESCRIPTION)
    try:
        description = json.loads(data)
    except ValueError as error:
        raise CorruptCheckpoint(str(folder), f"{DESCRIPTION} is not JSON: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise CorruptCheckpoint(str(folder), f"{DESCRIPTION} does not describe a world")
    if description["format"] > FORMAT:
        raise CorruptCheckpoint(
            str(folder),
            f"{DESCRIPTION} is of format {description['format']}, newer than the {FORMAT} that this simservice reads; "
            "upgrade simservice",
        )
    if not _is_as_written(description, data):
        raise CorruptCheckpoint(str(folder), f"{DESCRIPTION} was changed after it was written: its checksum is wrong")
    return description


def _is_as_written(description: Mapping[str, Any], data: bytes) -> bool:
    try:
        return bool(description.get("checksum") == _checksum(description)) and data == _dumped(description)
    except ValueError:  # a number that JSON has not, such as 1e999
        return False


def _parsed(folder: Path, description: Mapping[str, Any]) -> tuple[WorldSpec, Provenance]:
    try:
        if description["version"] != _version(description):
            raise CorruptCheckpoint(str(folder), f"{DESCRIPTION} names a version that its contents do not have")
        for name in (WEIGHTS, STARTS):
            _check_size(folder, name, description["files"][name]["bytes"])
        contract = description["contract"]
        spec = WorldSpec(
            name=description["name"],
            version=description["version"],
            family=description["family"],
            observation_space=space_from_json(contract["observation_space"]),
            action_space=space_from_json(contract["action_space"]),
            max_episode_steps=contract["max_episode_steps"],
            render_modes=tuple(contract["render_modes"]),
            metadata=_from_json(contract["metadata"]),
            capabilities=frozenset(contract["capabilities"]),
            trust_horizon_steps=description["trust_horizon_steps"],
        )
        return spec, Provenance(**_from_json(description["provenance"]))
    except (KeyError, TypeError, ValueError, AssertionError) as error:  # spaces check themselves by assertions
        problem = f"{DESCRIPTION} does not describe a world: {type(error).__name__} {error}"
        raise CorruptCheckpoint(str(folder), problem) from error


def _check_size(folder: Path, name: str, expected: int) -> None:
    path = folder / name
    if not path.is_file():
        raise CorruptCheckpoint(str(folder), f"{name} is missing")
    found = path.stat().st_size
    if found != expected:
        raise CorruptCheckpoint(str(folder), f"{name} has {found} bytes, {expected} were written")


def _read_tensors(folder: Path, name: str, expected: Mapping[str, Any]) -> Tensors:
    data = _read(folder, name)
    if _sha256(data) != expected["sha256"]:
        raise CorruptCheckpoint(str(folder), f"{name} was changed after it was written: its SHA-256 is wrong")
    try:
        return dict(load_tensors(data))
    except SafetensorError as error:
        raise CorruptCheckpoint(str(folder), f"{name} is not a safetensors file: {error}") from error


def _fill(world: World, tensors: Mapping[str, Tensors], folder: Path) -> None:
    """Puts weights and starts in; a missing, extra or misshapen tensor is named, never skipped."""
    weights, expected = tensors[WEIGHTS], world.state_dict()
    problems = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"{name} is not of this world" for name in sorted(weights.keys() - expected.keys())]
    for name in sorted(expected.keys() & weights.keys()):
        found, wanted = weights[name], expected[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            problems.append(
                f"{name} is {tuple(found.shape)} {found.dtype}, expected {tuple(wanted.shape)} {wanted.dtype}"
            )
    if problems:
        raise CorruptCheckpoint(str(folder), f"{WEIGHTS}: {'; '.join(problems)}")
    world.load_state_dict(weights)
    try:
        world.set_starts(tensors[STARTS])
    except (TypeError, ValueError, KeyError) as error:
        raise CorruptCheckpoint(str(folder), f"{STARTS}: {error}") from error
