"""The program behind `make faults`: which lines it has, what it prints and writes, and when it fails."""

import json
import re
from pathlib import Path

import acceptance
import pytest
from line import Line, at_least, at_most, exactly

ROOT = Path(__file__).parents[2]


def good(stage, options, told):
    told("half of it", 0.5)
    yield at_most("a stall", 0.25, 0.5, " s")
    yield exactly("lost steps", 0, 0)


def bad(stage, options, told):
    yield at_least("goodput", 89.96, 90, " %")


def broken(stage, options, told):
    yield exactly("lost steps", 0, 0)
    raise OSError("the store did not come back")


LINES = (Line("good", "what holds", good), Line("bad", "what does not", bad), Line("broken", "what ends", broken))


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs some lines; gives the status, the summary and what was printed."""
    monkeypatch.setenv("COLUMNS", "140")
    for name in ("SIMSERVICE_EXTRA_FAMILIES", "PYTHONPATH"):
        monkeypatch.setenv(name, "")  # put back after the test, which sets them

    def run(*words):
        out = tmp_path / "summary.json"
        status = acceptance.main([*words, "--out", str(out)], LINES)
        return status, json.loads(out.read_text()), capsys.readouterr().out

    return run


def test_lines_that_hold_are_told_and_written(run):
    status, summary, said = run("--only", "good")
    assert status == 0 and summary["held"]
    [line] = summary["lines"]
    assert [row["seen"] for row in line["rows"]] == ["0.25 s", "0"]
    assert "a stall" in said and "<= 0.5 s" in said and "1 lines" in said and "all held" in said


def test_a_line_that_falls_short_fails_the_run_and_is_named(run):
    status, summary, said = run()
    assert status == 1 and not summary["held"]
    assert [line["held"] for line in summary["lines"]] == [True, False, False]
    assert "fell short: bad, broken" in said


def test_a_line_that_cannot_be_tried_to_its_end_has_not_held(run):
    status, summary, _ = run("--only", "broken")
    assert status == 1
    assert summary["lines"][0]["rows"][-1]["seen"] == "OSError: the store did not come back"


def test_an_unknown_line_is_told_with_those_there_are(run, capsys):
    with pytest.raises(SystemExit):
        run("--only", "good,godo")
    assert "there is no line godo; there are: good, bad, broken" in capsys.readouterr().err


def test_every_line_has_a_name_of_its_own_and_make_runs_them():
    names = [line.name for line in acceptance.LINES]
    assert len(set(names)) == len(names) >= 14
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^faults:.*\n\t.*tests/faults/acceptance\.py", makefile, flags=re.MULTILINE)
    assert "make faults" in (ROOT / "README.md").read_text()
