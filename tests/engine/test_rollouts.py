"""Rollouts: the bits of stepping, luck of their own, lanes that stop, answers in parts, and nobody kept waiting."""

import asyncio
import threading
import time

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from pilots import LinearPolicy
from toy import Toy, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    InvalidPolicy,
    NeedsReset,
    RolloutLimitExceeded,
)
from simservice.protocol.imagine import joined
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.settings import RolloutLimits
from simservice.types import TRUSTING, Caution, Imagine, PolicyUse

ON_A_DEVICE = pytest.param(
    "on a device",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
)
LANES, STEPS = 6, 40
DEVICE = "cpu"


@pytest.fixture(params=["on the CPU", "as on a device", ON_A_DEVICE], autouse=True)
def where_worlds_run(request, monkeypatch):
    """Every test holds for all; what is captured on a device is called line by line on the CPU."""
    monkeypatch.setattr(f"{__name__}.DEVICE", "cuda" if request.param == "on a device" else "cpu")
    if request.param == "as on a device":
        monkeypatch.setattr("simservice.engine.engine.GRAPHED", frozenset({"cpu"}))


MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
NOISY = ToyConfig(noise=0.2, bound=2.0)
SPEC = toy_spec(max_episode_steps=9, trust_horizon_steps=6)
BOX = toy_spec(action_space=spaces.Box(-2, 1, (2,), np.float32), max_episode_steps=9)
BY_POLICY = PolicyUse(content_hash="0" * 64)


def run(scenario, *, world=None, capacity=64, **arguments):
    """Runs a coroutine function with a started engine."""

    async def within():
        engine = Engine(world or Toy(SPEC, NOISY), capacity=capacity, device=DEVICE, **arguments)
        engine.start()
        try:
            return await asyncio.wait_for(scenario(engine), 60)
        finally:
            engine.stop()

    return asyncio.run(within())


def skip_where_worlds_are_graphs():
    """What a world does in Python is not done again by its graph."""
    if DEVICE == "cuda":
        pytest.skip("a graph runs no Python")


async def begun(engine, count=LANES, mode=AutoresetMode.NEXT_STEP, caution=TRUSTING, first_seed=0):
    lanes = engine.allocate(count, mode, np.arange(first_seed, first_seed + count), caution)
    await engine.reset(lanes, Reset())
    return lanes


def script(steps=STEPS, lanes=LANES, seed=0):
    return {"action": np.random.default_rng(seed).integers(0, 3, (steps, lanes))}


async def played(engine, lanes, command, policy=None, before=None):
    rollout = engine.imagine(lanes, command, policy, before)
    return joined([part async for part in rollout]), rollout


async def stepped(engine, lanes, actions):
    path, rows = next(iter(actions.items()))
    return [await engine.step(lanes, Step({path: row})) for row in rows]


def assert_same(imagined, steps):
    """The rollout holds the bits of these steps."""
    stack = lambda name: np.stack([getattr(step, name) for step in steps])  # noqa: E731
    for name in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(imagined, name), stack(name), err_msg=name)
    observation = np.stack([step.observation["observation"] for step in steps])
    np.testing.assert_array_equal(imagined.observation["observation"], observation)
    for name in ("distrusted", "world_error"):
        rows = [step.infos[name].present if name in step.infos else np.zeros(LANES, bool) for step in steps]
        found = getattr(imagined, name)
        np.testing.assert_array_equal(np.zeros_like(imagined.terminated) if found is None else found, np.stack(rows))
    uncertain = [
        step.infos["uncertainty"].value if "uncertainty" in step.infos else np.full(LANES, np.nan) for step in steps
    ]
    np.testing.assert_array_equal(imagined.uncertainty, np.stack(uncertain))
    finals = [step.final if step.final is not None else np.zeros(LANES, bool) for step in steps]
    if imagined.final is None:
        assert not np.any(finals)
    else:
        np.testing.assert_array_equal(imagined.final, np.stack(finals))
        last = [step.final_observation["observation"][step.final] for step in steps if step.final is not None]
        np.testing.assert_array_equal(imagined.final_observation["observation"], np.concatenate(last))


