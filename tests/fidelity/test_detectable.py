"""What is said to be detectable is found, and what is far below it is not."""

from __future__ import annotations

import numpy as np
import pytest
from drift_streams import NOISY_CARTPOLE, Watch, watch_streams
from planted_worlds import Reality

from simservice.errors import InvalidInput
from simservice.fidelity.detectable import detectable_change

FORCE_EFFECT = np.array([0.182, 0.284])  # of the whole force on the two velocities in one step, upright


@pytest.fixture(scope="module")
def noisy() -> Watch:
    return Watch.fitted(NOISY_CARTPOLE, reference=540, calibration=300, seed=0)


def calm(watch: Watch):
    return watch.ground.play(100, "good", watch.ground.reality, np.random.default_rng(1))


def test_a_change_of_the_size_it_states_is_found_in_about_that_time_and_a_fifth_of_it_is_not(noisy):
    change = detectable_change(noisy.scorer, calm(noisy), 60, 3e6)
    share = 1.0 / np.linalg.norm(FORCE_EFFECT / change.observation[[1, 3]])
    assert 0.05 < share < 0.2

    def found(factor):
        reality = Reality(noise=0.1, force=1.0 - factor * share)
        return watch_streams(noisy, streams=12, probes=120, c=1e6, seed=5, reality=reality).found()

    assert found(1.0) >= 0.5
    assert found(0.2) <= 0.1


def test_more_probes_find_less_and_more_noise_hides_more(noisy):
    few, many = (detectable_change(noisy.scorer, calm(noisy), probes, 3e6) for probes in (100, 400))
    np.testing.assert_allclose(few.observation, 2 * many.observation)
    assert few.score_shift == pytest.approx(2 * many.score_shift)
    assert few.observation[1] > 100 * few.observation[0]  # only the velocities are noisy
    with pytest.raises(InvalidInput, match="at least 1"):
        detectable_change(noisy.scorer, calm(noisy), 0, 3e6)
