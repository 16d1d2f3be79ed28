"""Grafana's dashboard: the fidelity front page, drift, serving, sessions and store; made from the code's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deploy.generator.alerts import ERRORS, JOURNAL_S, SATURATED
from simservice.fidelity import thresholds
from simservice.telemetry import names

WORLD = 'world=~"$world"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, AMBER, RED, GREY = "green", "orange", "red", "#808080"
WIDTH = 24


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: queries by legend, and the bar beyond which it turns red."""

    title: str
    says: str  # what it means, for who points at it
    queries: dict[str, str]  # legend to expression
    kind: Literal["stat", "timeseries", "state-timeline"] = "timeseries"
    unit: str = "short"
    bad_above: float | None = None
    bad_below: float | None = None
    width: int = 6
    height: int = 7


def _of(name: names.Name, more: str = "") -> str:
    return f"{name.name}{{{WORLD}{', ' + more if more else ''}}}"


FIDELITY = (
    Panel(title="Trust horizon", says="Steps ahead that the error stays within tolerance, with 95 % confidence.",
          queries={"{{world}}": f"min by (world) ({_of(names.TRUST_HORIZON)})"}, kind="stat", unit="none",
          bad_below=thresholds.LEAST_STEPS, width=4),
    Panel(title="Largest return gap", says="Imagined minus real returns of the probe policies, over their range.",
          queries={"{{world}}": "max by (world) (" + _of(names.RETURN_GAP, 'stat="max_abs"') + ")"}, kind="stat",
          bad_above=thresholds.RETURN_GAP, width=4),
    Panel(title="False successes", says="Share of real failures that the world calls a success.",
          queries={"{{world}}": f"max by (world) ({_of(names.FALSE_SUCCESS)})"}, kind="stat", unit="percentunit",
          bad_above=thresholds.FALSE_SUCCESS, width=4),
    Panel(title="Ends, F1", says="How well the world sees ends, one step ahead.",
          queries={"{{world}}": f"min by (world) ({_of(names.TERMINATION_F1)})"}, kind="stat",
          bad_below=thresholds.TERMINATION_F1, width=4),
    Panel(title="Out of support", says="Imagined steps that are less sure than 99 % of real ones.",
          queries={"{{world}}": f"max by (world) ({_of(names.OUT_OF_SUPPORT)})"}, kind="stat", unit="percentunit",
          bad_above=thresholds.OUT_OF_SUPPORT, width=4),
    Panel(title="Exploitation gap", says="What a policy optimised inside wins in the dream only.",
          queries={"{{world}}": f"max by (world) ({_of(names.EXPLOITATION_GAP)})"}, kind="stat",
          bad_above=thresholds.EXPLOITATION, width=4),
    Panel(title="Error by steps ahead",
          says="Open-loop error over reality's spread; 1 is no better than the average future.",
          queries={"{{world}}, {{horizon}} ahead": _of(names.ERROR_RATIO)}, bad_above=thresholds.ERROR, width=8),
    Panel(title="Trusted and served", says="An agent must not imagine further than the world can be trusted.",
          queries={"{{world}} trusted": _of(names.TRUST_HORIZON), "{{world}} served": _of(names.SERVED_HORIZON)},
          width=8),
    Panel(title="Rank correlation", says="Would it choose the right policy? Not shown below 8 independent ones.",
          queries={"{{world}} {{method}}": _of(names.RANK_CORRELATION), "{{world}} MMRV": _of(names.RANK_MMRV)},
          width=8),
    Panel(title="Reward and ends", says="Error of rewards over their spread; calibration error of ends.",
          queries={"{{world}} reward": _of(names.REWARD_ERROR), "{{world}} ends": _of(names.TERMINATION_ECE)}, width=8),
    Panel(title="Against reality itself",
          says="A metric over what two halves of reality differ by: 1 is as good as reality.",
          queries={"{{world}} {{metric}}": _of(names.NOISE_RATIO)}, width=8),
    Panel(title="Details", says="Every metric of the details page; conventions and intervals are in the report.",
          queries={"{{world}} {{metric}}": _of(names.SCORE)}, width=8),
)  # fmt: skip

DRIFT = (
    Panel(title="State", says="Unknown is not good: nothing new was heard of reality.",
          queries={"{{world}} {{state}}": f"{_of(names.DRIFT_STATE)} == 1"}, kind="state-timeline", width=8),
    Panel(title="Evidence of change", says="log10 of the e-process by kind; it alarms at the dashed threshold.",
          queries={"{{world}} {{kind}}": _of(names.DRIFT_EVIDENCE),
                   "{{world}} {{kind}} threshold": _of(names.DRIFT_THRESHOLD)}, width=8),
    Panel(title="Cause", says="What moved, by the evidence.",
          queries={"{{world}} {{cause}}": f"{_of(names.DRIFT_CAUSE)} == 1"}, kind="state-timeline", width=8),
    Panel(title="Since the last probe", says="Seconds since reality was last asked.",
          queries={"{{world}}": f"time() - {_of(names.LAST_PROBE)}"}, unit="s", width=6),
    Panel(title="Since the last whole probe", says="Seconds since the front page was measured.",
          queries={"{{world}}": f"time() - {_of(names.LAST_SUCCESS)}"}, unit="s", bad_above=3600, width=6),
    Panel(title="Real steps spent", says="What reality is asked for, by purpose.",
          queries={"{{world}} {{source}}": f"rate({_of(names.REAL_TRANSITIONS)}[5m])"}, unit="ops", width=6),
    Panel(title="What a day of probes would find", says="The smallest lasting change; smaller ones stay unseen.",
          queries={"{{world}}": _of(names.DETECTABLE_SHIFT)}, width=6),
)  # fmt: skip