# ---- the bits of stepping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("caution", [TRUSTING, Caution(truncate_at_trust_horizon=True)], ids=["trusting", "cautious"])
@pytest.mark.parametrize("mode", MODES)
def test_an_open_loop_gives_the_bits_of_its_steps_and_leaves_its_lanes_where_they_would_be(mode, caution):

    async def scenario(engine):
        mine, twins = await begun(engine, mode=mode, caution=caution), await begun(engine, mode=mode, caution=caution)
        for seed in range(3):
            actions = script(seed=seed)
            imagined, rollout = await played(engine, mine, Imagine(steps=STEPS, actions=actions, advance=True))
            await engine.commit(mine, rollout)
            assert_same(imagined, await stepped(engine, twins, actions))
            assert await engine.snapshot(mine) == await engine.snapshot(twins)
        assert imagined.terminated.any() and imagined.truncated.any()
        assert (imagined.began is not None) == (mode is AutoresetMode.NEXT_STEP)
        assert (imagined.distrusted is not None) == (caution != TRUSTING)

    run(scenario)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("distribution", "spec"),
    [("categorical", SPEC), ("epsilon_greedy", SPEC), ("gaussian", BOX), ("squashed_gaussian", BOX)],
)
def test_a_closed_loop_gives_the_bits_of_stepping_with_the_actions_it_returned(mode, distribution, spec):
    async def scenario(engine):
        mine, twins = await begun(engine, mode=mode), await begun(engine, mode=mode)
        use = PolicyUse(content_hash="0" * 64, epsilon=0.3)
        policy = LinearPolicy(distribution)
        imagined, rollout = await played(engine, mine, Imagine(steps=STEPS, policy=use, advance=True), policy)
        await engine.commit(mine, rollout)
        assert_same(imagined, await stepped(engine, twins, imagined.action))
        assert await engine.snapshot(mine) == await engine.snapshot(twins)
        assert policy.calls == STEPS
        assert len(np.unique(imagined.action["action"])) > 1
        before = np.concatenate([imagined.start["observation"][None], imagined.observation["observation"][:-1]])
        np.testing.assert_allclose(imagined.outputs[policy.head], before @ policy.weights, rtol=1e-5, atol=1e-6)
        assert imagined.log_probability.shape == imagined.outputs["value"].shape == (STEPS, LANES)
        assert ("raw_action" in imagined.outputs) == (spec is BOX)

    run(scenario, world=Toy(spec, NOISY))


def test_a_broken_world_breaks_a_rollout_as_it_breaks_steps():
    async def scenario(engine):
        mine, twins = await begun(engine), await begun(engine)
        actions = {"action": np.full((STEPS, LANES), 2)}
        imagined, _ = await played(engine, mine, Imagine(steps=STEPS, actions=actions, advance=True))
        assert_same(imagined, await stepped(engine, twins, actions))
        assert imagined.world_error.any()

    run(scenario, world=Toy(SPEC, ToyConfig(broken_above=1.0)))


class Unsure(Toy):
    """Knows how sure it is of some steps of some lanes, or of none."""

    known_above = 0.5

    def step(self, state, action, draws):
        after, out = super().step(state, action, draws)
        sure = after["x"].sum(-1)
        return after, out._replace(uncertainty=torch.where(sure > self.known_above, sure, torch.nan).float())


@pytest.mark.parametrize("known_above", [0.5, np.inf], ids=["of some steps", "of none"])
def test_uncertainty_is_that_of_steps_and_none_where_nobody_knows_any(monkeypatch, known_above):
    monkeypatch.setattr(Unsure, "known_above", known_above)

    async def scenario(engine):
        mine, twins = await begun(engine), await begun(engine)
        imagined, _ = await played(engine, mine, Imagine(steps=STEPS, actions=script()))
        steps = await stepped(engine, twins, script())
        if known_above == np.inf:
            assert imagined.uncertainty is None
            assert not any("uncertainty" in step.infos for step in steps)
        else:
            assert_same(imagined, steps)
            assert 0 < np.isnan(imagined.uncertainty).sum() < imagined.uncertainty.size

    run(scenario, world=Unsure(SPEC, NOISY))


# ---- luck ----------------------------------------------------------------------------------------------------------


