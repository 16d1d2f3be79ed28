"""What a run leaves in summary.json and details.json: every figure once, as JSON, and enough for the report."""

import json
from io import StringIO

import numpy as np
import pytest
from cartpole_world import served_cartpole
from demo_sample import details, summary
from gymnasium import spaces
from rich.console import Console

from simservice.client.policy import Policy
from simservice.data.collect import collect
from simservice.data.minari import save_dataset
from simservice.demo.baseline import Baseline
from simservice.demo.dyna import Plan, Round
from simservice.demo.findings import Findings, details_of, summary_of
from simservice.demo.report import render
from simservice.demo.rounds import Check
from simservice.demo.scoring import Score
from simservice.demo.table import show_table
from simservice.demo.traces import record_traces
from simservice.monitor.probe import probe
from simservice.monitor.reality import ProbeConfig

ACT = Policy(((np.float32([[0, 0, -1, -0.3], [0, 0, 1, 0.3]]), np.zeros(2, np.float32)),), spaces.Discrete(2))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with served_cartpole(folder) as address:
        small = {"env_id": "CartPole-v1", "episodes": 2, "horizon": 20, "windows": 16, "copies": 1}
        before = probe(address, "cartpole", ProbeConfig(**small))
        after = probe(address, "cartpole", ProbeConfig(**small, attributes={"gravity": 12.0}))
        traces = record_traces(address, "cartpole", ACT, "CartPole-v1", {"gravity": 12.0}, seed=0)
    last = {"steps": 2_000, "elapsed_s": 2.0, "sampling_s": 1.0, "return_mean": 480.0}
    rounds = [
        Round(number=number, world=f"cartpole@{number}", folder=folder, policy=ACT, real_steps_trained=500 * number,
              check=Check(finished=(500.0,), steps=500), learning=[(1_000, float("nan")), (2_000, 480.0)], last=last,
              seconds=3.0)
        for number in (1, 2)
    ]  # fmt: skip
    dataset = save_dataset(
        collect("CartPole-v1", steps=50, seed=0), "demo/cartpole/steps-v0", env_id="CartPole-v1", root=folder
    )
    return Findings(
        plan=Plan(),
        changed={"gravity": 12.0},
        rounds=rounds,
        kept=rounds[1],
        scores=[Score((100.0, 120.0), 220), Score((500.0, 480.0), 980)],
        baseline=Baseline([(256, float("nan")), (512, 30.0)], 512, Score((30.0, 40.0), 70)),
        small_batches=Baseline([(256, 20.0)], 256, Score((50.0, 60.0), 110)),
        before=before,
        after=after,
        traces=traces,
        real_steps=1_500,
        dataset=dataset,
        seconds={"real steps": 1.0, "serving": 2.0},
        elapsed_s=9.0,
    )


def test_the_summary_holds_every_figure_and_nothing_that_is_not_json(found):
    written = json.loads(json.dumps(summary_of(found), allow_nan=False))
    assert set(written) == set(summary())
    assert {frozenset(played) for played in written["rounds"]} == {frozenset(summary()["rounds"][0])}
    assert written["real_return_mean"] == 490.0  # of the kept round
    assert written["solved"]
    assert written["baseline_return_mean"] == 35.0
    assert written["imagined_steps"] == 4_000
    assert written["imagined_steps_per_s"] == 1_000
    assert written["measurement_steps"]["scores"] == 220 + 980 + 70 + 110
    assert written["trust_horizon_steps"] >= written["trust_horizon_steps_changed"]


def test_the_details_hold_what_the_report_draws(found):
    written = json.loads(json.dumps(details_of(found), allow_nan=False))
    assert set(written) == set(details())
    assert written["learning"][0] == {"steps": [1_000, 2_000], "return": [None, 480.0]}
    assert len(written["curves"][0]["lead"]) == 20


def test_the_report_of_a_real_run_is_drawn(found):
    page = render(summary_of(found), details_of(found))
    assert "490" in page
    assert "nan" not in page


def test_the_last_screen_names_the_figures(found, tmp_path):
    screen = Console(file=StringIO(), width=160)
    show_table(screen, summary_of(found), tmp_path)
    shown = screen.file.getvalue()
    for words in ("490.0", "1,500", "35.0", "gravity 12", "report.html"):
        assert words in shown
