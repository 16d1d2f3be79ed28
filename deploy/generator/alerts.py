"""Alerts with their bars, each with a case in which it fires and one in which it rests. Missing data alarms, too.

An alert's condition is kept apart from its signal: the signal must return data on a healthy service; a test asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deploy.generator.rules import REALITY
from simservice.fidelity import thresholds
from simservice.telemetry import names

RUNBOOKS = "docs/runbooks"
STALE_S = 3600
ERRORS, JOURNAL_S, SATURATED, RESTARTS = 0.01, 0.1, 0.9, 3
WORLD, MODEL = 'world="w"', 'world="w", model_version="v"'
Severity = Literal["page", "ticket"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series as promtool writes them, and the minute of the look."""

    series: dict[str, str] = field(default_factory=dict)
    minute: int = 30


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert. `labels` are those of the firing case."""

    name: str
    signal: str
    condition: str
    severity: Severity
    minutes: int
    summary: str
    fires: Case
    rests: Case
    labels: dict[str, str] = field(default_factory=lambda: {"world": "w"})
    absent: bool = False  # the alert is that the signal is not there

    @property
    def expression(self) -> str:
        """What Prometheus evaluates."""
        return f"absent({self.signal})" if self.absent else f"{self.signal} {self.condition}".strip()

    @property
    def runbook(self) -> str:
        """The page for whoever is woken."""
        return f"{RUNBOOKS}/{self.name}.md"


def _constant(series: str, value: float, minutes: int = 60) -> dict[str, str]:
    return {series: f"{value:g}x{minutes}"}


def _bar(
    name: str, metric: names.Name, condition: str, bad: float, good: float, summary: str, *, more: str = "",
    severity: Severity = "ticket", minutes: int = 10,
) -> Alert:  # fmt: skip
    """A number of a world against a bar; `more` are further labels of the series."""
    series = f"{metric.name}{{{MODEL}{', ' + more if more else ''}}}"
    selector = f"{metric.name}{{{more}}}" if more else metric.name
    return Alert(
        name=name,
        signal=f"max by (world, model_version) ({selector})",
        condition=condition,
        severity=severity,
        minutes=minutes,
        summary=summary,
        fires=Case(series=_constant(series, bad)),
        rests=Case(series=_constant(series, good)),
        labels={"world": "w", "model_version": "v"},
    )


def _state(state: str) -> str:
    return f'{names.DRIFT_STATE.name}{{{WORLD}, state="{state}"}}'


FIDELITY = (
    Alert(
        name="WorldDrift",
        signal=f'max by (world) ({names.DRIFT_STATE.name}{{state="drift"}})',
        condition="> 0",
        severity="page",
        minutes=0,
        summary="Reality has changed: world {world} is of a reality that is no more",
        fires=Case(series={_state("drift"): "0x20 1x40"}),
        # What users do may shift as it likes: no evidence of that pages.
        rests=Case(series={_state("drift"): "0x60",
                           f'{names.DRIFT_EVIDENCE.name}{{{WORLD}, kind="policy_shift"}}': "9x60"}),
    ),
    Alert(
        name="WorldDriftSuspected",
        signal='max by (world) (max_over_time(world:drift_log10_evalue:max[15m])'
        f' - on (world) group_left min by (world) ({names.DRIFT_THRESHOLD.name}{{kind=~"{REALITY}"}}))',
        condition=f"> -{thresholds.SUSPECT_LOG10:g}",
        severity="ticket",
        minutes=5,
        summary="Evidence that the reality of world {world} has changed is gathering",
        fires=Case(series={"world:drift_log10_evalue:max{world=\"w\"}": "5.5x60",
                           f'{names.DRIFT_THRESHOLD.name}{{{WORLD}, kind="dynamics"}}': "6.5x60"}),
        rests=Case(series={"world:drift_log10_evalue:max{world=\"w\"}": "2x60",
                           f'{names.DRIFT_THRESHOLD.name}{{{WORLD}, kind="dynamics"}}': "6.5x60"}),
    ),
    Alert(
        name="WorldDriftUnknown",
        signal=f'max by (world) ({names.DRIFT_STATE.name}{{state="unknown"}})',
        condition="> 0",
        severity="ticket",
        minutes=15,
        summary="Nothing is known of whether the reality of world {world} has changed",
        fires=Case(series={_state("unknown"): "1x60"}),
        rests=Case(series={_state("unknown"): "1x10 0x50"}),
    ),
    Alert(
        name="WorldTrustHorizonShort",
        signal="world:trust_horizon_steps:min",
        condition=f"< on (world) min by (world) ({names.SERVED_HORIZON.name})",
        severity="ticket",
        minutes=10,
        summary="World {world} lets agents imagine further than it can be trusted",
        fires=Case(series={'world:trust_horizon_steps:min{world="w"}': "40x60",
                           f"{names.SERVED_HORIZON.name}{{{WORLD}}}": "500x60"}),
        rests=Case(series={'world:trust_horizon_steps:min{world="w"}': "40x60",
                           f"{names.SERVED_HORIZON.name}{{{WORLD}}}": "40x60"}),
    ),
    Alert(
        name="WorldReturnGapHigh",
        signal=f'max by (world, model_version) ({names.RETURN_GAP.name}{{stat="max_abs"}})',
        condition=f"> on (world, model_version) clamp_min({thresholds.FLOOR_FACTOR:g} * max by (world, model_version) "
        f"({names.RETURN_GAP_FLOOR.name}), {thresholds.RETURN_GAP:g})",
        severity="ticket",
        minutes=10,
        summary="Returns in world {world} are not those of reality",
        fires=Case(series={f'{names.RETURN_GAP.name}{{{MODEL}, stat="max_abs"}}': "0.3x60",
                           f"{names.RETURN_GAP_FLOOR.name}{{{MODEL}}}": "0.08x60"}),
        rests=Case(series={f'{names.RETURN_GAP.name}{{{MODEL}, stat="max_abs"}}': "0.15x60",
                           f"{names.RETURN_GAP_FLOOR.name}{{{MODEL}}}": "0.08x60"}),
        labels={"world": "w", "model_version": "v"},
    ),
    _bar("WorldEndsWrong", names.TERMINATION_F1, f"< {thresholds.TERMINATION_F1:g}", 0.5, 0.95,
         "World {world} does not see when episodes end"),
    _bar("WorldEndsMiscalibrated", names.TERMINATION_ECE, f"> {thresholds.TERMINATION_ECE:g}", 0.2, 0.01,
         "World {world} is wrong about how likely an end is"),
    _bar("WorldFalseSuccess", names.FALSE_SUCCESS, f"> {thresholds.FALSE_SUCCESS:g}", 0.3, 0.01,
         "World {world} calls failures a success"),
    _bar("WorldExploited", names.EXPLOITATION_GAP, f"> {thresholds.EXPLOITATION:g}", 0.6, 0.1,
         "World {world} can be won in the dream only"),
    _bar("WorldOutOfSupport", names.OUT_OF_SUPPORT, f"> {thresholds.OUT_OF_SUPPORT:g}", 0.4, 0.02,
         "Agents are where world {world} knows nothing"),
)  # fmt: skip

_AGE = f"time() - max by (world) ({names.LAST_SUCCESS.name})"
_PROBE_AGE = f"time() - max by (world) ({names.LAST_PROBE.name})"

SILENCE = (
    Alert(
        name="WorldFidelityStale",
        signal=f"({_AGE})",
        condition=f"> {STALE_S}",
        severity="ticket",
        minutes=5,
        summary="World {world} has not been measured for an hour",
        fires=Case(series=_constant(f"{names.LAST_SUCCESS.name}{{{WORLD}}}", 0, 200), minute=120),
        rests=Case(series={f"{names.LAST_SUCCESS.name}{{{WORLD}}}": "0+60x200"}, minute=120),
    ),
    Alert(
        name="WorldProbesStale",
        signal=f"({_PROBE_AGE}) / on (world) max by (world) ({names.PROBE_INTERVAL.name})",
        condition="> 10",
        severity="ticket",
        minutes=5,
        summary="Probes of the reality of world {world} have stopped",
        fires=Case(series={**_constant(f"{names.LAST_PROBE.name}{{{WORLD}}}", 0, 200),
                           **_constant(f"{names.PROBE_INTERVAL.name}{{{WORLD}}}", 60, 200)}, minute=60),
        rests=Case(series={f"{names.LAST_PROBE.name}{{{WORLD}}}": "0+60x200",
                           **_constant(f"{names.PROBE_INTERVAL.name}{{{WORLD}}}", 60, 200)}, minute=60),
    ),
    Alert(
        name="WorldNotMonitored",
        signal=f"group by (world) ({names.LANES_CAPACITY.name})",
        condition=f"unless on (world) group by (world) ({names.LAST_SUCCESS.name})",
        severity="ticket",
        minutes=30,
        summary="World {world} is served, and nobody measures it",
        fires=Case(series=_constant(f"{names.LANES_CAPACITY.name}{{{WORLD}}}", 64), minute=45),
        rests=Case(series={**_constant(f"{names.LANES_CAPACITY.name}{{{WORLD}}}", 64),
                           **_constant(f"{names.LAST_SUCCESS.name}{{{WORLD}}}", 1)}, minute=45),
    ),
    Alert(
        name="MonitorAbsent",
        signal=names.MONITOR_WORLDS.name,
        condition="",
        absent=True,
        severity="page",
        minutes=5,
        summary="No monitor is to be seen: nothing is known of any world",
        fires=Case(series=_constant("up", 1)),
        rests=Case(series=_constant(names.MONITOR_WORLDS.name, 1)),
        labels={},
    ),
    Alert(
        name="ServiceAbsent",
        signal=names.LANES_CAPACITY.name,
        condition="",
        absent=True,
        severity="page",
        minutes=5,
        summary="No replica is to be seen",
        fires=Case(series=_constant("up", 1)),
        rests=Case(series=_constant(f"{names.LANES_CAPACITY.name}{{{WORLD}}}", 64)),
        labels={},
    ),
    Alert(
        name="TargetDown",
        signal='min by (job, instance) (up{job=~"simservice.*"})',
        condition="< 1",
        severity="ticket",
        minutes=5,
        summary="The metrics of {instance} cannot be read",
        fires=Case(series=_constant('up{job="simservice", instance="h/w/0"}', 0)),
        rests=Case(series=_constant('up{job="simservice", instance="h/w/0"}', 1)),
        labels={"job": "simservice", "instance": "h/w/0"},
    ),
)  # fmt: skip

_RPC = f'{names.RPC_TOTAL.name}{{{WORLD}, call="step", code='

SERVING = (
    Alert(
        name="ErrorRatioHigh",
        signal="world:env_rpc_errors:ratio_rate5m",
        condition=f"> {ERRORS:g}",
        severity="page",
        minutes=5,
        summary="World {world} fails calls that are not their callers' fault",
        fires=Case(series={_RPC + '"OK"}': "0+100x60", _RPC + '"INTERNAL"}': "0+10x60"}),
        rests=Case(series={_RPC + '"OK"}': "0+100x60", _RPC + '"INVALID_ARGUMENT"}': "0+50x60"}),
    ),
    Alert(
        name="JournalSlow",
        signal="world:journal_append_duration_seconds:p99_rate5m",
        condition=f"> {JOURNAL_S:g}",
        severity="ticket",
        minutes=10,
        summary="The journal of world {world} lags: every step waits for it",
        fires=Case(series={'world:journal_append_duration_seconds:p99_rate5m{world="w"}': "0.4x60"}),
        rests=Case(series={'world:journal_append_duration_seconds:p99_rate5m{world="w"}': "0.004x60"}),
    ),
    Alert(
        name="ReplicaRestarts",
        signal=f"sum by (world) (changes({names.REPLICA_START.name}[30m]))",
        condition=f">= {RESTARTS}",
        severity="ticket",
        minutes=0,
        summary="Replicas of world {world} begin again and again",
        fires=Case(series={f'{names.REPLICA_START.name}{{{WORLD}, replica="0"}}': "1x5 2x5 3x5 4x45"}),
        rests=Case(series={f'{names.REPLICA_START.name}{{{WORLD}, replica="0"}}': "1x15 2x45"}),
    ),
    Alert(
        name="LanesSaturated",
        signal="world:lanes_used:ratio",
        condition=f"> {SATURATED:g}",
        severity="ticket",
        minutes=10,
        summary="World {world} has hardly a lane left",
        fires=Case(series={f"{names.LANES_IN_USE.name}{{{WORLD}}}": "63x60",
                           f"{names.LANES_CAPACITY.name}{{{WORLD}}}": "64x60"}),
        rests=Case(series={f"{names.LANES_IN_USE.name}{{{WORLD}}}": "32x60",
                           f"{names.LANES_CAPACITY.name}{{{WORLD}}}": "64x60"}),
    ),
    Alert(
        name="WorldBreaks",
        signal=f"sum by (world) (increase({names.WORLD_ERRORS.name}[10m]))",
        condition="> 0",
        severity="ticket",
        minutes=0,
        summary="World {world} gives numbers that are not finite",
        fires=Case(series={f"{names.WORLD_ERRORS.name}{{{WORLD}}}": "0+1x60"}),
        rests=Case(series={f"{names.WORLD_ERRORS.name}{{{WORLD}}}": "5x60"}),
    ),
)  # fmt: skip

GROUPS = {"fidelity": FIDELITY, "silence": SILENCE, "serving": SERVING}
ALERTS = tuple(alert for group in GROUPS.values() for alert in group)