def test_a_lanes_rollout_does_not_depend_on_who_plays_it_too():
    async def scenario(engine):
        lanes = await begun(engine, 20)
        alone = Imagine(steps=STEPS, policy=BY_POLICY, lanes=np.array([3, 11]))
        two, _ = await played(engine, lanes, alone, LinearPolicy())
        whole, _ = await played(engine, lanes, Imagine(steps=STEPS, policy=BY_POLICY), LinearPolicy())
        np.testing.assert_array_equal(two.action["action"], whole.action["action"][:, [3, 11]])
        np.testing.assert_array_equal(two.observation["observation"], whole.observation["observation"][:, [3, 11]])

    run(scenario)


def test_copies_share_their_lanes_luck_or_have_seeds_of_their_own():
    async def scenario(engine):
        lanes = await begun(engine, 2)
        command = dict(steps=STEPS, policy=BY_POLICY, copies=3)
        same, _ = await played(engine, lanes, Imagine(**command), LinearPolicy())
        for lane in range(2):
            copies = same.observation["observation"][:, 3 * lane : 3 * lane + 3]
            assert (copies == copies[:, :1]).all()
        seeds = np.arange(6)
        one, _ = await played(engine, lanes, Imagine(**command, fresh=True, seeds=seeds), LinearPolicy())
        two, _ = await played(engine, lanes, Imagine(**command, fresh=True, seeds=seeds), LinearPolicy())
        drawn, _ = await played(engine, lanes, Imagine(**command, fresh=True), LinearPolicy())
        np.testing.assert_array_equal(one.reward, two.reward)
        assert len(np.unique(one.reward[0])) == 6
        assert (one.reward[0] != drawn.reward[0]).all()

    run(scenario)


def test_exploration_is_apart_from_the_worlds_luck():
    """Whether a policy explores or not, the same actions see the same world."""

    async def scenario(engine):
        lanes = await begun(engine)
        greedy = Imagine(steps=1, policy=PolicyUse(content_hash="0" * 64, greedy=True))
        sure, _ = await played(engine, lanes, greedy, LinearPolicy(scale=100.0))
        explored, _ = await played(engine, lanes, Imagine(steps=1, policy=BY_POLICY), LinearPolicy(scale=100.0))
        np.testing.assert_array_equal(sure.action["action"], explored.action["action"])
        np.testing.assert_array_equal(sure.observation["observation"], explored.observation["observation"])
        assert not sure.log_probability.any()

    run(scenario)


# ---- what if -------------------------------------------------------------------------------------------------------


def test_what_if_leaves_the_lanes_as_they_are():
    async def scenario(engine):
        lanes = await begun(engine)
        before = await engine.snapshot(lanes)
        for command in (Imagine(steps=STEPS, actions=script()), Imagine(steps=STEPS, policy=BY_POLICY, copies=5)):
            _, rollout = await played(engine, lanes, command, LinearPolicy())
            assert rollout.before is None and rollout.after is None
        assert await engine.snapshot(lanes) == before

    run(scenario)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_lanes_stop_at_the_end_of_their_episodes_where_that_is_asked_for(mode):
    async def scenario(engine):
        lanes = await begun(engine, mode=mode)
        command = Imagine(steps=STEPS, actions=script(), stop_at_end=mode is not AutoresetMode.DISABLED)
        imagined, _ = await played(engine, lanes, command)
        over = imagined.terminated | imagined.truncated
        assert (over.sum(axis=0) == 1).all()
        after = np.cumsum(over, axis=0) - over > 0
        np.testing.assert_array_equal(imagined.stopped, after)
        assert not imagined.reward[after].any() and not imagined.observation["observation"][after].any()
        assert np.isnan(imagined.uncertainty[after]).all()
        assert imagined.began is None and imagined.final is None

    run(scenario)


def test_a_session_without_autoreset_advances_to_where_its_lanes_stopped():
    async def scenario(engine):
        lanes = await begun(engine, mode=AutoresetMode.DISABLED)
        imagined, rollout = await played(engine, lanes, Imagine(steps=STEPS, actions=script(), advance=True))
        await engine.commit(lanes, rollout)
        with pytest.raises(NeedsReset):
            await engine.step(lanes, Step({"action": np.ones(LANES, np.int64)}))
        again, _ = await played(engine, lanes, Imagine(steps=3, actions=script(3), advance=True))
        assert again.stopped.all() and not again.reward.any()
        assert imagined.stopped.any()

    run(scenario)


