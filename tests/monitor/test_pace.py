"""When the next probe is due, in numbers alone."""

from __future__ import annotations

import pytest

from simservice.monitor.pace import SPEED_UP, Pace, PaceConfig


def played_within(pace: Pace, seconds: float, steps: int = 20, suspicious: bool = False) -> int:
    """How many probes of so many steps are played."""
    now, count = 0.0, 0
    while now < seconds:
        if pace.wait_s(steps, now) == 0.0:
            pace.spend(steps, now)
            count += 1
        now += max(pace.next_in_s(steps, suspicious, 0.0, now), 1e-6)
    return count


def test_without_a_budget_probes_come_by_the_clock_and_faster_on_suspicion():
    assert played_within(Pace(PaceConfig(every_s=60)), 3600) == 60
    assert played_within(Pace(PaceConfig(every_s=60)), 3600, suspicious=True) == 60 * SPEED_UP


def test_a_budget_is_kept_however_suspicious_one_is():
    config = PaceConfig(every_s=60, steps_per_hour=400)
    for suspicious in (False, True):
        hours = 10
        played = played_within(Pace(config), hours * 3600, suspicious=suspicious)
        assert 20 * played <= 400 * (hours + 1)  # the full bucket at the beginning, and what the hours brought
        assert 20 * played >= 400 * hours * 0.9
    assert Pace(config).interval_s(20, True) == 180.0


def test_an_episode_longer_than_the_bucket_is_played_once_it_is_full():
    pace = Pace(PaceConfig(every_s=1, steps_per_hour=10))
    assert pace.wait_s(20, 0.0) == 0.0
    pace.spend(20, 0.0)
    assert pace.wait_s(20, 0.0) == pytest.approx(7200.0)


def test_a_burst_is_as_fast_as_suspicion_and_ends():
    pace = Pace(PaceConfig(every_s=80), burst=2)
    assert pace.next_in_s(20, False, 0.0, 0.0) == 10.0
    pace.burst = 0
    assert pace.next_in_s(20, False, 0.0, 0.0) == 80.0


def test_a_clock_that_goes_back_brings_no_steps():
    pace = Pace(PaceConfig(steps_per_hour=100), level=10.0, at=5000.0)
    assert pace.left(0.0) == 10.0
    pace.spend(5, 0.0)
    assert pace.left(0.0) == 5.0
