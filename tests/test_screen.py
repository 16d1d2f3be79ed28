"""What the verbs show where nothing can move: in files and pipes."""

from simservice.cli.screen import bar, shares, spinner


def lines(capsys):
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.splitlines()


def test_a_bar_is_a_line_a_tenth(capsys):
    with bar("Real steps", 1000) as advance:
        for _ in range(1000):
            advance(1)
    said = lines(capsys)
    assert len(said) == 10
    assert said[0] == " 10 %  Real steps: 100 of 1,000" and said[-1] == "100 %  Real steps: 1,000 of 1,000"


def test_shares_say_their_words_at_each_tenth_alone(capsys):
    with shares() as progress:
        for update in range(50):
            progress(f"update {update}", update / 50)
        progress("evaluating", 1.0)
    said = lines(capsys)
    assert len(said) == 10
    assert said[0] == " 10 %  update 5" and said[-1] == "100 %  evaluating"


def test_a_spinner_says_each_stage_once(capsys):
    with spinner() as tell:
        tell("starting Ray")
        tell("deploying worlds")
    assert lines(capsys) == ["starting Ray", "deploying worlds"]