class Emitting(Toy):
    """Counts its observations, and those that were made of few rows."""

    emitted = 0
    graphed = False

    def emit(self, state):
        self.emitted += 1
        return super().emit(state)


def test_planners_pay_for_no_observation(request):
    async def scenario(engine):
        engine.world.graphed = "device" in request.node.name
        lanes = await begun(engine)
        full, _ = await played(engine, lanes, Imagine(steps=STEPS, actions=script(), stop_at_end=True))
        before = engine.world.emitted
        command = Imagine(steps=STEPS, actions=script(), stop_at_end=True, observation=False)
        bare, _ = await played(engine, lanes, command)
        assert engine.world.emitted == before or engine.world.graphed  # a graph holds all that a step may show
        assert bare.observation is None and bare.start is None
        np.testing.assert_array_equal(bare.reward, full.reward)
        np.testing.assert_array_equal(bare.terminated, full.terminated)

    run(scenario, world=Emitting(SPEC, NOISY))


def test_what_is_not_wanted_is_left_out():
    async def scenario(engine):
        lanes = await begun(engine, mode=AutoresetMode.SAME_STEP)
        command = Imagine(steps=STEPS, policy=BY_POLICY, observation=False, action=False, outputs=False)
        bare, _ = await played(engine, lanes, command, LinearPolicy())
        full, _ = await played(engine, lanes, Imagine(steps=STEPS, policy=BY_POLICY), LinearPolicy())
        assert (bare.observation, bare.start, bare.action, bare.outputs, bare.final_observation) == (None,) * 5
        for name in ("reward", "final", "log_probability"):
            np.testing.assert_array_equal(getattr(bare, name), getattr(full, name))

    run(scenario)


# ---- again -----------------------------------------------------------------------------------------------------------


