"""What earlier proofs left on disk: results of their parts, used again where data, code and recipe are the same."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from simservice.proving.recipe import Recipe

PACKAGE = Path(__file__).parents[1]
ROOMS = ("data", "engine", "fidelity", "grounds", "proving", "training", "worlds")
"""Whose code a figure depends on. The wire does not count: an agent is the same, bit for bit, on either side of it."""

FAMILIES, CONTROLS = Path("worlds/families"), ("persistence", "linear", "oracle")
RECIPES = Path("proving/recipes")
JUDGEMENT = ("title", "row", "bars", "oracle_return")  # of a recipe: what is asked, not what is done


@functools.cache
def code_of(family: str) -> str:
    """sha256 of our sources that decide a family's figures; other families and recipes are none of its business."""
    found = hashlib.sha256()
    for file in sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")):
        where = file.relative_to(PACKAGE)
        if where.is_relative_to(RECIPES):
            continue
        if where.is_relative_to(FAMILIES) and where.relative_to(FAMILIES).parts[0].removesuffix(".py") not in (
            family,
            *CONTROLS,
        ):
            continue
        found.update(str(where).encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def key_of(recipe: Recipe, *besides: Any) -> str:
    """sha256 of all that decides a result: the recipe without its bars, code, libraries, and what is named besides."""
    settings = {
        entry.name: _plain(getattr(recipe, entry.name))
        for entry in dataclasses.fields(recipe)
        if entry.name not in JUDGEMENT
    }
    libraries = [platform.python_version(), torch.__version__, np.__version__, gymnasium.__version__]
    told = json.dumps([settings, code_of(recipe.family), libraries, *besides], default=str, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def read(file: Path, key: str) -> dict[str, Any] | None:
    """What was kept under this key; None: nothing, or of something else."""
    found = _read(file)
    return found if found.get("key") == key else None


def found(file: Path) -> dict[str, Any]:
    """What was kept, of whatever it is; nothing: {}."""
    return _read(file)


def seconds_of(file: Path) -> float | None:
    """How long the part took when it was last made, whatever has changed since; None: never made."""
    seconds = _read(file).get("seconds")
    return float(seconds) if seconds is not None else None


def write(file: Path, key: str, **found: Any) -> dict[str, Any]:
    """Keeps values that JSON knows; a kill leaves the old file or the new one. Returns what read() will."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_suffix(".saving")
    staging.write_text(json.dumps({"key": key, **found}, indent=1) + "\n")
    os.replace(staging, file)
    return _read(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
