"""Holds the rows of all lanes on the device and who is free. Knows nothing of what a row means."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simservice.errors import CapacityExhausted
from simservice.types import Array
from simservice.worlds.world import Tensors, World


class Arena:
    """`capacity` rows and one more, the scratch row that fills batches up; freed rows are zeroed."""

    def __init__(self, world: World, capacity: int, device: str = "cpu") -> None:
        self.capacity = capacity
        self.scratch = capacity  # the lane that pads
        self.device = torch.device(device)
        self._on_host = self.device.type == "cpu"
        self.rows: Tensors = world.allocate(capacity + 1, self.device)
        self.lane_bytes = sum(row[0].numel() * row.element_size() for row in self.rows.values())
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

    # ---- rows: tensors, called by the engine's thread ---------------------------------------------------------------

    def index(self, lanes: Array) -> Tensor:
        """Lanes as an index on the device."""
        return self.put(lanes)

    def put(self, array: Array) -> Tensor:
        """A host array on the device; on the CPU without a copy, nor a call that finds out that none is needed."""
        tensor = torch.from_numpy(array)
        return tensor if self._on_host else tensor.to(self.device, non_blocking=True)

    def gather(self, index: Tensor) -> Tensors:
        """Copies of rows, in the order of the index."""
        return {name: row.index_select(0, index) for name, row in self.rows.items()}

    def scatter(self, index: Tensor, rows: Tensors) -> None:
        """Writes rows back; the index names each lane once."""
        for name, row in self.rows.items():
            row.index_copy_(0, index, rows[name])

    def clear(self, lanes: Array) -> None:
        """Zeroes rows, so that nothing of one session is ever seen by the next."""
        index = self.index(lanes)
        for row in self.rows.values():
            row.index_fill_(0, index, 0)
