"""When the rounds stop, what they spend, whose policy is kept."""

import pytest

from simservice.demo.rounds import Check, Rules, episode_limit, kept, next_move, wants_more

RULES = Rules()
SOLVED = Check(finished=(500.0, 500.0), steps=1000)
FAILED = Check(finished=(120.0, 390.0), steps=510)
ONCE = Check(finished=(500.0,), steps=500)


def test_solving_needs_enough_episodes_and_no_bad_one():
    assert SOLVED.solved(RULES)
    assert not ONCE.solved(RULES)
    assert not Check(finished=(500.0, 474.0), steps=974).solved(RULES)
    assert not Check().solved(RULES)


def play(number, left, lengths):
    """A check over episodes of these lengths (the return is the length); what it spends and finishes."""
    check, total = Check(), left
    for length in lengths:
        if not wants_more(check, number, left, RULES):
            break
        limit = episode_limit(check, left, RULES)
        taken = min(length, limit)
        finished = (float(length),) if taken == length else ()
        check = Check(finished=check.finished + finished, steps=check.steps + taken)
        left -= taken
    assert check.steps <= total
    return check


def test_a_failing_policy_costs_the_rounds_share_and_no_more():
    assert play(1, 2000, [40] * 100) == Check(finished=(40.0,) * 12, steps=500)
    assert play(2, 2000, [480, 30, 500]).steps == 510  # an episode that passes the share while promising is played out


def test_the_first_round_is_content_with_one_good_episode():
    assert play(1, 2000, [500] * 9) == ONCE


def test_a_later_round_plays_on_until_it_is_settled():
    assert play(2, 1500, [500] * 9) == SOLVED
    assert play(2, 1500, [500, 300, 500]) == Check(finished=(500.0, 300.0), steps=800)


def test_the_budget_is_never_passed():
    for left in (0, 1, 499, 500, 700, 1000):
        for length in (9, 100, 480, 500):
            assert play(3, left, [length] * 200).steps <= left
    assert play(3, 700, [500] * 9) == Check(finished=(500.0,), steps=700)


@pytest.mark.parametrize(
    ("checks", "move"),
    [
        ([ONCE], "go on"),
        ([SOLVED], "go on"),  # min_rounds is 2
        ([FAILED, SOLVED], "stop"),
        ([ONCE, SOLVED], "stop"),
        ([FAILED] * 3, "go on"),
        ([FAILED] * 6, "stop"),
        ([FAILED] * 3 + [Check()], "stop"),  # the budget was spent before: nothing new to learn from
    ],
)
def test_rounds_go_on_until_solved_or_spent(checks, move):
    assert next_move(checks, RULES) == move


def test_the_policy_kept_is_the_last_that_solved_it_else_the_last():
    assert kept([FAILED, SOLVED], RULES) == 1
    assert kept([FAILED, FAILED, Check()], RULES) == 2
    assert kept([SOLVED, FAILED], RULES) == 0


def test_worst_case_of_the_default_rules_stays_within_the_budget():
    left, checks = RULES.budget - RULES.first_steps, []
    while not checks or next_move(checks, RULES) == "go on":
        checks.append(play(len(checks) + 1, left, [30] * 100))
        left -= checks[-1].steps
    assert left >= 0
    assert len(checks) == 5  # four that cost 500 steps each, and one trained on all of them
