"""The library of one replica: what is put is inspected once, found by every replica, and by its own tenant only."""

import asyncio

import numpy as np
import onnx
import policy_files as files
import pytest
from gymnasium import spaces
from onnx import numpy_helper

from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.shelf import PolicyLibrary
from simservice.errors import InvalidPolicy, PolicyLimitExceeded, PolicyQuarantined, UnknownPolicy
from simservice.sessions.policies import MemoryPolicies

OBSERVATION, ACTION = spaces.Box(-np.inf, np.inf, (4,), np.float32), spaces.Discrete(3)
ROWS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


@pytest.fixture
def run():
    """Runs a test's coroutine function with a store and a maker of libraries; all are stopped afterwards."""
    made = []

    def library(store, observation=OBSERVATION, action=ACTION, **limits):
        made.append(PolicyLibrary(store, observation, action, limits=PolicyLimits(**limits)))
        return made[-1]

    yield lambda use: asyncio.run(use(MemoryPolicies(), library))
    for one in made:
        one.stop()


def weights_of(file):
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(file).graph.initializer}
    return {name: (a.dtype.name, a.shape, a.tobytes()) for name, a in arrays.items() if a.dtype.kind == "f"}


def test_what_one_replica_took_another_one_runs(run):
    async def use(store, library):
        file = files.mlp()
        put = await library(store).put_whole("lab", file, "categorical")
        policy = await library(store).loaded("lab", put.content_hash)
        assert policy.content_hash == put.content_hash
        np.testing.assert_allclose(
            policy({"observation": ROWS})["action_dist_inputs"], files.mlp_forward(file, ROWS)[0], atol=1e-5
        )

    run(use)


def test_new_weights_give_the_policy_that_the_whole_file_gives(run):
    async def use(store, library):
        first, second = files.mlp(seed=0), files.mlp(seed=1)
        here, there = library(store), library(store)
        put = await here.put_whole("lab", first, "categorical")
        updated = await there.put_weights("lab", put.graph.graph_hash, weights_of(second))
        assert updated.content_hash == (await here.put_whole("lab", second, "categorical")).content_hash
        policy = await here.loaded("lab", updated.content_hash)
        np.testing.assert_allclose(
            policy({"observation": ROWS})["value"], files.mlp_forward(second, ROWS)[1], atol=1e-5
        )
        assert there._inspector._process is None  # an update needs no inspection

    run(use)


def test_another_tenant_knows_neither_policy_nor_graph(run):
    async def use(store, library):
        here = library(store)
        put = await here.put_whole("lab", files.mlp(), "categorical")
        await here.loaded("lab", put.content_hash)
        with pytest.raises(UnknownPolicy):
            await here.loaded("shop", put.content_hash)
        with pytest.raises(UnknownPolicy):
            await here.put_weights("shop", put.graph.graph_hash, weights_of(files.mlp()))

    run(use)


def test_the_same_file_again_is_not_inspected_again_and_a_bad_one_is_refused_at_once(run):
    async def use(store, library):
        here = library(store)
        put = await here.put_whole("lab", files.mlp(), "categorical")
        with pytest.raises(InvalidPolicy):
            await here.put_whole("lab", files.huge_loop(), "categorical")
        process = here._inspector._process
        process.kill()
        process.wait()
        assert await here.put_whole("lab", files.mlp(), "categorical") == put
        with pytest.raises(InvalidPolicy, match="Loop"):
            await here.put_whole("lab", files.huge_loop(), "categorical")
        assert here._inspector._process is process  # nobody needed a new one

    run(use)


def test_a_forgotten_policy_is_put_again_by_the_same_file(run):
    async def use(store, library):
        here = library(store)
        put = await here.put_whole("lab", files.mlp(), "categorical")
        store._shelves.clear()
        with pytest.raises(UnknownPolicy):
            await here.loaded("lab", put.content_hash)
        assert await here.put_whole("lab", files.mlp(), "categorical") == put
        assert (await here.loaded("lab", put.content_hash)).content_hash == put.content_hash

    run(use)


def test_a_policy_of_another_world_is_refused_before_it_runs(run):
    async def use(store, library):
        put = await library(store).put_whole("lab", files.mlp(), "categorical")
        wide = library(store, observation=spaces.Box(-1, 1, (7,), np.float32))
        with pytest.raises(InvalidPolicy, match=r"observations of this world are float32 \(N, 7\)"):
            await wide.loaded("lab", put.content_hash)
        continuous = library(store, action=spaces.Box(-1, 1, (2,), np.float32))
        with pytest.raises(InvalidPolicy, match="categorical distribution gives actions of a Discrete"):
            await continuous.loaded("lab", put.content_hash)

    run(use)


def test_a_policy_that_was_too_slow_stays_quarantined(run):
    async def use(store, library):
        here = library(store, call_s=0.0)
        put = await here.put_whole("lab", files.mlp((4, 1024, 1024, 3)), "categorical")
        policy = await here.loaded("lab", put.content_hash)
        with pytest.raises(PolicyLimitExceeded, match="seconds of one call"):
            for _ in range(100):  # with no time at all, the watchdog comes during one of them
                policy({"observation": np.zeros((512, 4), np.float32)})
        for _ in range(2):
            with pytest.raises(PolicyQuarantined):
                await here.loaded("lab", put.content_hash)

    run(use)


def test_the_longest_unused_are_unloaded(run):
    async def use(store, library):
        here = library(store, loaded=2)
        puts = [await here.put_whole("lab", files.mlp(seed=seed), "categorical") for seed in range(3)]
        loaded = [await here.loaded("lab", put.content_hash) for put in puts]
        assert await here.loaded("lab", puts[2].content_hash) is loaded[2]
        assert await here.loaded("lab", puts[1].content_hash) is loaded[1]
        assert await here.loaded("lab", puts[0].content_hash) is not loaded[0]

    run(use)


def test_of_many_that_ask_together_one_loads(run):
    async def use(store, library):
        here = library(store)
        put = await here.put_whole("lab", files.mlp(), "categorical")
        loaded = await asyncio.gather(*(here.loaded("lab", put.content_hash) for _ in range(8)))
        assert len({id(policy) for policy in loaded}) == 1

    run(use)
