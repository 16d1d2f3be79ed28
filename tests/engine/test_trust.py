"""Cautious sessions: truncated where the world is not to be trusted, or paying for its uncertainty."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from toy import Toy, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.sessions.lanes import Reset, Step
from simservice.types import TRUSTING, Caution

LANES, STEPS, HORIZON = 6, 30, 5
SPEC = toy_spec(max_episode_steps=20, trust_horizon_steps=HORIZON)


class Doubtful(Toy):
    """A toy that is the less sure the farther out it is."""

    def step(self, state, action, draws):
        after, out = super().step(state, action, draws)
        return after, out._replace(uncertainty=after["x"].abs().amax(-1).float())


def play(caution, mode=AutoresetMode.NEXT_STEP, beside=TRUSTING, spec=SPEC):
    """The steps of LANES cautious lanes, in the same ticks as as many others."""

    async def within():
        engine = Engine(Doubtful(spec, ToyConfig(growth=1.2, noise=0.2, bound=2.0)), capacity=32)
        engine.start()
        try:
            lanes = engine.allocate(LANES, mode, np.arange(LANES), caution)
            others = engine.allocate(LANES, mode, np.arange(LANES), beside)
            begun = [await engine.reset(part, Reset()) for part in (lanes, others)]
            action = Step({"action": np.ones(LANES, np.int64)})
            steps = []
            for _ in range(STEPS):
                both = engine.step(lanes, action), engine.step(others, action)
                steps.append([await one for one in both])
            return begun, [list(side) for side in zip(*steps, strict=True)]
        finally:
            engine.stop()

    return asyncio.run(within())


def same(one, other):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for a, b in zip(one, other, strict=True)
        for name in ("reward", "terminated", "truncated")
    )


def test_episodes_are_truncated_at_the_trust_horizon():
    _, (steps, others) = play(Caution(truncate_at_trust_horizon=True), AutoresetMode.SAME_STEP)
    age = np.zeros(LANES, int)
    for step in steps:
        age += 1
        assert np.array_equal(step.truncated, age == HORIZON)
        distrusted = step.infos["distrusted"].present if "distrusted" in step.infos else np.zeros(LANES, bool)
        assert np.array_equal(distrusted, step.truncated)
        age[step.terminated | step.truncated] = 0
    assert any(step.truncated.any() for step in steps)
    assert not any("distrusted" in step.infos for step in others)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_step_beyond_the_uncertainty_is_the_last_of_its_episode(mode):
    _, (steps, _) = play(Caution(max_uncertainty=1.0), mode)
    for step in steps:
        doubt = step.infos["uncertainty"]
        assert np.array_equal(step.truncated, doubt.present & (doubt.value > 1.0))
    assert any(step.truncated.any() for step in steps)
    if mode == AutoresetMode.NEXT_STEP:
        for step, following in pairwise(steps):
            assert (following.reward[step.truncated] == 0).all()  # the step that begins anew


def test_uncertainty_is_taken_off_the_reward_and_nothing_else_changes():
    _, (paying, free) = play(Caution(uncertainty_penalty=0.5))
    for one, other in zip(paying, free, strict=True):
        doubt = other.infos["uncertainty"]
        expected = other.reward - 0.5 * np.where(doubt.present, doubt.value, 0.0)
        np.testing.assert_allclose(one.reward, expected, rtol=1e-6)
        assert np.array_equal(one.terminated, other.terminated) and np.array_equal(one.truncated, other.truncated)


def test_neighbours_and_later_holders_of_the_lanes_are_not_cautious():
    _, (_, plain) = play(TRUSTING)
    _, (_, beside) = play(Caution(truncate_at_trust_horizon=True, max_uncertainty=0.7, uncertainty_penalty=2.0))
    assert same(plain, beside)

    async def within():
        engine = Engine(Doubtful(SPEC), capacity=LANES)
        engine.start()
        try:
            lanes = engine.allocate(LANES, AutoresetMode.NEXT_STEP, np.arange(LANES), Caution(max_uncertainty=1e-9))
            engine.release(lanes)
            lanes = engine.allocate(LANES, AutoresetMode.NEXT_STEP, np.arange(LANES))
            await engine.reset(lanes, Reset())
            return await engine.step(lanes, Step({"action": np.ones(LANES, np.int64)}))
        finally:
            engine.stop()

    assert not asyncio.run(within()).truncated.any()


def test_a_caution_that_never_bites_changes_nothing():
    _, (cautious, free) = play(Caution(max_uncertainty=1e9))
    assert same(cautious, free)