SERVING = (
    Panel(title="Imagined steps a second", says="Of all lanes and replicas.",
          queries={"{{world}}": f"world:imagined_steps:rate5m{{{WORLD}}}"}, unit="ops", width=8),
    Panel(title="Time of a step", says="In the server, from arrival to answer.",
          queries={"{{world}} p50": f"world:env_step_duration_seconds:p50_rate5m{{{WORLD}}}",
                   "{{world}} p99": f"world:env_step_duration_seconds:p99_rate5m{{{WORLD}}}"}, unit="s", width=8),
    Panel(title="Errors", says="Calls that failed by no fault of their callers.",
          queries={"{{world}}": f"world:env_rpc_errors:ratio_rate5m{{{WORLD}}}"}, unit="percentunit",
          bad_above=ERRORS, width=8),
    Panel(title="Calls by code", says="All answers.",
          queries={"{{call}} {{code}}": f"sum by (call, code) (rate({_of(names.RPC_TOTAL)}[5m]))"}, unit="ops",
          width=8),
    Panel(title="Lanes in a tick", says="How many lanes a tick stepped together.",
          queries={"{{world}}": f"sum by (world) (rate({names.BATCH_SIZE.name}_sum{{{WORLD}}}[5m])) / "
                                f"sum by (world) (rate({names.BATCH_SIZE.name}_count{{{WORLD}}}[5m]))"}, width=8),
    Panel(title="Time of a tick", says="Mean over the last five minutes.",
          queries={"{{world}}": f"sum by (world) (rate({names.TICK_DURATION.name}_sum{{{WORLD}}}[5m])) / "
                                f"sum by (world) (rate({names.TICK_DURATION.name}_count{{{WORLD}}}[5m]))"},
          unit="s", width=8),
)  # fmt: skip

SESSIONS = (
    Panel(title="Sessions", says="Open in each replica.",
          queries={"{{world}} {{replica}}": _of(names.SESSIONS_OPEN)}, width=6),
    Panel(title="Lanes used", says="Of those there is room for.",
          queries={"{{world}}": f"world:lanes_used:ratio{{{WORLD}}}"}, unit="percentunit", bad_above=SATURATED,
          width=6),
    Panel(title="Journal", says="Time until the store had a request: every step waits for it.",
          queries={"{{world}} p99": f"world:journal_append_duration_seconds:p99_rate5m{{{WORLD}}}"}, unit="s",
          bad_above=JOURNAL_S, width=6),
    Panel(title="Restores and restarts", says="Sessions brought back, and beginnings of replicas, in half an hour.",
          queries={"{{world}} restores": f"sum by (world) (increase({_of(names.RESTORES)}[30m]))",
                   "{{world}} restarts": f"sum by (world) (changes({_of(names.REPLICA_START)}[30m]))"}, width=6),
)  # fmt: skip

ROWS = {"Can it be trusted?": FIDELITY, "Has reality moved?": DRIFT, "Serving": SERVING, "Sessions and store": SESSIONS}
PANELS = tuple(panel for panels in ROWS.values() for panel in panels)


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_row(len(panels) + 1, title, top))
        top, left, tallest = top + 1, 0, 0
        for panel in row:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            panels.append(_panel(len(panels) + 1, panel, left, top))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return {
        "uid": "simservice",
        "title": "simservice",
        "tags": ["simservice"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "world",
            "type": "query",
            "label": "World",
            "datasource": DATASOURCE,
            "query": f"label_values({names.LANES_CAPACITY.name}, world)",
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "refresh": 2,
        },
    ]


def _row(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, left: int, top: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "gridPos": {"h": panel.height, "w": panel.width, "x": left, "y": top},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": DATASOURCE}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "noValue": "unknown",  # and grey: what is not known is not good
                "thresholds": {"mode": "absolute", "steps": _steps(panel)},
                "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
            },
            "overrides": [],
        },
        "options": {"colorMode": "value"} if panel.kind == "stat" else {},
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.bad_above is not None:
        return [{"color": GREEN, "value": None}, {"color": RED, "value": panel.bad_above}]
    if panel.bad_below is not None:
        return [{"color": RED, "value": None}, {"color": GREEN, "value": panel.bad_below}]
    return [{"color": GREY, "value": None}]
