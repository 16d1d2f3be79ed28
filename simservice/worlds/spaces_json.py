"""Fixed-shape Gymnasium spaces as JSON values and back, exactly: dtypes, every bound, infinities, key order."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import UnsupportedSpace
from simservice.types import Array


def space_to_json(space: gym.Space[Any], where: str) -> dict[str, Any]:
    """The space as JSON values; `where` names it in errors. Raises UnsupportedSpace for spaces without fixed shape."""
    if isinstance(space, spaces.Dict):
        parts = [[key, space_to_json(child, f"{where}/{key}")] for key, child in space.spaces.items()]
        return {"kind": "Dict", "spaces": parts}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [space_to_json(child, f"{where}/{i}") for i, child in enumerate(space)]}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": np.dtype(space.dtype).name}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": np.dtype(space.dtype).name,
        }
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else [int(n) for n in space.n]}
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "shape": list(space.shape),
            "dtype": np.dtype(space.dtype).name,
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
        }
    raise UnsupportedSpace(where, type(space).__name__)


def space_from_json(value: dict[str, Any]) -> gym.Space[Any]:
    """The inverse of space_to_json. Raises KeyError, TypeError or ValueError for what that never gives."""
    kind = value["kind"]
    if kind == "Dict":
        return spaces.Dict([(key, space_from_json(child)) for key, child in value["spaces"]])
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(child) for child in value["spaces"]])
    if kind == "MultiBinary":
        return spaces.MultiBinary(value["n"])
    dtype = np.dtype(value["dtype"])
    if kind == "Discrete":
        return spaces.Discrete(value["n"], start=value["start"], dtype=dtype.type)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(
            np.array(value["nvec"], dtype), start=np.array(value["start"], dtype), dtype=dtype.type
        )
    if kind == "Box":
        shape = tuple(value["shape"])
        low, high = (_bound_from_json(value[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    raise ValueError(f"there is no space of kind {kind!r}")


def _bound_to_json(bound: Array) -> Any:
    """One number where all are equal, else the flat list; infinities as words, which JSON has no numbers for."""
    flat = [_number_to_json(number) for number in bound.ravel().tolist()]
    return flat[0] if flat and all(number == flat[0] for number in flat) else flat


def _number_to_json(number: Any) -> Any:
    return str(number) if isinstance(number, float) and math.isinf(number) else number


def _bound_from_json(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if not isinstance(value, list):
        return np.full(shape, _number_from_json(value), dtype)
    return np.array([_number_from_json(number) for number in value], dtype).reshape(shape)


def _number_from_json(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
