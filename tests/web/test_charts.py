"""Pictures lie where their numbers say, and a number that is not there leaves a gap."""

import re

from simservice.web.charts import Chart, Line, draw, plain, ticks


def test_a_line_breaks_where_numbers_are_missing():
    nan = float("nan")
    svg = draw(Chart(title="t", lines=[Line(name="a", x=[0, 1, 2, 3, 4, 5], y=[1, 2, nan, 4, 5, 6])]))
    assert svg.count("<polyline") == 2
    assert "nan" not in svg


def test_a_number_with_no_neighbour_is_a_dot():
    nan = float("nan")
    svg = draw(Chart(title="t", lines=[Line(name="a", x=[0, 1, 2, 3], y=[nan, 2, nan, 4])]))
    assert svg.count("<circle") == 2


def test_points_lie_where_their_numbers_say():
    svg = draw(Chart(title="t", lines=[Line(name="a", x=[0, 10], y=[0, 10])], x_limits=(0, 10), y_limits=(0, 10)))
    [points] = re.findall(r'points="([^"]+)"', svg)
    (x0, y0), (x1, y1) = (tuple(map(float, pair.split(","))) for pair in points.split())
    assert x0 < x1
    assert y0 > y1  # upwards on the screen


def test_ticks_are_round_and_inside():
    assert ticks(0, 500, 5) == [0, 100, 200, 300, 400, 500]
    assert [round(tick, 6) for tick in ticks(-0.13, 0.28, 4)] == [-0.1, 0.0, 0.1, 0.2]
    assert plain(12345.6) == "12,346"
    assert plain(0.30000000000000004) == "0.3"
