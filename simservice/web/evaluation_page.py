"""An evaluation's page: the verdict, the eight numbers, their pictures, and all the rest. Measures nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from simservice.web.charts import Chart, Line, Mark, draw, legend, plain
from simservice.web.evaluation_details import details, provenance
from simservice.web.feature_names import feature_name
from simservice.web.gauges import gauge
from simservice.web.page import page

Figures = Mapping[str, Any]
"""JSON values, as evaluation.json holds them."""

FALL = 0.5  # of the error, from one lead to the next, that wants explaining
LOOK = {"trustworthy": "good", "with care": "care", "untrustworthy": "bad", "unknown": "unknown"}
SIGN = {"good": "✓", "close": "!", "bad": "✗", "unknown": "?"}
NAN = float("nan")


def render(found: Figures) -> str:
    """The page, from what evaluation.json holds."""
    sections = (
        _verdict(found),
        _front(found),
        _horizon(found),
        _traces(found),
        _strips(found),
        _policies(found),
        details(found),
        provenance(found),
    )
    return page(f"{found['world']}: {found['verdict']['headline']}", sections, styles=("style.css", "evaluation.css"))


def _verdict(found: Figures) -> str:
    verdict, how = found["verdict"], found["how"]
    reasons = "".join(f"<li>{html.escape(reason[:1].upper() + reason[1:])}.</li>" for reason in verdict["reasons"])
    changed = ", ".join(f"{name} {value}" for name, value in found["attributes"].items())
    when = datetime.fromtimestamp(how["finished_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    what = (
        f"<b>{html.escape(found['world'])}</b>, family {html.escape(found['family'])}, held against "
        f"{html.escape(found['env_id'])}{f' with {html.escape(changed)}' if changed else ''}: "
        f"{how['real_episodes']} real episodes, {how['real_steps']:,} real steps; {when}"
    )
    return (
        '<div class="kicker">simservice evaluate</div>'
        f'<div class="verdict {LOOK[verdict["grade"]]}"><h1>{html.escape(verdict["headline"])}</h1>'
        f'<p class="what">{what}</p>{f"<ul>{reasons}</ul>" if reasons else ""}</div>'
    )


def _front(found: Figures) -> str:
    rows = []
    for line in found["lines"]:
        for place, reading in enumerate(line["readings"]):
            rows.append(_row(line, reading, first=place == 0))
    head = "".join(
        f"<th>{name}</th>"
        for name in ("", "", "seen", "against its bar", "reality against itself", "evidence", "level")
    )
    words = (
        "Each number with its 95 % interval. Green is where the bar allows; the tick is the bar. A number fails "
        "only if all of its "
        "interval does; <b>?</b> is not known, and never counts as good. <i>Reality against itself</i> is what "
        "two halves of "
        "the real episodes differ by: no world can do better."
    )
    table = f'<table class="front"><tr>{head}</tr>{"".join(rows)}</table>'
    return f'<h2>Eight numbers</h2><p>{words}</p><div class="card">{table}</div>'


def _row(line: Figures, reading: Figures, *, first: bool) -> str:
    mark = reading["mark"]
    badge = f'<span class="badge {line["mark"]}">{SIGN[line["mark"]]}</span>' if first else ""
    note = f'<div class="small">{html.escape(line["note"])}</div>' if first and line["note"] else ""
    question = f'<div class="question">{html.escape(line["question"])}</div>{note}' if first else ""
    interval = f'<div class="small">{reading["interval_shown"]}</div>' if reading["interval_shown"] else ""
    seen = (
        f'<div class="small">{html.escape(reading["name"])}</div>'
        f'<span class="big {mark}">{reading["shown"]}</span>{interval}'
    )
    value, lower, upper = (_number(reading[name]) for name in ("value", "lower", "upper"))
    if reading["size"] and value < 0:
        value, lower, upper = -value, -upper, -lower
    words = f"{reading['name']}: {reading['shown']}, bar {reading['bar_shown']}"
    drawn = gauge(value, lower, upper, _number(reading["bar"]), at_most=reading["at_most"], words=words)
    divided = reading["metric"].startswith(("error_ratio", "trust_horizon"))
    floor = reading["floor_shown"] or ('<span class="small">divided by it</span>' if divided else "")
    plural = {"policy": "policies"}.get(reading["unit"], f"{reading['unit']}s")
    evidence = f"{reading['units']} {plural}" if reading["units"] else ""
    cells = (
        f'<td class="mark">{badge}</td><td>{question}</td><td class="number">{seen}</td>'
        f'<td>{drawn}<div class="small">{reading["bar_shown"]}</div></td>'
        f"<td>{floor}</td><td>{evidence}</td><td>{reading['level']}</td>"
    )
    return f'<tr class="{"" if first else "more"}">{cells}</tr>'


def _cliff(curve: Figures, error: list[float]) -> str:
    """A full stop, or why a curve falls that should only rise."""
    for before, after in pairwise(range(len(error))):
        if error[after] < FALL * error[before] and curve["alive"][after] < curve["alive"][before]:
            return (
                f"; the fall at step {curve['lead'][after]} is no mend: the starts of which the world was most wrong "
                f"ended there, and {curve['alive'][after]:.0%} of all are left."
            )
    return "."


def _horizon(found: Figures) -> str:
    curve, steps = found["curve"], found["steps"]
    error = [_number(value) for value in curve["error"]]
    line = Line(
        name="error of the world, with its 5 % and 95 % bounds",
        x=curve["lead"],
        y=error,
        lower=[_number(value) for value in curve["lower"]],
        upper=[_number(value) for value in curve["upper"]],
    )
    alive = Line(
        name="share of real starts still alive", x=curve["lead"], y=curve["alive"], colour="muted", dashed=True
    )
    marks = [
        Mark(name=f"trusted below {curve['tau']:g}", at=curve["tau"]),
        Mark(name="no better than the average future", at=1.0),
        Mark(name=f"asked for: {steps}", at=float(steps), axis="x"),
    ]
    if found["trust_horizon_steps"] is not None:
        trusted = found["trust_horizon_steps"]
        marks.append(Mark(name=f"trusted: {trusted:.0f}", at=max(trusted, 1.0), axis="x", colour="dream"))
    highest = max((value for value in error if value == value), default=1.0)
    chart = Chart(
        title="Open-loop error over reality's spread, and how many real starts it is measured on",
        lines=(line, alive),
        x_label="steps imagined without correction",
        y_label="error, as a share of reality's own spread",
        marks=marks,
        y_limits=(0.0, max(1.15, min(1.7, highest * 1.05))),
        width=1000,
        height=340,
    )
    words = (
        f"The world starts in {curve['windows']} real states and is given the real actions. Its error so many "
        f"steps ahead is divided "
        "by how much reality itself varies that far ahead: 1 is no better than always predicting the average "
        "future. Only starts "
        "still alive in reality count"
    )
    words += _cliff(curve, error)
    return f"<h2>How far ahead it can be trusted</h2><p>{words}</p>{draw(chart)}"


def _traces(found: Figures) -> str:
    if not found["traces"]:
        return ""
    charts, differences, keys = [], [], ""
    for trace in found["traces"]:
        steps = list(range(len(trace["real"])))
        name = feature_name(found["env_id"], trace["place"])
        lines = [
            Line(name="imagined, mean and 90 % of its copies", x=steps, y=_numbers(trace["imagined"]),
                 lower=_numbers(trace["lower"]), upper=_numbers(trace["upper"])),
            Line(name="real", x=steps, y=_numbers(trace["real"]), colour="real", dashed=True),
        ]  # fmt: skip
        gap = Line(
            name="imagined minus real, in spreads of reality",
            x=steps,
            y=[value / (trace["spread"] or 1.0) for value in _numbers(trace["difference"])],
            colour="other",
        )
        keys = legend([*lines, gap])
        charts.append(draw(Chart(title=name, lines=lines, legend=False, width=520, height=230)))
        size = max((abs(value) for value in gap.y if value == value), default=1.0)
        reach = max(1.0, size * 1.1)
        zero = Line(name="", x=[0, max(steps)], y=[0.0, 0.0], colour="muted", dashed=True)
        differences.append(
            draw(
                Chart(
                    title=f"{name}: difference",
                    lines=[zero, gap],
                    x_label="steps",
                    y_limits=(-reach, reach),
                    legend=False,
                    width=520,
                    height=170,
                )
            )
        )
    cells = "".join(top + below for top, below in _in_rows(charts, differences))
    words = (
        "One start, one row of actions: reality beside the world. Of the starts that lasted longest this is the "
        "one with the "
        "median error. The difference is drawn in spreads of reality."
    )
    return f'<h2>Same start, same actions</h2><p>{words}</p>{keys}<div class="row">{cells}</div>'


def _in_rows(charts: Sequence[str], differences: Sequence[str]) -> list[tuple[str, str]]:
    """Two charts side by side, and their differences below them."""
    rows = []
    for first in range(0, len(charts), 2):
        rows.append(("".join(charts[first : first + 2]), "".join(differences[first : first + 2])))
    return rows


def _strips(found: Figures) -> str:
    if not found["strips"]:
        return ""
    shown = "".join(
        '<figure class="strip"><div class="rows"><div class="names"><span>real</span><span>imagined</span>'
        f'<span>difference</span></div><img src="{strip["png"]}" alt="frames real, imagined and their difference at '
        f'steps {strip["steps"]}"></div><div class="legend">steps {", ".join(map(str, strip["steps"]))}</div></figure>'
        for strip in found["strips"]
    )
    return (
        "<h2>Same start, same actions</h2><p>Frames of reality and of the world under the same actions; their "
        "difference "
        f"is drawn about grey.</p>{shown}"
    )


def _policies(found: Figures) -> str:
    scatter, reliability = draw(_scatter(found["returns"], found["ranking"])), draw(_reliability(found["calibration"]))
    return (
        "<h2>Whether its word can be taken</h2><p>Left: what policies earn in the world and in reality; on the "
        "diagonal the "
        "world is honest, and the order from left to right should be that from bottom to top. Right: what the "
        "world says of "
        "the end of an episode, against how often it ended.</p>"
        f'<div class="row">{scatter}{reliability}</div>'
    )


def _scatter(returns: Figures, ranking: Figures) -> Chart:
    policies, exploited = returns["policies"], returns["exploited"]
    lines = [
        Line(
            name="a policy of the suite",
            x=[one["real"] for one in policies],
            y=[one["imagined"] for one in policies],
            joined=False,
            titles=[
                f"{one['policy']}: {plain(one['imagined'])} imagined, {plain(one['real'])} real" for one in policies
            ],
        )
    ]
    if exploited is not None:
        told = f"optimised inside: {plain(exploited['imagined'])} imagined, {plain(exploited['real'])} real"
        lines.append(
            Line(name="optimised inside the world", x=[exploited["real"]], y=[exploited["imagined"]], colour="other",
                 joined=False, titles=[told])
        )  # fmt: skip
    every = [value for line in lines for value in [*line.x, *line.y]]
    low, high = min(every), max(every)
    margin = 0.06 * (high - low) or 1.0
    honest = Line(name="honest", x=[low, high], y=[low, high], colour="muted", dashed=True)
    title = f"Returns of {len(policies)} policies"
    if ranking["spearman"] is not None:
        title += f": Spearman {ranking['spearman']:.2f}, MMRV {ranking['mmrv']:.3f}"
    limits = (low - margin, high + margin)
    return Chart(
        title=title,
        lines=[honest, *lines],
        x_label="mean return in reality",
        y_label="in the world",
        x_limits=limits,
        y_limits=limits,
        width=520,
        height=400,
    )


def _reliability(bins: Sequence[Figures]) -> Chart:
    lines = [
        Line(name="calibrated", x=[0.0, 1.0], y=[0.0, 1.0], colour="muted", dashed=True),
        Line(
            name="single steps, by what was said",
            x=[one["said"] for one in bins],
            y=[one["happened"] for one in bins],
            dots=True,
            titles=[f"said {one['said']:.2f}, happened {one['happened']:.2f} in {one['steps']} steps" for one in bins],
        ),
    ]
    return Chart(
        title="Ends of episodes, said and seen",
        lines=lines,
        x_label="probability of an end, as the world says it",
        y_label="share that ended",
        x_limits=(-0.03, 1.03),
        y_limits=(-0.03, 1.03),
        width=520,
        height=400,
    )


def _number(value: float | None) -> float:
    return NAN if value is None else value


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [_number(value) for value in values]
