"""Which probes have counted, by number, in as little room as their gaps take. Knows nothing else of a probe."""

from __future__ import annotations

from collections.abc import Iterable


class ProbeNumbers:
    """A set of numbers, most of them consecutive, as sorted ranges [from, to)."""

    def __init__(self, ranges: Iterable[Iterable[int]] = ()) -> None:
        self.ranges: list[list[int]] = [[int(bound) for bound in bounds] for bounds in ranges]
        edges = [edge for bounds in self.ranges for edge in bounds]
        if any(len(bounds) != 2 for bounds in self.ranges) or edges != sorted(set(edges)):
            raise ValueError("ranges of probe numbers must be pairs, sorted and apart")

    @property
    def end(self) -> int:
        """One more than the largest; 0 for none."""
        return self.ranges[-1][1] if self.ranges else 0

    def add(self, number: int) -> bool:
        """False if it was there."""
        place = len(self.ranges)
        while place > 0 and self.ranges[place - 1][0] > number:  # from behind: numbers mostly rise
            place -= 1
        before = self.ranges[place - 1] if place > 0 else None
        after = self.ranges[place] if place < len(self.ranges) else None
        if before is not None and number < before[1]:
            return False
        if before is not None and before[1] == number:
            before[1] = number + 1
            if after is not None and after[0] == number + 1:
                before[1] = after[1]
                del self.ranges[place]
        elif after is not None and after[0] == number + 1:
            after[0] = number
        else:
            self.ranges.insert(place, [number, number + 1])
        return True
