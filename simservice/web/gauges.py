"""A number against its bar, small enough for a table's cell: where good ends, the interval, the value."""

from __future__ import annotations

import html
import math

WIDTH, HEIGHT = 170, 26
MARGIN = 7


def gauge(value: float, lower: float, upper: float, bar: float, *, at_most: bool, words: str) -> str:
    """Inline SVG. The bar stands in the middle; what lies beyond twice the bar is drawn at the edge.

    `words` are read aloud and shown when pointed at. An unknown value (NaN) leaves the gauge empty.
    """

    def x(number: float) -> float:
        share = number / (2.0 * bar) if bar else 0.0
        return MARGIN + min(max(share, 0.0), 1.0) * (WIDTH - 2 * MARGIN)

    middle, y = x(bar), HEIGHT / 2
    good_from, good_to = (MARGIN, middle) if at_most else (middle, WIDTH - MARGIN)
    parts = [
        _bar("rail", MARGIN, WIDTH - MARGIN, y, 6),
        _bar("fine", good_from, good_to, y, 6),
        f'<line class="limit" x1="{middle:.1f}" x2="{middle:.1f}" y1="4" y2="{HEIGHT - 4}"/>',
    ]
    if math.isfinite(value):
        beyond = value > bar if at_most else value < bar
        look = "bad" if beyond else "good"
        if math.isfinite(lower) and math.isfinite(upper):
            parts.append(f'<line class="span {look}" x1="{x(lower):.1f}" x2="{x(upper):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="value {look}" cx="{x(value):.1f}" cy="{y}" r="5"/>')
    told = html.escape(words)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg class="gauge" {box} role="img" aria-label="{told}"><title>{told}</title>{"".join(parts)}</svg>'


def _bar(look: str, start: float, end: float, y: float, height: float) -> str:
    place = f'x="{start:.1f}" y="{y - height / 2:.1f}" width="{end - start:.1f}" height="{height}" rx="3"'
    return f'<rect class="{look}" {place}/>'
