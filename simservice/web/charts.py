"""Line charts as inline SVG text, coloured by the page's style sheet. Knows numbers and words, not what they mean."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 14, 46

Numbers = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line; NaN breaks it. `colour` is one of the style sheet's names: real, dream, other, muted."""

    name: str
    x: Numbers
    y: Numbers
    colour: str = "dream"
    lower: Numbers = ()
    upper: Numbers = ()
    dashed: bool = False
    dots: bool = False
    joined: bool = True  # False: dots alone
    titles: Sequence[str] = ()  # what a dot says when pointed at


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A straight line across the whole chart at one value of an axis."""

    name: str
    at: float
    axis: str = "y"
    colour: str = "muted"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """All of one picture. Limits left out are taken from the lines."""

    title: str
    lines: Sequence[Line]
    x_label: str = ""
    y_label: str = ""
    marks: Sequence[Mark] = field(default_factory=tuple)
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    legend: bool = True
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class _Frame:
    """From numbers to places on the canvas."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: int
    height: int

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (self.height - TOP - BOTTOM)

    def inside(self, drawn: str) -> str:
        """The drawing, cut off where the axes end."""
        width, height = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        place = f'x="{LEFT}" y="{TOP}" width="{width}" height="{height}"'
        return f'<svg {place} viewBox="{LEFT} {TOP} {width} {height}">{drawn}</svg>'


def draw(chart: Chart) -> str:
    """The chart as one <figure> with its legend."""
    frame = _frame(chart)
    parts = [_grid(chart, frame)]
    parts.append(frame.inside("".join(_band(line, frame) for line in chart.lines if len(line.lower))))
    parts += [_mark(mark, frame, chart.marks[:place]) for place, mark in enumerate(chart.marks)]
    parts.append(frame.inside("".join(_line(line, frame) for line in chart.lines if line.joined)))
    parts += [_dots(line, frame) for line in chart.lines if line.dots or not line.joined]
    box = f"0 0 {chart.width} {chart.height}"
    title = html.escape(chart.title)
    svg = f'<svg viewBox="{box}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{title}</figcaption>{svg}{legend(chart.lines) if chart.legend else ''}</figure>"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high]."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= 0.7 * rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def plain(value: float) -> str:
    """A number as people write it: 12,000 and 0.25 and -3."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{round(value, 6):g}"


def legend(lines: Sequence[Line]) -> str:
    """What each line is, in one row."""
    keys = (
        key(line.name, f'class="{line.colour}{" dashed" if line.dashed else ""}{"" if line.joined else " point"}"')
        for line in lines
        if line.name
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def key(name: str, look: str) -> str:
    """One entry of a legend; `look` are the attributes of its coloured dash."""
    return f'<span class="key"><i {look}></i>{html.escape(name)}</span>'


def _frame(chart: Chart) -> _Frame:
    xs = [x for line in chart.lines for x in line.x if math.isfinite(x)] or [0.0, 1.0]
    ys = [y for line in chart.lines for y in [*line.y, *line.lower, *line.upper] if math.isfinite(y)] or [0.0, 1.0]
    ys += [mark.at for mark in chart.marks if mark.axis == "y"]
    x0, x1 = chart.x_limits or (min(xs), max(xs))
    y0, y1 = chart.y_limits or _roomy(min(ys), max(ys))
    return _Frame(x0, x1 if x1 > x0 else x0 + 1.0, y0, y1 if y1 > y0 else y0 + 1.0, chart.width, chart.height)


def _roomy(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _grid(chart: Chart, frame: _Frame) -> str:
    bottom, right = frame.height - BOTTOM, frame.width - RIGHT
    parts = []
    for value in ticks(frame.y0, frame.y1, 4 if frame.height < HEIGHT else 5):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{plain(value)}</text>')
    for value in ticks(frame.x0, frame.x1, 4 if frame.width < WIDTH else 6):
        x = frame.x(value)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{plain(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    place = f'x="{(LEFT + right) / 2}" y="{frame.height - 8}"'
    parts.append(f'<text class="label" {place} text-anchor="middle">{html.escape(chart.x_label)}</text>')
    if chart.y_label:
        turn = f'transform="translate(13 {(TOP + bottom) / 2}) rotate(-90)"'
        parts.append(f'<text class="label" {turn} text-anchor="middle">{html.escape(chart.y_label)}</text>')
    return "".join(parts)


def _band(line: Line, frame: _Frame) -> str:
    known = [
        (x, low, high)
        for x, low, high in zip(line.x, line.lower, line.upper, strict=True)
        if all(map(math.isfinite, (x, low, high)))
    ]
    if len(known) < 2:
        return ""
    there = [f"{frame.x(x):.1f},{frame.y(high):.1f}" for x, _, high in known]
    back = [f"{frame.x(x):.1f},{frame.y(low):.1f}" for x, low, _ in reversed(known)]
    return f'<polygon class="band {line.colour}" points="{" ".join(there + back)}"/>'


def _line(line: Line, frame: _Frame) -> str:
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            pieces.append([])
            continue
        pieces[-1].append((frame.x(x), frame.y(y)))
    dashed = " dashed" if line.dashed else ""
    drawn = [
        f'<polyline class="line {line.colour}{dashed}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in piece)}"/>'
        for piece in pieces
        if len(piece) > 1
    ]
    lonely = (piece[0] for piece in pieces if len(piece) == 1 and not line.dots)
    drawn += [f'<circle class="dot {line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in lonely]
    return "".join(drawn)


def _dots(line: Line, frame: _Frame) -> str:
    drawn = []
    for place, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if math.isfinite(x) and math.isfinite(y):
            words = html.escape(line.titles[place] if line.titles else f"{line.name}: {plain(y)} at {plain(x)}")
            where = f'cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}"'
            drawn.append(f'<circle class="dot {line.colour}" {where} r="4.5"><title>{words}</title></circle>')
    return "".join(drawn)


def _mark(mark: Mark, frame: _Frame, earlier: Sequence[Mark]) -> str:
    name = html.escape(mark.name)
    if mark.axis == "y":
        y, right = frame.y(mark.at), frame.width - RIGHT
        text = f'<text class="marktext" x="{LEFT + 6}" y="{y - 6:.1f}">{name}</text>'
        return f'<line class="mark {mark.colour}" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>{text}'
    x, bottom = frame.x(mark.at), frame.height - BOTTOM
    row = sum(other.axis == "x" for other in earlier)  # names of upright marks stand below each other
    text = f'<text class="marktext" x="{x + 6:.1f}" y="{TOP + 12 + 16 * row}">{name}</text>'
    return f'<line class="mark {mark.colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>{text}'
