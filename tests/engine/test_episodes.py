"""Ends and beginnings of episodes: exactly Gymnasium's vector environments, in all three autoreset modes."""

import asyncio

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy import Toy, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.errors import InternalError, InvalidInput, NeedsReset
from simservice.sessions.lanes import Reset, Step
from simservice.types import Context
from simservice.worlds.noise import lane_draws

LANES = 6
CONFIG = ToyConfig(growth=1.2, noise=0.2, bound=2.0)
SPEC = toy_spec(max_episode_steps=7, trust_horizon_steps=5)


class ToyEnv(gym.Env):
    """The toy as an ordinary environment, one lane at a time, with the luck that a lane of that seed has."""

    observation_space, action_space = SPEC.observation_space, SPEC.action_space

    def __init__(self):
        self.world = Toy(SPEC, CONFIG)

    def luck(self, call):
        numbers = lane_draws(
            self.world.draws[call], torch.full((16,), self.lane_seed), torch.full((16,), self.counter), call
        )
        self.counter += 1
        return numbers

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.lane_seed, self.counter = seed, 0
        self.state = self.world.init(self.luck("init"))
        return self.world.emit(self.state)["observation"][0].numpy(), {}

    def step(self, action):
        actions = {"action": torch.full((16,), int(action))}
        self.state, out = self.world.step(self.state, actions, self.luck("step"))
        observation = self.world.emit(self.state)["observation"][0].numpy()
        return observation, float(out.reward[0]), bool(out.terminated[0]), False, {}


def play(scenario, *, mode=AutoresetMode.NEXT_STEP, lanes=LANES, spec=SPEC, config=CONFIG):
    """Runs a coroutine function (engine, lanes) over fresh lanes that were never reset."""

    async def within():
        engine = Engine(Toy(spec, config), capacity=32)
        engine.start()
        try:
            return await scenario(engine, engine.allocate(lanes, mode, np.arange(lanes)))
        finally:
            engine.stop()

    return asyncio.run(within())


def some_actions(steps, lanes=LANES):
    return np.random.default_rng(3).integers(0, 3, (steps, lanes))


def act(actions):
    return Step({"action": np.asarray(actions, dtype=np.int64)})


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_served_world_steps_as_gymnasiums_vector_environment_does(mode):
    steps = 60
    limited = [lambda: gym.wrappers.TimeLimit(ToyEnv(), SPEC.max_episode_steps)] * LANES
    reference = SyncVectorEnv(limited, autoreset_mode=mode)
    seeds = np.arange(100, 100 + LANES)

    async def scenario(engine, lanes):
        served = await engine.reset(lanes, Reset(seeds=seeds))
        expected, _ = reference.reset(seed=seeds.tolist())
        assert np.array_equal(served.observation["observation"], expected)
        ends = np.zeros(2, dtype=int)
        for actions in some_actions(steps):
            served = await engine.step(lanes, act(actions))
            observation, reward, terminated, truncated, infos = reference.step(actions)
            assert np.array_equal(served.observation["observation"], observation)
            assert np.array_equal(served.reward, reward)
            assert np.array_equal(served.terminated, terminated)
            assert np.array_equal(served.truncated, truncated)
            ends += terminated.sum(), truncated.sum()
            if "final_obs" in infos:
                assert np.array_equal(served.final, infos["_final_obs"])
                for lane in np.flatnonzero(served.final):
                    assert np.array_equal(served.final_observation["observation"][lane], infos["final_obs"][lane])
                assert not served.final_observation["observation"][~served.final].any()
            else:
                assert served.final is None and served.final_observation is None
        assert ends.min() > 3, "both kinds of end must have been seen"

    play(scenario, mode=mode)


def test_disabled_refuses_ended_lanes_before_anything_is_done_and_goes_on_after_a_masked_reset():
    async def scenario(engine, lanes):
        await engine.reset(lanes, Reset(seeds=np.arange(LANES)))
        while True:
            result = await engine.step(lanes, act(np.ones(LANES)))
            over = result.terminated | result.truncated
            if over.any() and not over.all():
                break
        before = await engine.snapshot(lanes)
        refused = engine.step(lanes, act(np.ones(LANES)))
        assert refused.done(), "refused at once, so that nobody journals it"
        named = ", ".join(map(str, np.flatnonzero(over)))
        with pytest.raises(NeedsReset, match=rf"environment\(s\) {named} must be reset"):
            await refused
        assert await engine.snapshot(lanes) == before
        reset = await engine.reset(lanes, Reset(mask=over))
        assert np.array_equal(reset.observation["observation"][~over], result.observation["observation"][~over])
        assert not np.array_equal(reset.observation["observation"][over], result.observation["observation"][over])
        await engine.step(lanes, act(np.ones(LANES)))

    play(scenario, mode=AutoresetMode.DISABLED)


