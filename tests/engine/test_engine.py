"""The thread: one tick for all that has arrived, lanes whose future is their own, snapshots, failures, ends."""

import asyncio
import threading

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from toy import Toy, ToyConfig, toy_spec

import simservice.engine.engine
from simservice.engine import rounding
from simservice.engine.engine import Engine
from simservice.errors import CapacityExhausted, DeadlineExceeded, InternalError, InvalidInput, ModelRetired, NeedsReset
from simservice.sessions.lanes import Reset, Step

NOISY = ToyConfig(noise=0.1, growth=0.95)


ON_A_DEVICE = pytest.param(
    "on a device",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
)


@pytest.fixture(params=["on the thread", "on the event loop", "as on a device", ON_A_DEVICE], autouse=True)
def where_ticks_run(request, monkeypatch):
    """Every test holds for all; what is captured on a device is called line by line on the CPU."""
    monkeypatch.setattr(f"{__name__}.DEVICE", "cuda" if request.param == "on a device" else "cpu")
    monkeypatch.setattr("simservice.engine.engine.HERE_BELOW_S", 10.0 if request.param == "on the event loop" else 0.0)
    if request.param == "as on a device":
        monkeypatch.setattr("simservice.engine.engine.GRAPHED", frozenset({"cpu"}))


DEVICE = "cpu"


def skip_where_worlds_are_graphs():
    """What a world does in Python is not done again by its graph, and one that asks for values has none."""
    if DEVICE == "cuda":
        pytest.skip("a graph runs no Python")


def run(scenario, *, spec=None, config=NOISY, capacity=256, world=None, **arguments):
    """Runs a coroutine function with a started engine."""

    async def within():
        engine = Engine(world or Toy(spec or toy_spec(), config), capacity=capacity, device=DEVICE, **arguments)
        engine.start()
        try:
            return await scenario(engine)
        finally:
            engine.stop()

    return asyncio.run(within())


def act(actions):
    return Step({"action": np.asarray(actions, dtype=np.int64)})


def lanes_of(engine, count, first_seed=0, mode=AutoresetMode.NEXT_STEP):
    return engine.allocate(count, mode, np.arange(first_seed, first_seed + count))


async def trajectory(engine, lanes, seeds, actions):
    """Everything a seeded session sees, as one array."""
    seen = [(await engine.reset(lanes, Reset(seeds=seeds))).observation["observation"]]
    for action in actions:
        result = await engine.step(lanes, act(action))
        seen.append(result.observation["observation"])
    return np.stack(seen)


ACTIONS = np.random.default_rng(0).integers(0, 3, (40, 1))


def test_a_lanes_future_is_the_same_alone_and_beside_others_in_any_batch():
    seed = np.array([1234])

    async def alone(engine):
        return await trajectory(engine, lanes_of(engine, 1), seed, ACTIONS)

    async def crowded(engine):
        others = [lanes_of(engine, count, 50) for count in (7, 63, 100)]
        mine = lanes_of(engine, 1, 900)
        for lanes in others:
            await engine.reset(lanes, Reset())

        async def noise(lanes):
            for _ in range(60):
                await engine.step(lanes, act(np.full(len(lanes), 2)))

        running = [asyncio.ensure_future(noise(lanes)) for lanes in others]
        seen = await trajectory(engine, mine, seed, ACTIONS)
        await asyncio.gather(*running)
        assert {16, 64} < (sizes := set(engine.stats().batches)) and 171 <= max(sizes) <= 256
        return seen

    assert np.array_equal(run(alone), run(crowded))


def test_a_seeded_reset_begins_the_same_future_and_an_unseeded_one_another():
    async def scenario(engine):
        lanes = lanes_of(engine, 3)
        seeds = np.array([5, 6, 5])
        first = await trajectory(engine, lanes, seeds, ACTIONS.repeat(3, 1))
        again = await trajectory(engine, lanes, seeds, ACTIONS.repeat(3, 1))
        other = await trajectory(engine, lanes, None, ACTIONS.repeat(3, 1))
        assert np.array_equal(first, again)
        assert np.array_equal(first[:, 0], first[:, 2])
        assert not np.array_equal(first[:, 0], first[:, 1])
        assert not np.array_equal(first, other)

    run(scenario)


