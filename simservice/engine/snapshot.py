"""Turns lanes into bytes and back: rows and control columns as one safetensors blob that names the world's version."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save

from simservice.engine.arena import NUMPY_TYPES
from simservice.engine.control import STORED, Control
from simservice.errors import InternalError, ModelRetired
from simservice.types import Array, WorldSpec
from simservice.worlds.world import Slot, Tensors

FORMAT = "1"
MARK = "simservice-lanes"
"""The one entry of the metadata: safetensors shuffles several, and equal lanes shall be equal bytes."""

CACHE = "kv"
"""The role of slots that are left out, for World.rebuild makes them again."""

ROW, COLUMN = "row/", "column/"


def snapshot_lane_bytes(slots: dict[str, Slot]) -> int:
    """What one lane adds to a snapshot."""
    kept = (slot for slot in slots.values() if slot.role != CACHE)
    return sum(math.prod(slot.shape) * slot.dtype.itemsize for slot in kept) + Control(1).stored_bytes


def pack(spec: WorldSpec, slots: dict[str, Slot], rows: Tensors, columns: dict[str, Array]) -> bytes:
    """Lanes as bytes, without their caches; all tensors have the lane axis first."""
    kept = {ROW + name: row.detach().cpu() for name, row in rows.items() if slots[name].role != CACHE}
    beside = {COLUMN + name: column for name, column in columns.items()}
    metadata = {MARK: f"{FORMAT} {spec.full_name}"}
    data: bytes
    if all(row.dtype in NUMPY_TYPES for row in kept.values()):  # the same bytes, at a quarter of the cost
        arrays = {name: row.numpy() for name, row in kept.items()} | beside
        data = save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=metadata)
    else:
        tensors = kept | {name: torch.from_numpy(column) for name, column in beside.items()}
        data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata)
    return data


def unpack(spec: WorldSpec, slots: dict[str, Slot], lanes: int, data: bytes) -> tuple[Tensors, dict[str, Array]]:
    """What pack was given, with zeros for the caches.

    ModelRetired for another version's lanes, InternalError for bytes that are no snapshot.
    """
    try:
        mark = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][MARK]
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InternalError(f"a snapshot of {len(data)} bytes cannot be read: {error}") from error
    found, _, world = mark.partition(" ")
    if found != FORMAT:
        raise InternalError(f"a snapshot has format {found!r}, this version reads {FORMAT!r}")
    if world != spec.full_name:
        raise ModelRetired(world, spec.full_name)
    rows = {name: tensors.pop(ROW + name, None) for name, slot in slots.items() if slot.role != CACHE}
    columns = {name: tensors.pop(COLUMN + name, None) for name in STORED}
    if tensors or any(tensor is None or len(tensor) != lanes for tensor in (*rows.values(), *columns.values())):
        raise InternalError(f"a snapshot does not hold {lanes} lanes of {spec.full_name}")
    for name, row in rows.items():
        slot = slots[name]
        if row.shape[1:] != slot.shape or row.dtype != slot.dtype:
            raise InternalError(f"a snapshot's {name!r} is {row.dtype}{tuple(row.shape[1:])}, not {slot}")
    for name in slots.keys() - rows.keys():
        rows[name] = torch.zeros((lanes, *slots[name].shape), dtype=slots[name].dtype)
    return rows, {name: column.numpy() for name, column in columns.items()}
