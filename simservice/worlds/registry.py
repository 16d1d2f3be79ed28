"""Finds world families by name, installed or brought along, and builds worlds of them. Knows no family itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from simservice.config import build
from simservice.errors import ConfigError, UnknownFamily
from simservice.types import WorldSpec
from simservice.worlds.world import World

GROUP = "simservice.worlds"
EXTRA_FAMILIES = "SIMSERVICE_EXTRA_FAMILIES"
"""Environment variable that names further families as "module:Class,module:Class": it reaches server processes too."""

_registered: dict[str, type[World]] = {}


def register(cls: type[World]) -> type[World]:
    """Makes a family known in this process under its own name; usable as a decorator. The newest of a name counts."""
    _registered[_checked(cls, repr(cls)).family] = cls
    return cls


def names() -> tuple[str, ...]:
    """The names of all families, in order, without loading the installed ones."""
    return tuple(sorted({*_installed(), *_brought()}))


def families() -> dict[str, type[World]]:
    """Every family by name: entry points, then those of SIMSERVICE_EXTRA_FAMILIES, then those registered here.

    Loads all of them; ConfigError names the one that cannot be imported.
    """
    found = {name: load() for name, load in _installed().items()}
    return {**found, **_brought()}


def family(name: str) -> type[World]:
    """The family of that name; loads no other. Raises UnknownFamily with the near miss."""
    brought = _brought()
    if name in brought:
        return brought[name]
    installed = _installed()
    if name not in installed:
        raise UnknownFamily(name, {*installed, *brought})
    return installed[name]()


def create(name: str, spec: WorldSpec, overrides: Mapping[str, Any] | None = None) -> World:
    """A world of the named family: its default Config with `overrides` put in, every key and type checked.

    Raises UnknownFamily, ConfigError (with the near miss of an unknown key), and InvalidInput for spaces the family
    does not take. The world is untrained: prepare() and its phases, or a checkpoint, give it its contents.
    """
    cls = family(name)
    return cls(spec, build(cls.Config, overrides or {}))


def _brought() -> dict[str, type[World]]:
    return {**_extra(os.environ.get(EXTRA_FAMILIES, "")), **_registered}


@cache
def _installed() -> dict[str, Callable[[], type[World]]]:
    return {
        point.name: cache(lambda point=point: _load(point.value, f"entry point {point.name!r}"))
        for point in entry_points(group=GROUP)
    }


@cache
def _extra(places: str) -> dict[str, type[World]]:
    classes = [_load(place.strip(), f"{EXTRA_FAMILIES}={places}") for place in places.split(",") if place.strip()]
    return {cls.family: cls for cls in classes}


def _load(place: str, source: str) -> type[World]:
    module, colon, attribute = place.partition(":")
    if not colon:
        raise ConfigError(f"{source}: {place!r} is not of the form module:Class")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{source}: the family {place} cannot be loaded: {error}") from error
    return _checked(found, f"{source}: {place}")


def _checked(cls: Any, source: str) -> type[World]:
    if not (isinstance(cls, type) and issubclass(cls, World)):
        raise ConfigError(f"{source} is not a World class")
    for attribute in ("family", "Config"):
        if not hasattr(cls, attribute):
            raise ConfigError(f"{source} lacks the class attribute {attribute!r}")
    return cls
