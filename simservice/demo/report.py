"""The demo's report: figures in, one self-contained HTML page out. Measures nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from simservice.web.charts import Chart, Line, Mark, draw, key, legend, plain
from simservice.web.page import page

Figures = Mapping[str, Any]
"""JSON values, as summary.json and details.json hold them."""


def render(summary: Figures, details: Figures) -> str:
    """The page. `summary` is what summary.json holds, `details` the curves and traces behind it."""
    sections = (
        _head(summary),
        _tiles(summary),
        _traces(summary, details),
        _horizon(summary, details),
        _returns(summary, details),
        _rounds(summary),
        _speed(summary, details),
        _provenance(summary),
    )
    return page(f"{summary['env_id']}, learned in a dream", sections)


def _head(summary: Figures) -> str:
    changed = _changed(summary)
    return (
        '<div class="kicker">simservice demo</div>'
        f"<h1>{html.escape(summary['env_id'])}, learned in a dream</h1>"
        f'<p class="lead">A world was learned from <b>{summary["real_steps"]:,} real steps</b> and served on Ray '
        f"Serve. RLlib's PPO trained in it for {summary['imagined_steps']:,} imagined steps. Then it met the real "
        f"environment and scored <b>{plain(round(summary['real_return_mean'], 1))}</b> on average over "
        f"{summary['real_episodes']} episodes. At last reality was changed ({changed}): "
        f"the trust horizon went from {summary['trust_horizon_steps']} to {summary['trust_horizon_steps_changed']} "
        f"steps.</p>"
    )


def _tiles(summary: Figures) -> str:
    low, high = summary["real_return_interval"]
    base_low, base_high = summary["baseline_return_interval"]
    trust, changed = summary["trust_horizon_steps"], summary["trust_horizon_steps_changed"]
    tiles = (
        ("good" if summary["solved"] else "other", "Real return", plain(round(summary["real_return_mean"], 1)), "",
         f"mean of {summary['real_episodes']} real episodes, 95 % interval {low:.0f} to {high:.0f}"),
        ("dream", "Real steps used", f"{summary['real_steps']:,}", f" of {summary['real_steps_budget']:,}",
         "every one that trained, checked or stopped anything"),
        ("other", "Same PPO, no dream", plain(round(summary["baseline_return_mean"], 1)), "",
         f"after {summary['baseline_real_steps']:,} real steps, interval {base_low:.0f} to {base_high:.0f}; retuned "
         f"for few steps {summary['baseline_small_batches_return_mean']:.0f}"),
        ("dream", "Trust horizon", f"{trust}", f" → {changed} steps",
         f"before and after the change of reality ({_changed(summary)})"),
        ("", "Imagined steps / s", f"{summary['imagined_steps_per_s']:,.0f}", "",
         f"{summary['imagined_steps']:,} in all, over gRPC, learning included"),
    )  # fmt: skip
    cells = (
        f'<div class="tile {kind}"><div class="name">{name}</div><div class="value">{value}<small>{unit}</small></div>'
        f'<div class="note">{html.escape(note)}</div></div>'
        for kind, name, value, unit, note in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _traces(summary: Figures, details: Figures) -> str:
    charts, names = [], ""
    for trace in details["traces"]:
        steps = list(range(len(trace["real"])))
        lines = [
            Line(name="imagined (median and 90 % of 64 dreams)", x=steps, y=_numbers(trace["imagined"]),
                 lower=_numbers(trace["lower"]), upper=_numbers(trace["upper"]), colour="dream"),
            Line(name="real", x=steps, y=_numbers(trace["real"]), colour="real", dashed=True),
            Line(name=f"real, {_changed(summary)}", x=steps, y=_numbers(trace["changed"]), colour="other"),
        ]  # fmt: skip
        names = legend(lines)
        chart = Chart(title=trace["name"], lines=lines, x_label="steps", legend=False, width=520, height=240)
        charts.append(draw(chart))
    words = (
        "The served world and the real environment begin in the same state and are given the same actions. Nothing is "
        "corrected on the way: after the first observation the dream is on its own. The third line is the real "
        "environment with changed physics, under the same actions still."
    )
    row = f'<div class="row">{"".join(charts)}</div>'
    return f"<h2>Same start, same actions</h2><p>{words}</p>{names}{row}"


def _horizon(summary: Figures, details: Figures) -> str:
    lines = []
    for curve, colour in zip(details["curves"], ("dream", "other"), strict=False):
        lines.append(
            Line(name=curve["name"], x=curve["lead"], y=_numbers(curve["error"]), lower=_numbers(curve["lower"]),
                 upper=_numbers(curve["upper"]), colour=colour)
        )  # fmt: skip
    highest = max((y for line in lines for y in line.y if y == y), default=1.0)
    tau = details["tau"]
    chart = Chart(
        title="Open-loop error against reality",
        lines=lines,
        x_label="steps imagined without correction",
        y_label="error, as a share of reality's own spread",
        marks=(Mark(name=f"trusted below {tau:g}", at=tau), Mark(name="no better than the average future", at=1.0)),
        y_limits=(0.0, max(1.15, min(1.6, highest * 1.05))),
        width=1000,
        height=360,
    )
    words = (
        f"A world is trusted for as many steps as the error's one-sided 95 % upper bound is at most {tau:g}: "
        f"<b>{summary['trust_horizon_steps']} steps</b> while reality is as it was, and "
        f"<b>{summary['trust_horizon_steps_changed']}</b> once {_changed(summary)}. The probe that measures this plays "
        f"the served world as any client does; the world is the same both times, reality is not."
    )
    return f"<h2>How far the dream can be trusted</h2><p>{words}</p>{draw(chart)}"


def _returns(summary: Figures, details: Figures) -> str:
    rounds = summary["rounds"]
    steps, scores = [r["real_steps_trained"] for r in rounds], [r["real_return_mean"] for r in rounds]
    lines = [
        Line(name="learned in the dream: each round's policy", x=steps, y=scores, colour="dream", dots=True),
        *_baseline_lines("the same PPO in reality", "baseline", "other", summary, details),
        *_baseline_lines("PPO in reality, retuned for few steps", "baseline_small_batches", "muted", summary, details),
    ]  # fmt: skip
    chart = Chart(
        title="Real return over real steps used",
        lines=lines,
        x_label="real steps",
        y_label="return in reality",
        marks=(Mark(name=f"solved: {summary['solved_at']:g}", at=summary["solved_at"]),),
        x_limits=(0.0, float(max(summary["real_steps_budget"], summary["baseline_real_steps"]))),
        y_limits=(0.0, details["return_limit"] * 1.06),
        width=1000,
        height=340,
    )
    words = (
        "What real experience is worth. Dots on the upper line are policies that learned only from imagined steps, in "
        "worlds trained on that many real ones; they were scored in reality after everything had ended, and no choice "
        "was made by these scores. Dashed: returns while learning in reality; the dot is the score of what was learned "
        "there. The same PPO takes batches of 2,048 steps, so it is given whole ones; retuned to batches of 256 it "
        f"scores {summary['baseline_small_batches_return_mean']:.0f} after "
        f"{summary['baseline_small_batches_real_steps']:,} steps."
    )
    return f"<h2>What a real step is worth</h2><p>{words}</p>{draw(chart)}"


def _baseline_lines(name: str, key: str, colour: str, summary: Figures, details: Figures) -> list[Line]:
    score, steps = summary[f"{key}_return_mean"], summary[f"{key}_real_steps"]
    curve = details[key]
    return [
        Line(name=name, x=curve["real_steps"], y=_numbers(curve["return"]), colour=colour, dashed=True),
        Line(name="its score", x=[steps], y=[score], colour=colour, dots=True),
    ]


def _rounds(summary: Figures) -> str:
    head = ("round", "real steps", "world", "dream return", "check in reality", "real return", "imagined", "per s", "s")
    rows = []
    for r in summary["rounds"]:
        check = ", ".join(plain(x) for x in r["check_returns"]) or "none"
        cells = (r["round"], f"{r['real_steps_trained']:,}", f"<code>{html.escape(r['world'])}</code>",
                 f"{r['dream_return_mean']:.0f}", check, f"{r['real_return_mean']:.0f}", f"{r['imagined_steps']:,}",
                 f"{r['imagined_steps_per_s']:,.0f}", f"{r['seconds']:.0f}")  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    words = (
        "Each round trains the world on all real steps so far, serves it in place of the last version, lets the agent "
        "go on in it, and then spends a few counted real steps: they are the check whether the policy is good, and the "
        "next round's data."
    )
    table = f"<tr>{''.join(f'<th>{h}</th>' for h in head)}</tr>{''.join(rows)}"
    return f'<h2>Round by round</h2><p>{words}</p><div class="card"><table>{table}</table></div>'


def _speed(summary: Figures, details: Figures) -> str:
    lines, begun = [], 0
    for number, curve in enumerate(details["learning"], start=1):
        lines.append(Line(name=f"round {number}", x=[begun + x for x in curve["steps"]], y=_numbers(curve["return"]),
                          colour=("muted", "other", "dream", "real")[number % 4]))  # fmt: skip
        begun += curve["steps"][-1] if curve["steps"] else 0
    chart = Chart(
        title="Learning in the dream",
        lines=lines,
        x_label="imagined steps",
        y_label="return in the dream",
        y_limits=(0.0, details["return_limit"] * 1.06),
        width=1000,
        height=300,
    )
    stages: Sequence[Sequence[Any]] = summary["stages"]
    whole = sum(seconds for _, seconds in stages) or 1.0
    bars = "".join(
        f'<span style="flex:{seconds / whole:.4f}" title="{html.escape(name)}: {seconds:.0f} s"></span>'
        for name, seconds in stages
    )
    colours = ("dream", "other", "muted", "good")
    keys = "".join(
        key(f"{name} {seconds:.0f} s", f'style="border-color:var(--{colours[i % 4]})"')
        for i, (name, seconds) in enumerate(stages)
    )
    words = (
        f"RLlib steps {details['lanes']} imagined environments with one gRPC message. "
        f"{summary['imagined_steps_per_s']:,.0f} imagined steps a second, learning included; "
        f"{summary['imagined_steps_per_sampling_s']:,.0f} while sampling."
    )
    return (
        f"<h2>Where the time went</h2><p>{words}</p>{draw(chart)}"
        f'<div class="time">{bars}</div><div class="legend">{keys}</div>'
    )


def _provenance(summary: Figures) -> str:
    dataset = html.escape(summary["dataset_id"])
    rows = [
        ("Real environment", f"<code>{html.escape(summary['env_id'])}</code>, seed {summary['seed']}"),
        ("World", f"<code>{html.escape(summary['world'])}</code>, family {html.escape(summary['family'])}"),
        ("Dataset", f"<code>{dataset}</code>, sha256 <code>{summary['dataset_hash']}</code>"),
        ("Counted real steps", html.escape(summary["counted"])),
        ("Versions", html.escape(", ".join(f"{name} {version}" for name, version in summary["versions"].items()))),
        ("Machine", html.escape(summary["machine"])),
        ("Whole run", f"{summary['elapsed_s']:.0f} s, ended {html.escape(summary['ended'])}"),
    ]  # fmt: skip
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    return (
        f'<h2>Where it comes from</h2><div class="card"><table class="plain">{cells}</table></div>'
        "<footer>All figures of this page are in summary.json and details.json beside it. "
        "Intervals are 95 % bootstrap intervals over episodes; the error curve's band reaches from 5 % to 95 %, and "
        "each of its windows is the mean of four imagined copies.</footer>"
    )


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _changed(summary: Figures) -> str:
    return html.escape(", ".join(f"{name} {plain(value)}" for name, value in summary["changed"].items()))
