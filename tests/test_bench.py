"""`make bench` tells what it saw, judges by medians of ratios, and leaves alone what others wrote."""

import json
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from bench import report, stand_ins
from bench.__main__ import ROWS, main
from bench.crowd import ECHO, crowd
from bench.lines import Found, Pace, at_least, at_most, table
from bench.peers.raw_echo import RawStream
from bench.player import players
from bench.processes import served_by
from bench.timing import Round, Series, Spread

from simservice.worlds.noise import lane_draws

JUDGED = Pace(rounds=3, seconds=0.1)


def rounds(*rates):
    return [Round(p50=1 / rate, p99=2 / rate, rate=rate, steps=10) for rate in rates]


def test_a_quick_run_plays_a_row_and_judges_nothing(capsys):
    assert main(["--quick", "--only", "rssm"]) == 0
    said = capsys.readouterr().out
    assert "bare world.step loop" in said
    assert said.count("not judged") == 2


def test_a_row_that_fails_is_told_as_missed(capsys, monkeypatch):
    def broken(stage, pace):
        raise ValueError("no room")

    monkeypatch.setitem(ROWS, "rssm", broken)
    assert main(["--quick", "--only", "rssm"]) == 1
    assert "failed: ValueError: no room" in capsys.readouterr().out


def test_an_unknown_row_is_answered_by_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "one-lain"])
    assert "no row one-lain; there are: one-lane" in capsys.readouterr().err


def test_peers_play_in_processes_of_their_own_and_one_that_is_not_installed_is_told():
    places = {"echo": ("bench.peers.raw_echo:peer", 4, 32, 64), "nobody": ("bench.peers.nobody:peer", 4, False)}
    with players(places) as (there, missing):
        played = there["echo"].play(0.05)
    assert played.steps >= 3 and 0 < played.p50 <= played.p99
    assert played.rate == pytest.approx(4 / played.p50, rel=5)
    assert missing == {"nobody": "not installed (bench.peers.nobody); make bench installs it"}


def test_a_crowd_at_bare_echoes_has_one_for_each_client_and_waits_as_long_as_they_sleep():
    with ExitStack() as stack:
        places = [stack.enter_context(served_by("bench.peers.raw_echo", 8, 0.02)) for _ in range(3)]
        played = stack.enter_context(crowd(",".join(places), ECHO, 3, 16)).play(0.2)
    assert played.p50 >= 0.02
    assert 3 <= played.steps <= 30
    assert played.rate == pytest.approx(16 * played.steps / 0.2, rel=0.5)


def test_a_bare_server_steps_a_world_for_all_that_wait_as_the_world_itself_does():
    world = stand_ins.world("recurrent", "recurrent").eval()
    actions = np.arange(3) % 3
    with served_by("bench.peers.raw_shared", "recurrent") as address:
        first, second = RawStream(address), RawStream(address)
        told = [(first.ask(actions.tobytes()), second.ask(actions[:2].tobytes())) for _ in range(2)]
        first.close()
        second.close()
    assert [[len(one) for one in pair] for pair in told] == [[3 * 37, 2 * 37]] * 2  # 8 numbers, a reward, an end
    seeds = torch.arange(3)
    with torch.inference_mode():
        state = world.init(lane_draws(world.draws["init"], seeds, torch.zeros(3, dtype=torch.int64), "init"))
        for number, (found, _) in enumerate(told, 1):
            luck = lane_draws(world.draws["step"], seeds, torch.full((3,), number), "step")
            state, _ = world.step(state, {"action": torch.from_numpy(actions)}, luck)
            seen = np.frombuffer(found, np.float32, 24).reshape(3, 8)
            np.testing.assert_allclose(seen, world.emit(state)["observation"].numpy(), rtol=1e-5, atol=1e-6)


def test_a_ratio_is_the_median_over_rounds_of_the_same_round():
    series = Series({"ours": rounds(50, 100, 10), "echo": rounds(100, 100, 100)})
    assert series.ratio("ours", "echo", "rate") == Spread(0.5, 0.1, 1.0)
    assert series.figure("ours", "rate") == Spread(50, 10, 100)


@pytest.mark.parametrize(
    ("ratio", "faster", "slower"), [(0.5, "MISSED", "stretch"), (0.7, "holds", "holds"), (0.9, "stretch", "MISSED")]
)
def test_a_bar_is_held_or_missed_by_the_median(ratio, faster, slower):
    seen = Spread(ratio, 0.1, 2.0)
    assert at_least("row", "words", seen, 0.6, 0.8, JUDGED).verdict == faster
    assert at_most("row", "words", seen, 0.7, 0.5, JUDGED).verdict == slower


def test_rows_of_an_earlier_run_stay_and_hand_written_sections_too(tmp_path):
    series = Series({"ours": rounds(50), "echo": rounds(100)})

    def found(row):
        line = at_least(row, f"{row} over an echo", series.ratio("ours", "echo", "rate"), 0.6, 0.8, JUDGED)
        return Found([line], [table(row, f"title of {row}", series, {"nobody": "not installed"})])

    summary, document = tmp_path / "summary.json", tmp_path / "benchmarks.md"
    machine = report.machine(3, 0.1)
    report.summarise({"first": found("first")}, machine, summary)
    report.summarise({"second": found("second")}, machine, summary)
    rows = json.loads(summary.read_text())["rows"]
    assert list(rows) == ["first", "second"]
    document.write_text(f"by hand\n{report.BEGIN}\nold\n{report.END}\nmore by hand\n")
    report.rewrite(document, report.section(rows))
    text = document.read_text()
    assert text.startswith("by hand\n") and text.endswith("\nmore by hand\n") and "\nold\n" not in text
    assert "| first over an echo | ≥ 0.6 × | ≥ 0.8 × | 0.50 × (0.50 to 0.50) | **missed** |" in text
    assert "| nobody | not installed | | |" in text
    with pytest.raises(ValueError, match="has no section"):
        report.rewrite(summary, "")
