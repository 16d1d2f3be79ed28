"""What a watch must remember over its own end: one JSON file a world, replaced in one step after every probe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from simservice.errors import InvalidInput

FORMAT = 1


@dataclass(kw_only=True)
class Kept:
    """The state of one world's watch."""

    probing: str = ""  # a digest of how is probed: other policies or another horizon begin anew
    dataset: str | None = None  # the normal that holds
    reality: str | None = None  # a detector, as JSON
    served: str | None = None
    served_version: str | None = None
    next_probe: int = 0
    golden: dict[str, Any] = field(default_factory=dict)
    level: float | None = None  # of the budget's bucket
    level_at: float = 0.0
    burst: int = 0
    real_steps: dict[str, int] = field(default_factory=dict)  # by source
    probes: dict[str, int] = field(default_factory=dict)  # by source
    alarms: dict[str, int] = field(default_factory=dict)  # by kind
    failures: dict[str, int] = field(default_factory=dict)  # by reason
    last_probe_at: float | None = None
    fidelity: dict[str, Any] | None = None  # the newest reading, and when it was made
    fidelity_at: float | None = None
    fidelity_steps: int = 0  # real ones that it cost
    reports: dict[str, Any] | None = None

    @classmethod
    def load(cls, path: Path) -> Kept:
        """As it was saved; a new one where nothing was."""
        if not path.exists():
            return cls()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("format") != FORMAT or set(found) - {one.name for one in fields(cls)}:
                raise KeyError("format")
            return cls(**found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"{path} is no state of a watch ({error!r}); move it away to begin anew"
            raise InvalidInput("state", problem) from error

    def settled(self, probing: str) -> Kept:
        """For probes of this kind: what was kept of others says nothing of them. Counters stay."""
        if self.probing in ("", probing):
            self.probing = probing
            return self
        return Kept(
            probing=probing,
            real_steps=self.real_steps,
            probes=self.probes,
            alarms=self.alarms,
            failures=self.failures,
        )

    def save(self, path: Path) -> None:
        """Replaces the file in one step: whoever is killed here leaves the old state or the new one."""
        draft = path.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)

    def count(self, name: str, key: str, more: int = 1) -> None:
        """Raises one of the counters."""
        counts: dict[str, int] = getattr(self, name)
        counts[key] = counts.get(key, 0) + more


def state_path(folder: Path, world: str) -> Path:
    """Where a world's state lies."""
    return folder / world / "state.json"


def request_acknowledgement(folder: Path, world: str) -> int:
    """Asks the watch of a world, running or not, to take its alarm as known; returns the alarm's epoch.

    Raises InvalidInput when nothing is to be acknowledged. Asking twice is asking once.
    """
    path = state_path(folder, world)
    if not path.exists():
        known = sorted(found.parent.name for found in folder.glob("*/state.json"))
        there = f"; there are: {', '.join(known)}" if known else ""
        raise InvalidInput("world", f"no watch of {world!r} has kept its state in {folder}{there}")
    kept = Kept.load(path)
    reality: Mapping[str, Any] = json.loads(kept.reality) if kept.reality else {}
    if reality.get("state") != "drift" and not kept.golden.get("alarmed"):
        raise InvalidInput("world", f"{world} has no alarm to acknowledge: its state is {reality.get('state', 'new')}")
    epoch = int(reality.get("epoch", 0))
    draft = path.with_name("acknowledge.tmp")
    draft.write_text(json.dumps({"epoch": epoch}), encoding="utf-8")
    draft.rename(path.with_name("acknowledge.json"))
    return epoch


def take_acknowledgement(folder: Path, world: str, epoch: int) -> bool:
    """Whether the alarm of this epoch was acknowledged. The request stays until drop_acknowledgement()."""
    path = folder / world / "acknowledge.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["epoch"]) == epoch
    except (FileNotFoundError, ValueError, KeyError):
        return False


def drop_acknowledgement(folder: Path, world: str) -> None:
    """The request was obeyed, and that is kept."""
    (folder / world / "acknowledge.json").unlink(missing_ok=True)
