"""Controls that differ by chance are as many worlds as agents."""

import numpy as np
import pytest

from simservice.proving import controls
from simservice.types import Episode

LENGTHS = (3, 5, 2)


@pytest.fixture
def episodes():
    """Whose every action is another number."""
    actions, made = iter(range(100)), []
    for length in LENGTHS:
        made.append(
            Episode(
                observation={"observation": np.zeros((length + 1, 1), np.float32)},
                action={"action": np.array([next(actions) for _ in range(length)])},
                reward=np.ones(length),
                terminated=True,
                truncated=False,
            )
        )
    return made


def actions_of(episodes):
    return [episode.action["action"].tolist() for episode in episodes]


def test_a_deal_keeps_all_actions_and_no_order(episodes):
    dealt = actions_of(controls.shuffled(episodes))
    assert [len(actions) for actions in dealt] == list(LENGTHS)
    assert sorted(number for actions in dealt for number in actions) == list(range(sum(LENGTHS)))
    assert dealt != actions_of(episodes)


def test_deals_differ_and_repeat_themselves(episodes):
    deals = [actions_of(controls.shuffled(episodes, deal)) for deal in (0, 1, 2)]
    assert deals[0] != deals[1] != deals[2] != deals[0]
    assert deals == [actions_of(controls.shuffled(episodes, deal)) for deal in (0, 1, 2)]


def test_shuffled_actions_alone_differ_by_chance():
    drawn = [name for name in ("C1", "C2", "C3", "C4", "C5") if controls.find(name).drawn]
    assert drawn == [controls.TRAINED]
