"""Holds the rows of all lanes on the device and who is free. Knows nothing of what a row means."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simservice.engine.batching import Span
from simservice.errors import CapacityExhausted
from simservice.types import Array
from simservice.worlds.world import Tensors, World

NUMPY_TYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.float32,
        torch.float64,
    }
)


class Arena:
    """`capacity` rows and one more, the scratch row that fills batches up; freed rows are zeroed."""

    def __init__(self, world: World, capacity: int, device: str = "cpu") -> None:
        self._hold(world.allocate(capacity + 1, device), torch.device(device))

    @classmethod
    def around(cls, rows: Tensors, device: torch.device) -> Arena:
        """An arena of rows that are there already, the scratch lane's last; nobody holds its lanes."""
        arena = cls.__new__(cls)
        arena._hold(rows, device)
        return arena

    def _hold(self, rows: Tensors, device: torch.device) -> None:
        capacity = len(next(iter(rows.values()))) - 1
        self.capacity = capacity
        self.scratch = capacity  # the lane that pads
        self.device = device
        self._on_host = self.device.type == "cpu"
        self.rows = rows
        # On the CPU numpy moves rows: its calls cost a tenth of torch's, more than the rows themselves.
        self._views = _views(self.rows)
        self.lane_bytes = sum(row[0].numel() * row.element_size() for row in self.rows.values())
        self._lent: tuple[Span, Tensors] = slice(0, 0), {}  # neighbours: a rollout asks for the same ones at every step
        self._used = np.zeros(capacity, dtype=np.bool_)
        self._in_use = 0

    # ---- who is free: integers, called by the event loop ----------------------------------------------------------

    @property
    def in_use(self) -> int:
        """Lanes that somebody holds."""
        return self._in_use

    def allocate(self, count: int) -> Array:
        """The `count` lowest free lanes, (count,) int64; CapacityExhausted, and none taken, when fewer are free."""
        if count > self.capacity - self._in_use:
            raise CapacityExhausted(count, self._in_use, self.capacity)
        lanes = np.flatnonzero(~self._used)[:count].astype(np.int64)
        self._used[lanes] = True
        self._in_use += count
        return lanes

    def release(self, lanes: Array) -> None:
        """Gives lanes back. Giving back a free lane is our mistake."""
        assert self._used[lanes].all(), f"lanes {lanes[~self._used[lanes]]} are free already"
        self._used[lanes] = False
        self._in_use -= len(lanes)

    def check(self) -> None:
        """Free and used lanes make up the capacity."""
        used = int(self._used.sum())
        assert used == self._in_use, f"{used} lanes are marked as used, {self._in_use} are counted"

    # ---- rows: called by whoever ticks -----------------------------------------------------------------------------

    def put(self, array: Array) -> Tensor:
        """A host array on the device; on the CPU without a copy, nor a call that finds out that none is needed."""
        tensor = torch.from_numpy(array)
        return tensor if self._on_host else tensor.to(self.device, non_blocking=True)

    def gather(self, where: Span) -> Tensors:
        """Copies of rows, in their order; a lane may be named twice."""
        if self._views is not None:
            copied = not isinstance(where, slice)  # numpy copies what a list of numbers picks, a slice it only shows
            return {
                name: torch.from_numpy(view[where] if copied else view[where].copy())
                for name, view in self._views.items()
            }
        index = self._index(where)
        return {name: row.index_select(0, index) for name, row in self.rows.items()}

    def lend(self, where: Span) -> Tensors:
        """Rows to be read before any is written: neighbours on the host as they lie, all others copied."""
        if self._views is not None and isinstance(where, slice):
            if where is not self._lent[0]:
                self._lent = where, {name: torch.from_numpy(view[where]) for name, view in self._views.items()}
            return self._lent[1].copy()
        return self.gather(where)

    def scatter(self, where: Span, rows: Tensors, count: int) -> None:
        """Writes the first `count` of the given rows to as many lanes, each named once."""
        if self._views is not None:
            for name, view in self._views.items():
                array = rows[name].numpy()
                view[where] = array if len(array) == count else array[:count]
            return
        index = self._index(where)
        for name, row in self.rows.items():
            row.index_copy_(0, index, rows[name][:count])

    def clear(self, lanes: Array) -> None:
        """Zeroes rows, so that nothing of one session is ever seen by the next."""
        index = self._index(lanes)
        for row in self.rows.values():
            row.index_fill_(0, index, 0)

    def _index(self, where: Span) -> Tensor:
        return self.put(np.arange(where.start, where.stop) if isinstance(where, slice) else where)


def _views(rows: Tensors) -> dict[str, Array] | None:
    """The rows as numpy sees them; None when they are elsewhere or of a type that numpy has not."""
    if any(row.device.type != "cpu" or row.dtype not in NUMPY_TYPES for row in rows.values()):
        return None
    return {name: row.numpy() for name, row in rows.items()}
