"""An evaluation's page shows its figures, draws from itself alone, and is drawn by a real browser without complaint."""

import re
import shutil
import subprocess

import pytest
import toy_reality
from PIL import Image

from simservice.data.collect import collect_episodes
from simservice.monitor.evaluation.evaluate import evaluate
from simservice.monitor.evaluation.figures import figures
from simservice.monitor.reality import ProbeConfig
from simservice.web.evaluation_page import render
from simservice.web.gauges import gauge

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def found(toy_server):
    with toy_reality.registered() as env_id:
        config = ProbeConfig(env_id=env_id, episodes=4, horizon=20, windows=40, copies=2, lanes=64)
        recorded = collect_episodes(env_id, episodes=20, seed=5, policy="random", max_steps=40)
        return figures(evaluate(toy_server.address, "toy", config, training=recorded, splits=2))


def test_the_page_shows_verdict_numbers_and_pictures(found):
    page = render(found)
    assert found["verdict"]["headline"] in page
    for line in found["lines"]:
        assert line["question"] in page
    for row in found["details"]:
        assert row["metric"] in page
    assert page.count("<figure>") == 1 + 2 * 4 + 2
    assert page.count('class="gauge"') == sum(len(line["readings"]) for line in found["lines"])


def test_the_page_needs_no_network_and_says_no_nan(found):
    page = render(found)
    assert not re.search(r"https?://|@import|url\(", page)
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_a_curve_that_falls_because_bad_starts_ended_says_so(found):
    curve = {**found["curve"], "lead": [1, 2, 3], "error": [0.01, 0.4, 0.02], "alive": [1.0, 1.0, 0.25]}
    curve.update(lower=curve["error"], upper=curve["error"])
    assert "the fall at step 3 is no mend" in render({**found, "curve": curve})
    curve["alive"] = [1.0, 1.0, 1.0]
    assert "is no mend" not in render({**found, "curve": curve})


def test_a_world_of_pictures_has_strips_instead_of_traces(found):
    strip = {"steps": [0, 5, 10], "png": "data:image/png;base64,AAAA"}
    page = render({**found, "traces": [], "strips": [strip]})
    assert 'src="data:image/png;base64,AAAA"' in page
    assert "real</span><span>imagined</span><span>difference" in page


def test_names_are_escaped(found):
    page = render({**found, "world": "<script>alert(1)</script>@0"})
    assert "<script>" not in page


def test_a_gauge_puts_its_bar_in_the_middle_and_an_unknown_value_nowhere():
    drawn = gauge(0.05, 0.02, 0.08, 0.1, at_most=True, words="x")
    assert 'class="value good"' in drawn
    assert 'class="value bad"' in gauge(0.15, 0.12, 0.18, 0.1, at_most=True, words="x")
    assert "<circle" not in gauge(float("nan"), float("nan"), float("nan"), 0.1, at_most=True, words="x")


@pytest.mark.skipif(BROWSER is None, reason="no chromium here; apt-get install chromium")
def test_a_real_browser_draws_the_page(found, tmp_path):
    (tmp_path / "report.html").write_text(render(found), encoding="utf-8")
    picture = tmp_path / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync --hide-scrollbars --window-size=1100,1400"
    done = subprocess.run(
        [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}",
         (tmp_path / "report.html").as_uri()],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert picture.exists(), done.stderr.decode()[-1000:]
    colours = Image.open(picture).convert("RGB").resize((110, 140)).getcolors(maxcolors=20_000)
    assert len(colours) > 100  # a page with charts on it, and not an empty one
