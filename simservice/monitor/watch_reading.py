"""What is published of a watch, made from its state at any moment by any thread. Changes nothing."""

from __future__ import annotations

import json
from typing import Any

from simservice.monitor.evidence import Evidence
from simservice.monitor.kept import Kept
from simservice.monitor.pace import Pace
from simservice.monitor.world_watch import WorldWatch
from simservice.telemetry import FidelityReading, WatchReading

STALE_INTERVALS = 5
"""Probes that may be missing before a world's state is unknown."""

LEAST_STALE_S = 60.0
DAY_S = 86_400.0


def watch_reading(watch: WorldWatch) -> WatchReading:
    """How it stands with a world."""
    evidence, kept = watch.evidence, watch.kept
    steps = watch.rig.config.horizon
    interval_s = watch.pace.interval_s(steps, evidence is not None and evidence.suspicious)
    counted: dict[str, Any] = {
        "world": watch.world,
        "alarms": dict(kept.alarms),
        "probes": dict(kept.probes),
        "failures": dict(kept.failures),
        "last_heard_at": watch.last_heard_at,
        "last_probe_at": kept.last_probe_at,
        "interval_s": interval_s,
        "stale_after_s": max(STALE_INTERVALS * interval_s, LEAST_STALE_S),
        "budget_left": watch.pace.left(watch.now()),
    }
    if evidence is None:
        return WatchReading(state=_state_kept(kept), **counted)
    shift, change = _detectable(evidence, watch.pace, steps)
    return WatchReading(
        state=evidence.state,
        cause=evidence.verdict().cause.name.lower(),
        epoch=evidence.reality.reading().epoch,
        log10_evidence=evidence.log10_evidence(),
        log10_threshold=evidence.log10_threshold(),
        detectable_shift=shift,
        detectable_change=change,
        golden_deviation=evidence.golden_watch.deviation,
        corroborating_tenants=evidence.corroboration.agreeing if evidence.corroboration is not None else 0,
        **counted,
    )


def _state_kept(kept: Kept) -> str:
    """What was known when the watch last ended, until it has read all of it: an alarm does not go by a restart."""
    if kept.reality is None:
        return "calibrating"
    return "drift" if kept.golden.get("alarmed") else str(json.loads(kept.reality)["state"])


def fidelity_reading(watch: WorldWatch) -> tuple[FidelityReading, float] | None:
    """The newest front page and when it was measured; None before the first."""
    kept, at = watch.kept.fidelity, watch.kept.fidelity_at
    if kept is None or at is None:
        return None
    leads = {name: {int(lead): value for lead, value in kept[name].items()} for name in ("error_ratio", "alive_ratio")}
    return FidelityReading(**{**kept, **leads}), at


def _detectable(evidence: Evidence, pace: Pace, steps: int) -> tuple[float, dict[str, float]]:
    """Of a day's probes."""
    return evidence.detectable(int(DAY_S / pace.interval_s(steps, False)))