def test_a_refusal_that_shows_only_in_the_tick_changes_no_lane():
    async def scenario(engine, lanes):
        spec_steps = SPEC.max_episode_steps
        pipelined = [engine.reset(lanes, Reset())] + [engine.step(lanes, act(np.ones(2))) for _ in range(spec_steps)]
        late = engine.step(lanes, act(np.ones(2)))  # handed in before anyone knows that the lanes will have ended
        await asyncio.gather(*pipelined)
        ended = await engine.snapshot(lanes)
        with pytest.raises(NeedsReset):
            await late
        assert await engine.snapshot(lanes) == ended

    calm = ToyConfig(growth=0.9)
    play(scenario, mode=AutoresetMode.DISABLED, lanes=2, config=calm)


def test_lanes_that_were_never_reset_are_refused():
    async def scenario(engine, lanes):
        with pytest.raises(NeedsReset, match="0, 1"):
            await engine.step(lanes, act([0, 0]))
        with pytest.raises(NeedsReset, match="1 must"):
            await engine.reset(lanes, Reset(mask=np.array([True, False])))
        await engine.reset(lanes, Reset())
        await engine.reset(lanes, Reset(mask=np.array([True, False])))

    play(scenario, lanes=2)


def test_termination_and_time_limit_in_one_step_are_both_told():
    # Pushed outwards from |x| < 0.1 by 0.1 a step: beyond 0.65 after 7 steps at the latest, after 6 at the earliest.
    spec = toy_spec(max_episode_steps=3)
    config = ToyConfig(growth=1.0, push=1.0, start=0.01, bound=2.5)

    async def scenario(engine, lanes):
        await engine.reset(lanes, Reset())
        for _ in range(2):
            result = await engine.step(lanes, act([2, 2]))
            assert not (result.terminated | result.truncated).any()
        result = await engine.step(lanes, act([2, 1]))
        assert result.terminated.tolist() == [True, False]
        assert result.truncated.tolist() == [True, True]

    play(scenario, lanes=2, spec=spec, config=config)


def test_a_step_gives_the_known_answer():
    async def scenario(engine, lanes):
        x = (await engine.reset(lanes, Reset())).observation["observation"].astype(np.float64)
        result = await engine.step(lanes, act([0, 1, 2]))
        expected = 1.05 * x + 0.1 * np.array([[-1.0], [0.0], [1.0]])
        assert np.allclose(result.observation["observation"], expected, atol=1e-6)
        assert np.allclose(result.reward, expected.sum(1), atol=1e-5)
        assert result.observation["observation"].dtype == np.float32
        assert result.reward.dtype == np.float64

    play(scenario, lanes=3, config=ToyConfig())


def test_infos_tell_uncertainty_of_steps_and_the_trust_horizon_of_beginnings():
    async def scenario(engine, lanes):
        begun = await engine.reset(lanes, Reset())
        assert begun.infos["trust_horizon"].value.tolist() == [5, 5]
        assert "uncertainty" not in begun.infos
        for _ in range(SPEC.max_episode_steps):
            result = await engine.step(lanes, act([1, 1]))
            assert "trust_horizon" not in result.infos
            assert result.infos["uncertainty"].value.tolist() == [0.0, 0.0]
        again = await engine.step(lanes, act([1, 1]))
        assert again.infos["trust_horizon"].present.tolist() == [True, True]
        assert "uncertainty" not in again.infos

    play(scenario, lanes=2, config=ToyConfig(growth=0.9))


