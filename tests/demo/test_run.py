"""The demo's parts that measure: sensible settings, honest scores, traces that agree where the world is right."""

import numpy as np
import pytest
from cartpole_world import served_cartpole
from gymnasium import spaces

from simservice.client.policy import Policy
from simservice.demo.run import DemoConfig, _new_folder
from simservice.demo.scoring import Score, score
from simservice.demo.traces import record_traces
from simservice.errors import ConfigError


def pusher(angle, turn):
    """A policy that pushes to where the pole leans and turns to."""
    weight = np.float32([[0, 0, -angle, -turn], [0, 0, angle, turn]])
    return Policy(((weight, np.zeros(2, np.float32)),), spaces.Discrete(2))


ACT, WEAK = pusher(1, 0.3), pusher(1, 0)


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(ConfigError, match="the demo needs 1500"):
        DemoConfig(budget=1499)


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(ConfigError, match="is no demo's folder"):
        DemoConfig(out=tmp_path)
    assert DemoConfig(out=tmp_path / "new").out == tmp_path / "new"


def test_a_finished_run_replaces_the_old_folder_whole(tmp_path):
    out = tmp_path / "demo"
    for text in ("first", "second"):
        with _new_folder(out) as folder:
            (folder / "summary.json").write_text(text)
            if text == "first":
                (folder / "stale").write_text("")
    assert (out / "summary.json").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert not (out / "stale").exists()


def test_an_interrupted_run_leaves_the_old_folder_as_it_was(tmp_path):
    out = tmp_path / "demo"
    with _new_folder(out) as folder:
        (folder / "summary.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), _new_folder(out) as folder:
        (folder / "summary.json").write_text("half")
        raise KeyboardInterrupt
    assert (out / "summary.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_score_is_repeatable_and_counts_its_steps():
    first, second = (score(WEAK, "CartPole-v1", 10, seed=0) for _ in range(2))
    assert first == second
    assert len(first.returns) == 10
    assert first.steps == sum(first.returns)  # CartPole pays one a step
    assert first != score(WEAK, "CartPole-v1", 10, seed=1)


def test_the_interval_holds_the_mean_and_narrows_with_evidence():
    few, many = (Score(tuple(np.random.default_rng(0).normal(100, 10, size=n)), 0) for n in (10, 1000))
    for found in (few, many):
        low, high = found.interval
        assert low < found.mean < high
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]


def test_traces_of_the_true_world_lie_on_reality_and_off_changed_reality(tmp_path):
    with served_cartpole(tmp_path) as address:
        traces = record_traces(address, "cartpole", ACT, "CartPole-v1", {"gravity": 12.0}, seed=0)
    assert [trace.name for trace in traces] == ["cart position", "cart speed", "pole angle", "pole's angular speed"]
    for trace in traces:
        np.testing.assert_allclose(trace.imagined, trace.real, atol=1e-4)
        assert trace.lower == trace.upper == trace.imagined  # nothing is left to luck
        assert trace.changed[0] == trace.real[0]
        assert len(trace.changed) == len(trace.real)
    angle = traces[2]
    last = max(step for step, value in enumerate(angle.changed) if value is not None)
    assert abs(angle.changed[last] - angle.real[last]) > 0.01