def test_a_seed_for_one_lane_leaves_the_luck_of_the_others():
    async def scenario(engine):
        mine, same = lanes_of(engine, 2), lanes_of(engine, 2)
        first = await engine.reset(mine, Reset())
        await engine.reset(same, Reset(seeds=np.array([77, -1])))
        second = await engine.reset(mine, Reset())
        one, two = await engine.step(mine, act([1, 1])), await engine.reset(same, Reset())
        assert not np.array_equal(first.observation["observation"], second.observation["observation"])
        assert np.array_equal(two.observation["observation"][1], second.observation["observation"][1])
        assert one.reward.shape == (2,)

    run(scenario)


def test_all_that_arrived_while_a_tick_ran_joins_the_next():
    skip_where_worlds_are_graphs()
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Toy):
        slow = False

        def step(self, state, action, draws):
            if self.slow:
                entered.set()
                assert go_on.wait(10)
            return super().step(state, action, draws)

    world = Slow(toy_spec(), NOISY)

    async def scenario(engine):
        sessions = [lanes_of(engine, 4) for _ in range(5)]
        for lanes in sessions:
            await engine.reset(lanes, Reset())
        before = engine.stats()
        world.slow = True
        first = engine.step(sessions[0], act([1] * 4))
        assert await asyncio.to_thread(entered.wait, 10)
        rest = [engine.step(lanes, act([1] * 4)) for lanes in sessions[1:]]
        go_on.set()
        await asyncio.gather(first, *rest)
        after = engine.stats()
        assert after.ticks - before.ticks == 2
        assert after.lane_steps - before.lane_steps == 20
        assert after.batches[16] - before.batches[16] == 2

    run(scenario, world=world, here_below_s=0.0)


def test_ticks_that_take_long_leave_the_event_loop_to_other_sessions():
    skip_where_worlds_are_graphs()
    stepped = []

    class Told(Toy):
        def step(self, state, action, draws):
            stepped.append(threading.current_thread())
            return super().step(state, action, draws)

    async def scenario(engine):
        here, seen = threading.current_thread(), []
        first = lanes_of(engine, 4)
        await engine.reset(first, Reset())
        for work_s, others in ((0.005, 0), (0.0, 1), (0.005, 1)):
            if others and engine.lanes_in_use == len(first):
                lanes_of(engine, 4)
            engine._ticker.work_s = work_s
            await engine.step(first, act([1] * 4))
            seen.append(stepped[-1] is here)
        assert seen == [True, True, False]

    run(scenario, world=Told(toy_spec(), NOISY), here_below_s=0.01)


def test_work_that_nobody_waits_for_is_dropped_if_it_has_not_begun_and_done_if_it_has():
    skip_where_worlds_are_graphs()
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Toy):
        slow = False

        def step(self, state, action, draws):
            if self.slow:
                entered.set()
                assert go_on.wait(10)
            return super().step(state, action, draws)

    world = Slow(toy_spec(), NOISY)

    async def scenario(engine):
        begun, waiting = lanes_of(engine, 4), lanes_of(engine, 4)
        for lanes in (begun, waiting):
            await engine.reset(lanes, Reset(seeds=np.arange(4)))
        before = engine.stats().lane_steps
        world.slow = True
        first = engine.step(begun, act([1] * 4))
        assert await asyncio.to_thread(entered.wait, 10)
        second = engine.step(waiting, act([1] * 4))
        for lanes in (begun, waiting):
            engine.abandon(lanes)
        go_on.set()
        done = await first
        with pytest.raises(DeadlineExceeded, match="not done"):
            await second
        assert (engine.stats().dropped, engine.stats().lane_steps - before) == (1, 4)
        engine.abandon(waiting)  # there is nothing to drop, now or later
        again = await engine.step(waiting, act([1] * 4))
        assert (again.observation["observation"] == done.observation["observation"]).all()
        await engine.step(begun, act([1] * 4))

    run(scenario, world=world, here_below_s=0.0)