def test_a_world_that_gives_nan_ends_that_lane_alone():
    config = ToyConfig(growth=1.0, push=0.1, start=0.01, broken_above=0.25)

    async def scenario(engine, lanes):
        await engine.reset(lanes, Reset())
        for _ in range(2):
            good = await engine.step(lanes, act([2, 1]))
        broken = await engine.step(lanes, act([2, 1]))
        assert broken.truncated.tolist() == [True, False]
        assert broken.terminated.tolist() == [False, False]
        assert broken.reward[0] == 0.0
        assert broken.infos["world_error"].value.tolist() == [True, False]
        assert broken.infos["world_error"].present.tolist() == [True, False]
        assert np.array_equal(broken.observation["observation"][0], good.observation["observation"][0])
        assert np.isfinite(broken.observation["observation"]).all()
        fresh = await engine.step(lanes, act([2, 1]))
        assert "world_error" not in fresh.infos
        assert np.abs(fresh.observation["observation"][0]).max() < 0.011, "a new episode has begun"
        assert engine.stats().world_errors == 1

    play(scenario, lanes=2, config=config)


def test_a_world_that_cannot_even_start_is_our_fault_and_harms_no_other_session():
    async def scenario(engine, lanes):
        healthy, doomed = lanes[:1], lanes[1:]
        await engine.reset(healthy, Reset(context=grounding([[0.1] * 4])))
        both = engine.step(healthy, act([1])), engine.reset(doomed, Reset(context=grounding([[0.9] * 4])))
        stepped, failed = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(failed, InternalError)
        assert "first observation that is not finite" in str(failed)
        assert np.isfinite(stepped.observation["observation"]).all()
        assert "world_error" not in stepped.infos

    play(scenario, lanes=2, config=ToyConfig(broken_above=0.5, start=0.1))


def grounding(frames):
    return Context({"observation": np.array([frames], dtype=np.float32)}, {"action": np.zeros((1, 0), np.int64)})


def test_a_context_starts_lanes_where_reality_was():
    frames = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4) / 100

    async def scenario(engine, lanes):
        context = Context({"observation": frames}, {"action": np.ones((2, 2), np.int64)})
        result = await engine.reset(lanes, Reset(context=context))
        assert np.array_equal(result.observation["observation"], frames[:, -1])
        moved = await engine.step(lanes, act([1, 1]))
        assert np.allclose(moved.observation["observation"], frames[:, -1] * 1.05, atol=1e-6)

    play(scenario, lanes=2, config=ToyConfig())


def test_a_context_grounds_only_the_lanes_of_the_mask():
    frames = np.full((2, 1, 4), 0.25, np.float32)

    async def scenario(engine, lanes):
        before = await engine.reset(lanes, Reset())
        context = Context({"observation": frames}, {"action": np.zeros((2, 0), np.int64)})
        result = await engine.reset(lanes, Reset(mask=np.array([False, True]), context=context))
        assert np.array_equal(result.observation["observation"][0], before.observation["observation"][0])
        assert np.array_equal(result.observation["observation"][1], frames[1, 0])

    play(scenario, lanes=2)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Reset(options={"speed": 2, "colour": 1}), "options: unknown: 'colour', 'speed'"),
        (Reset(mask=np.zeros(2, bool)), "mask: selects no lane"),
        (Reset(mask=np.ones(3, bool)), "mask: must be 2 booleans"),
        (Reset(seeds=np.zeros(1, np.int64)), "seeds: must be 2 integers"),
        (
            Reset(context=Context({"observation": np.zeros((2, 1, 3), np.float32)}, {"action": np.zeros((2, 0), int)})),
            r"observation: expected float32 of shape \(2, 1, 4\), got float32 of shape \(2, 1, 3\)",
        ),
    ],
)
def test_a_wrong_reset_is_refused_by_name_and_changes_nothing(command, message):
    async def scenario(engine, lanes):
        await engine.reset(lanes, Reset())
        before = await engine.snapshot(lanes)
        refused = engine.reset(lanes, command)
        assert refused.done()
        with pytest.raises(InvalidInput, match=message):
            await refused
        assert await engine.snapshot(lanes) == before

    play(scenario, lanes=2)


def test_a_world_that_cannot_be_grounded_says_so():
    async def scenario(engine, lanes):
        context = Context({"observation": np.zeros((1, 1, 4), np.float32)}, {"action": np.zeros((1, 0), np.int64)})
        with pytest.raises(InvalidInput, match="cannot be grounded in real observations"):
            await engine.reset(lanes, Reset(context=context))

    play(scenario, lanes=1, spec=toy_spec(capabilities=frozenset({"reward", "termination"})))