def test_it_is_played_again_from_what_the_lanes_were():
    async def scenario(engine):
        lanes = await begun(engine)
        command = Imagine(steps=STEPS, policy=BY_POLICY, advance=True)
        first, rollout = await played(engine, lanes, command, LinearPolicy())
        await engine.commit(lanes, rollout)
        after = await engine.snapshot(lanes)
        again, _ = await played(engine, lanes, command, LinearPolicy(), rollout.before)
        for name in ("reward", "terminated", "truncated", "began", "log_probability"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        np.testing.assert_array_equal(again.observation["observation"], first.observation["observation"])
        assert await engine.snapshot(lanes) == after

    run(scenario)


# ---- parts, neighbours, ends -------------------------------------------------------------------------------------


def test_more_lanes_than_one_batch_holds_are_played_in_several():
    async def scenario(engine):
        lanes = await begun(engine, 40)
        wide, _ = await played(engine, lanes, Imagine(steps=9, policy=BY_POLICY, copies=8), LinearPolicy())
        narrow, _ = await played(engine, lanes, Imagine(steps=9, policy=BY_POLICY), LinearPolicy())
        assert max(engine.stats().batches) == 64
        np.testing.assert_array_equal(wide.reward[:, ::8], narrow.reward)
        np.testing.assert_array_equal(wide.observation["observation"][:, 7::8], narrow.observation["observation"])

    run(scenario, buckets=(16, 64))


def test_where_no_graphs_can_be_made_rollouts_are_played_without(monkeypatch):
    async def scenario(engine):
        lanes = await begun(engine)
        command = Imagine(steps=9, policy=BY_POLICY)
        first, _ = await played(engine, lanes, command, LinearPolicy())
        engine._imagination._stages._waiting.clear()
        monkeypatch.setattr("simservice.engine.runner.Runner.prepare_graphs", full)
        second, _ = await played(engine, lanes, command, LinearPolicy())
        np.testing.assert_array_equal(first.observation["observation"], second.observation["observation"])

    def full(self):
        raise RuntimeError("out of memory")

    run(scenario)


def test_a_large_answer_comes_in_parts_of_about_a_mebibyte():
    async def scenario(engine):
        lanes = await begun(engine, 64)
        rollout = engine.imagine(lanes, Imagine(steps=200, policy=BY_POLICY, copies=16), LinearPolicy())
        parts = [part async for part in rollout]
        assert [part.first for part in parts] == list(np.cumsum([0, *map(len, parts[:-1])]))
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
        assert sum(map(len, parts)) == 200
        assert 4 < len(parts) < 60
        assert max(len(part) * 1024 * 60 for part in parts) < 2 * 2**20
        whole, _ = await played(engine, lanes, Imagine(steps=200, policy=BY_POLICY), LinearPolicy())
        np.testing.assert_array_equal(joined(parts).reward[:, ::16], whole.reward)

    run(scenario)


class Slow(Toy):
    """Takes five milliseconds a step."""

    def step(self, state, action, draws):
        time.sleep(0.005)
        return super().step(state, action, draws)


def test_steps_of_others_go_between_the_steps_of_a_rollout():
    skip_where_worlds_are_graphs()

    async def scenario(engine):
        mine, theirs = await begun(engine), await begun(engine, first_seed=100)
        rollout = engine.imagine(mine, Imagine(steps=100, actions=script(100)))
        listening = asyncio.ensure_future(anext(rollout))
        for _ in range(20):
            await engine.step(theirs, Step({"action": np.ones(LANES, np.int64)}))
        assert not rollout._end.done()
        rollout.stop()
        with pytest.raises(DeadlineExceeded, match="had not ended"):
            while True:
                await listening
                listening = asyncio.ensure_future(anext(rollout))

    run(scenario, world=Slow(SPEC, NOISY))


def test_a_policy_that_hangs_keeps_nobody_elses_steps():
    async def scenario(engine):
        mine, theirs = await begun(engine), await begun(engine, first_seed=100)
        policy = LinearPolicy()
        policy.hold = threading.Event()
        rollout = engine.imagine(mine, Imagine(steps=STEPS, policy=BY_POLICY), policy)
        for _ in range(50):
            await engine.step(theirs, Step({"action": np.ones(LANES, np.int64)}))
        assert not rollout._end.done()
        policy.hold.set()
        assert (await anext(rollout)).last

    run(scenario)


def test_a_rollout_whose_lanes_are_given_back_ends_and_the_next_owner_finds_them_clean():
    async def scenario(engine):
        lanes = await begun(engine)
        policy = LinearPolicy()
        policy.hold = threading.Event()
        rollout = engine.imagine(lanes, Imagine(steps=STEPS, policy=BY_POLICY, advance=True), policy)
        await asyncio.sleep(0)
        engine.release(lanes)
        policy.hold.set()
        with pytest.raises(InternalError, match="has ended"):
            await anext(rollout)
        await begun(engine)
        again, _ = await played(engine, lanes, Imagine(steps=1, actions=script(1)))
        assert not again.terminated.any()

    run(scenario)


def test_one_that_nobody_waits_for_stops_and_its_lanes_stay():
    async def scenario(engine):
        lanes = await begun(engine)
        before = await engine.snapshot(lanes)
        policy = LinearPolicy()
        policy.hold = threading.Event()
        rollout = engine.imagine(lanes, Imagine(steps=4000, policy=BY_POLICY, advance=True), policy)
        engine.abandon(lanes)
        policy.hold.set()
        with pytest.raises(DeadlineExceeded):
            await anext(rollout)
        assert policy.calls <= 1
        assert await engine.snapshot(lanes) == before
        assert (await engine.step(lanes, Step({"action": np.ones(LANES, np.int64)}))).reward.shape == (LANES,)

    run(scenario)


def test_a_listener_that_is_slow_makes_the_rollout_wait():
    async def scenario(engine):
        lanes = await begun(engine, 64)
        policy = LinearPolicy()
        rollout = engine.imagine(lanes, Imagine(steps=2000, policy=BY_POLICY, copies=16), policy)
        await anext(rollout)
        calls = -1
        while policy.calls > calls:  # until it goes no further
            calls = policy.calls
            await asyncio.sleep(0.2)
        assert policy.calls < 1000
        rollout.stop()

    run(scenario)


class Failing(Toy):
    """Raises once it is told to."""

    failing = False

    def step(self, state, action, draws):
        if self.failing:
            raise RuntimeError("no")
        return super().step(state, action, draws)


def test_a_world_that_raises_ends_the_rollout_and_nothing_else():
    skip_where_worlds_are_graphs()

    async def scenario(engine):
        lanes = await begun(engine)
        before = await engine.snapshot(lanes)
        engine.world.failing = True
        with pytest.raises(InternalError, match="RuntimeError"):
            await played(engine, lanes, Imagine(steps=9, actions=script(9), advance=True))
        assert engine.running
        assert await engine.snapshot(lanes) == before

    run(scenario, world=Failing(SPEC, NOISY))


def test_rows_that_cannot_be_handed_over_end_the_rollout_and_nothing_else(monkeypatch):
    """A device that is full, say."""

    def played_out(stage, count):
        raise RuntimeError("out of memory")

    async def scenario(engine):
        lanes = await begun(engine)
        with pytest.raises(InternalError, match="RuntimeError"):
            await played(engine, lanes, Imagine(steps=9, actions=script(9), advance=True))
        monkeypatch.undo()
        await asyncio.wait_for(played(engine, lanes, Imagine(steps=9, actions=script(9), advance=True)), 10)

    monkeypatch.setattr("simservice.engine.stages.Stage.played", played_out)
    run(scenario)


def test_one_that_begins_as_the_engine_ends_is_told_of_it():
    async def scenario(engine):
        lanes = await begun(engine)
        await played(engine, lanes, Imagine(steps=1, actions=script(1)))  # there are threads now, which end
        rollout = engine.imagine(lanes, Imagine(steps=9, actions=script(9)))
        engine.stop()
        with pytest.raises(InternalError, match="is stopped"):
            await asyncio.wait_for(anext(rollout), 10)

    run(scenario)


def test_a_policy_that_gives_no_numbers_is_told_as_such():
    async def scenario(engine):
        lanes = await begun(engine)
        policy = LinearPolicy()
        policy.weights[:] = np.nan
        with pytest.raises(InvalidPolicy, match="NaN"):
            await played(engine, lanes, Imagine(steps=9, policy=BY_POLICY), policy)

    run(scenario)


# ---- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(actions=None), InvalidInput, "driver"),
        (dict(steps=0), InvalidInput, "steps"),
        (dict(steps=4), InvalidInput, r"shape \(4, 6\), got int64 of shape \(3, 6\)"),
        (dict(copies=0), InvalidInput, "copies"),
        (dict(lanes=np.array([0, 0])), InvalidInput, "named twice"),
        (dict(lanes=np.array([6])), InvalidInput, "some of 0 to 5"),
        (dict(seeds=np.arange(6)), InvalidInput, "fresh luck"),
        (dict(fresh=True, seeds=np.arange(5)), InvalidInput, "fresh luck"),
        (dict(advance=True, copies=2), InvalidInput, "copies"),
        (dict(advance=True, lanes=np.arange(6)), InvalidInput, "lanes"),
        (dict(advance=True, fresh=True), InvalidInput, "luck"),
        (dict(advance=True, stop_at_end=True), InvalidInput, "stop_at_end"),
        (dict(steps=51), RolloutLimitExceeded, "50 steps, 51 were asked for"),
        (dict(copies=3), RolloutLimitExceeded, "12 lanes, 18 were asked for"),
        (dict(steps=40, actions=script(40)), RolloutLimitExceeded, "5000 bytes, 7200 were asked for"),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_field_or_its_numbers(change, error, message):
    async def scenario(engine):
        lanes = await begun(engine)
        command = Imagine(**{"steps": 3, "actions": script(3), **change})
        with pytest.raises(error, match=message) as caught:
            engine.imagine(lanes, command)
        assert caught.value.recoverable
        await played(engine, lanes, Imagine(steps=3, actions=script(3)))

    run(scenario, rollout_limits=RolloutLimits(50, 12, 5000))


def test_lanes_that_were_never_reset_are_named():
    async def scenario(engine):
        lanes = engine.allocate(LANES, AutoresetMode.NEXT_STEP, np.arange(LANES))
        await engine.reset(lanes, Reset())
        fresh = engine.allocate(LANES, AutoresetMode.NEXT_STEP, np.arange(LANES))
        with pytest.raises(NeedsReset, match="0, 1, 2, 3, 4, 5"):
            engine.imagine(fresh, Imagine(steps=3, actions=script(3)))

    run(scenario)