def test_requests_for_the_same_lanes_are_done_in_their_order():
    async def scenario(engine):
        lanes = lanes_of(engine, 1)
        await engine.reset(lanes, Reset(seeds=np.array([3])))
        results = await asyncio.gather(*(engine.step(lanes, act(action)) for action in ACTIONS))
        pipelined = np.stack([result.observation["observation"] for result in results])
        assert np.array_equal(pipelined, (await trajectory(engine, lanes, np.array([3]), ACTIONS))[1:])

    run(scenario)


def test_a_snapshot_goes_on_identically_in_another_engine_of_the_same_version():
    async def first(engine):
        lanes = lanes_of(engine, 5)
        await trajectory(engine, lanes, np.arange(5), ACTIONS[:10].repeat(5, 1))
        data = await engine.snapshot(lanes)
        rest = [(await engine.step(lanes, act([2] * 5))).observation["observation"] for _ in range(20)]
        return data, np.stack(rest)

    data, expected = run(first)

    async def second(engine):
        lanes_of(engine, 3)  # so that the lanes have other numbers
        lanes = lanes_of(engine, 5, first_seed=40)
        await engine.restore(lanes, data)
        rest = [(await engine.step(lanes, act([2] * 5))).observation["observation"] for _ in range(20)]
        assert np.array_equal(np.stack(rest), expected)

    run(second)

    async def retired(engine):
        with pytest.raises(ModelRetired, match="toy@000000000000"):
            await engine.restore(lanes_of(engine, 5), data)

    run(retired, spec=toy_spec(version="111111111111"))

    async def wrong(engine):
        lanes = lanes_of(engine, 4)
        with pytest.raises(InternalError, match="does not hold 4 lanes"):
            await engine.restore(lanes, data)
        with pytest.raises(InternalError, match="cannot be read"):
            await engine.restore(lanes, data[: len(data) // 2])
        with pytest.raises(NeedsReset):
            await engine.step(lanes, act([0] * 4))

    run(wrong)


def test_lanes_come_back_at_once_and_nothing_of_them_is_seen_again():
    async def scenario(engine):
        lanes = lanes_of(engine, 8)
        await engine.reset(lanes, Reset())
        with pytest.raises(CapacityExhausted):
            lanes_of(engine, 1)
        engine.release(lanes)
        again = lanes_of(engine, 8)
        assert engine.lanes_in_use == 8
        with pytest.raises(NeedsReset):
            await engine.render(again)
        blank = await engine.snapshot(again)
        await engine.reset(again, Reset())
        engine.release(again)
        assert await engine.snapshot(lanes_of(engine, 8)) == blank

    run(scenario, capacity=8, spec=toy_spec(render_modes=("rgb_array",)))


def test_lanes_given_back_while_they_are_stepped_are_free_after_the_step():
    async def scenario(engine):
        lanes, others = lanes_of(engine, 6), lanes_of(engine, 2)
        await engine.reset(lanes, Reset())
        stepped = engine.step(lanes, act([1] * 6))
        engine.release(lanes)
        with pytest.raises(CapacityExhausted):
            lanes_of(engine, 1)
        assert (await stepped).reward.shape == (6,)
        await engine.snapshot(others)  # one more tick
        assert engine.lanes_in_use == 2

    run(scenario, capacity=8, spec=toy_spec(render_modes=("rgb_array",)))


def test_a_step_that_nobody_can_join_is_done_when_it_is_returned_and_what_goes_beside_it_is_sent_first():
    async def scenario(engine):
        order = []
        engine.accompany(lambda: order.append("before"), lambda: order.append("after"))
        lanes = lanes_of(engine, 3)
        await engine.reset(lanes, Reset())
        order.clear()
        stepped = engine.step(lanes, act([1] * 3), lambda: order.append("beside"))
        assert stepped.done() == (simservice.engine.engine.HERE_BELOW_S > 0)
        if stepped.done():
            assert order == ["beside", "before", "after"]
        assert (await stepped).reward.shape == (3,)
        lanes_of(engine, 1)  # somebody who could join
        waiting = engine.step(lanes, act([1] * 3), lambda: order.append("beside again"))
        assert not waiting.done()
        assert order[-1] == "beside again"
        await waiting

    run(scenario)


def test_what_is_refused_at_once_has_nothing_beside_it():
    async def scenario(engine):
        sent = []
        lanes = lanes_of(engine, 2)
        with pytest.raises(NeedsReset):
            await engine.step(lanes, act([1, 1]), lambda: sent.append("step"))
        with pytest.raises(InvalidInput):
            await engine.reset(lanes, Reset(mask=np.zeros(2, bool)), lambda: sent.append("reset"))
        assert sent == []

    run(scenario)


def test_a_picture_shows_every_lane_and_a_world_without_pictures_says_so():
    async def scenario(engine):
        lanes = lanes_of(engine, 3)
        await engine.reset(lanes, Reset())
        frames = await engine.render(lanes)
        assert frames.shape == (3, 2, 2, 3)
        assert frames.dtype == np.uint8
        assert frames.any()

    run(scenario, spec=toy_spec(render_modes=("rgb_array",)))

    async def without(engine):
        with pytest.raises(InvalidInput, match="has no render mode"):
            await engine.render(lanes_of(engine, 1))

    run(without)


class Failing(Toy):
    """Raises when an action is 2."""

    def step(self, state, action, draws):
        if (action["action"] == 2).any():
            raise ZeroDivisionError("inside the world")
        return super().step(state, action, draws)


def test_a_world_that_raises_fails_the_tick_and_not_the_thread(caplog):
    skip_where_worlds_are_graphs()

    async def scenario(engine):
        lanes = lanes_of(engine, 2)
        await engine.reset(lanes, Reset())
        with pytest.raises(InternalError, match=r"failed \(ZeroDivisionError\)") as caught:
            await engine.step(lanes, act([2, 2]))
        assert "inside the world" not in str(caught.value)
        assert (await engine.step(lanes, act([1, 1]))).reward.shape == (2,)
        assert engine.stats().failures == 1

    # The warm-up samples actions, too; a space without 2 lets it pass.
    run(scenario, world=Failing(toy_spec(action_space=spaces.Discrete(2)), NOISY))
    assert "inside the world" in caplog.text


def test_a_world_that_fails_the_warm_up_never_starts():
    class Dead(Toy):
        def init(self, draws):
            raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        Engine(Dead(toy_spec()), capacity=16).start()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"action": np.zeros(3, np.int64)}, r"expected int64 of shape \(2,\), got int64 of shape \(3,\)"),
        ({"action": np.zeros(2, np.float32)}, "got float32"),
        ({"move": np.zeros(2, np.int64)}, "action: is missing"),
        ({}, "expected the leaves"),
    ],
)
def test_a_misshapen_action_is_refused_by_name(action, message):
    async def scenario(engine):
        lanes = lanes_of(engine, 2)
        await engine.reset(lanes, Reset())
        with pytest.raises(InvalidInput, match=message):
            await engine.step(lanes, Step(action))

    run(scenario)


def test_sizes_that_round_differently_are_not_mixed():
    class Uneven(Toy):
        """Differs in the last bit from 64 rows on, as kernels for other shapes do."""

        def step(self, state, action, draws):
            after, out = super().step(state, action, draws)
            return ({"x": after["x"] * (1 + 2**-52)} if len(after["x"]) >= 64 else after), out

    graphs = DEVICE in simservice.engine.engine.GRAPHED
    everything = (16, 64, 256, 1024) if graphs else tuple(sorted({16, 64, 256, 1024, *rounding.BETWEEN}))
    larger = tuple(size for size in everything if size >= 64)
    assert run(sizes, world=Uneven(toy_spec(), NOISY), capacity=1024) == larger
    assert run(sizes, config=NOISY, capacity=1024) == everything
    assert run(sizes, config=NOISY, capacity=40) == everything[: 2 if graphs else 4]


def test_sizes_larger_than_one_that_takes_long_are_neither_tried_nor_used_on_the_cpu(monkeypatch):
    monkeypatch.setattr("simservice.engine.rounding.PATIENCE_S", 0.0)
    assert run(sizes, capacity=1024) == ((16, 64, 256, 1024) if DEVICE == "cuda" else (16,))


async def sizes(engine):
    return engine.sizes


def test_what_was_handed_in_before_a_stop_is_answered_and_what_comes_later_refused():
    async def scenario():
        engine = Engine(Toy(toy_spec(), NOISY), capacity=16)
        engine.start()
        lanes = lanes_of(engine, 2)
        await engine.reset(lanes, Reset())
        handed_in = [engine.step(lanes, act([1, 1])) for _ in range(20)]
        engine.stop()
        results = await asyncio.gather(*handed_in)
        assert len(results) == 20
        with pytest.raises(InternalError, match="is stopped"):
            await engine.step(lanes, act([1, 1]))
        engine.release(lanes)
        engine.stop()

    asyncio.run(scenario())


def test_a_caller_that_gave_up_does_not_undo_its_step():
    async def scenario(engine):
        lanes = lanes_of(engine, 1)
        await engine.reset(lanes, Reset(seeds=np.array([3])))
        engine.step(lanes, act([1])).cancel()
        after = await engine.step(lanes, act([1]))
        straight = await trajectory(engine, lanes, np.array([3]), [[1], [1]])
        assert np.array_equal(after.observation["observation"], straight[-1])

    run(scenario)


def test_results_are_not_touched_by_later_steps():
    async def scenario(engine):
        lanes = lanes_of(engine, 64)
        results = [await engine.reset(lanes, Reset())]
        copies = [results[0].observation["observation"].copy()]
        for _ in range(5):
            results.append(await engine.step(lanes, act([2] * 64)))
            copies.append(results[-1].observation["observation"].copy())
        for result, copy in zip(results, copies, strict=True):
            assert np.array_equal(result.observation["observation"], copy)

    run(scenario)


def test_continuous_actions_and_other_observation_dtypes_pass_through():
    spec = toy_spec(
        observation_space=spaces.Box(-np.inf, np.inf, (4,), np.float64),
        action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
    )

    async def scenario(engine):
        lanes = lanes_of(engine, 2)
        x = (await engine.reset(lanes, Reset())).observation["observation"]
        result = await engine.step(lanes, Step({"action": np.array([[0.5, 0.25], [0.0, -1.0]], np.float32)}))
        assert result.observation["observation"].dtype == np.float64
        assert np.array_equal(result.observation["observation"], x * 1.05 + 0.1 * np.array([[0.75], [-1.0]]))

    run(scenario, spec=spec, config=ToyConfig())


def test_the_thread_uses_one_core():
    async def scenario(engine):
        await engine.reset(lanes := lanes_of(engine, 1), Reset())
        assert lanes.tolist() == [0]
        return torch.get_num_threads()

    assert run(scenario) == 1


def test_steps_less_sure_than_what_is_known_are_counted():
    async def counted(engine):
        lanes = lanes_of(engine, 4)
        await engine.reset(lanes, Reset(seeds=np.arange(4)))
        said = [(await engine.step(lanes, act([1] * 4))).infos["uncertainty"].value for _ in range(3)]
        return engine.stats().beyond_support, np.concatenate(said)

    _, said = run(counted)
    typical = float(np.median(said))
    assert run(counted)[0] == 0  # where nobody says what is known, nothing is beyond it
    assert run(counted, known_uncertainty=typical)[0] == int((said > typical).sum())
    assert run(counted, known_uncertainty=-1.0)[0] == 12
