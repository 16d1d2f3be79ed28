"""Copies of lanes on the device, and what lanes show: in few ticks, bit for bit, with their own luck where asked."""

import numpy as np
import pytest
import safetensors.torch
import torch
from test_engine import ACTIONS, NOISY, act, lanes_of, run, where_ticks_run  # noqa: F401 (a fixture)
from toy import Toy, toy_spec

from simservice.engine.control import STORED
from simservice.engine.snapshot import pack, snapshot_lane_bytes, unpack
from simservice.sessions.lanes import Reset
from simservice.worlds.world import Slot


def test_256_lanes_are_forked_in_at_most_three_ticks_and_go_on_bit_for_bit():
    async def scenario(engine):
        parent = lanes_of(engine, 256)
        await engine.reset(parent, Reset(seeds=np.arange(256)))
        for action in ACTIONS[:5]:
            await engine.step(parent, act(np.repeat(action, 256)))
        before = engine.stats().ticks
        child = lanes_of(engine, 256)
        copied, taken = engine.copy(parent, child, None), engine.snapshot(child)
        await copied
        snapshot = await taken
        assert engine.stats().ticks - before <= 3
        for action in ACTIONS[5:]:
            ours = await engine.step(parent, act(np.repeat(action, 256)))
            theirs = await engine.step(child, act(np.repeat(action, 256)))
            assert ours.observation["observation"].tobytes() == theirs.observation["observation"].tobytes()
        await engine.restore(child, snapshot)
        assert len(snapshot) <= 256 * engine.snapshot_lane_bytes + 1024
        assert len(snapshot) >= 256 * engine.snapshot_lane_bytes

    run(scenario, capacity=512)


def test_one_lane_may_be_copied_often_and_with_seeds_each_copy_has_a_luck_of_its_own():
    async def scenario(engine):
        parent, same, fresh = (lanes_of(engine, count) for count in (2, 3, 3))
        await engine.reset(parent, Reset(seeds=np.array([5, 6])))
        source = parent[[1, 1, 1]]
        await engine.copy(source, same, None)
        await engine.copy(source, fresh, np.array([7, 8, 7]))
        shown = [(await engine.look(lanes))["observation"] for lanes in (parent, same, fresh)]
        assert (shown[1] == shown[0][1]).all()
        assert (shown[2] == shown[0][1]).all()
        ours = (await engine.step(parent, act([1, 1]))).observation["observation"]
        theirs = (await engine.step(same, act([1, 1, 1]))).observation["observation"]
        others = (await engine.step(fresh, act([1, 1, 1]))).observation["observation"]
        assert (theirs == ours[1]).all()
        assert (others[0] == others[2]).all()
        assert (others[0] != others[1]).any()
        assert (others != ours[1]).any(axis=1).all()

    run(scenario)


def test_a_copy_waits_for_the_steps_of_its_source_and_is_waited_for_by_the_steps_of_its_target():
    async def scenario(engine):
        parent, child = lanes_of(engine, 2), lanes_of(engine, 2)
        engine.reset(parent, Reset(seeds=np.array([5, 6])))
        first = engine.step(parent, act([2, 0]))
        engine.copy(parent, child, None)
        second = engine.step(parent, act([0, 2]))
        shown, stepped = engine.look(child), engine.step(child, act([0, 2]))
        assert ((await shown)["observation"] == (await first).observation["observation"]).all()
        assert ((await stepped).observation["observation"] == (await second).observation["observation"]).all()

    run(scenario)


@pytest.mark.parametrize("how", ["look", "copy"])
def test_lanes_that_were_never_reset_show_zeros_and_stay_so_in_a_copy(how):
    async def scenario(engine):
        lanes = lanes_of(engine, 3)
        await engine.reset(lanes, Reset())
        unready = lanes_of(engine, 3)
        if how == "copy":
            await engine.copy(unready, lanes, None)
            unready = lanes
        assert not (await engine.look(unready))["observation"].any()
        with pytest.raises(Exception, match="must be reset"):
            await engine.step(unready, act([0, 0, 0]))

    run(scenario)


class Remembering(Toy):
    """The toy whose steps also look at a cache: the square of where the lane is."""

    rebuilt = 0

    @property
    def slots(self):
        return {**super().slots, "squares": Slot((4,), torch.float64, role="kv")}

    def init(self, draws):
        return self.rebuild(super().init(draws))

    def observe(self, *frame):
        return self.rebuild(super().observe(*frame))

    def step(self, state, action, draws):
        after, out = super().step({"x": state["x"] + 0.01 * state["squares"]}, action, draws)
        return {**after, "squares": after["x"] ** 2}, out

    def rebuild(self, state):
        self.rebuilt += 1
        return {**state, "squares": state["x"] ** 2}


def test_a_snapshot_leaves_caches_out_and_the_world_makes_them_again():
    world = Remembering(toy_spec(), NOISY)

    async def scenario(engine):
        parent, other = lanes_of(engine, 20), lanes_of(engine, 20)
        await engine.reset(parent, Reset(seeds=np.arange(20)))
        for action in ACTIONS[:5]:
            await engine.step(parent, act(np.repeat(action, 20)))
        snapshot = await engine.snapshot(parent)
        assert b"squares" not in snapshot
        assert engine.lane_bytes == 64
        assert engine.snapshot_lane_bytes == snapshot_lane_bytes(dict(Toy(toy_spec()).slots))
        before = world.rebuilt
        await engine.restore(other, snapshot)
        assert world.rebuilt > before
        for action in ACTIONS[5:]:
            ours = await engine.step(parent, act(np.repeat(action, 20)))
            theirs = await engine.step(other, act(np.repeat(action, 20)))
            assert ours.observation["observation"].tobytes() == theirs.observation["observation"].tobytes()

    run(scenario, world=world)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.bool, torch.bfloat16])
def test_lanes_are_the_same_bytes_whichever_library_writes_them(dtype):
    spec, slots = toy_spec(), {"x": Slot((4,), dtype), "mask": Slot((), torch.bool)}
    rows = {
        "x": torch.arange(12).reshape(3, 4).to(dtype).t().contiguous().t()[:3],
        "mask": torch.tensor([True, False, True]),
    }
    columns = {name: np.arange(6, dtype=np.int64)[::2] for name in STORED}
    data = pack(spec, slots, rows, columns)
    named = {f"row/{name}": row.contiguous() for name, row in rows.items()}
    named |= {f"column/{name}": torch.from_numpy(column.copy()) for name, column in columns.items()}
    assert data == safetensors.torch.save(named, metadata={"simservice-lanes": f"1 {spec.full_name}"})
    again, beside = unpack(spec, slots, 3, data)
    assert all(torch.equal(again[name], row) for name, row in rows.items())
    assert all((beside[name] == column).all() for name, column in columns.items())
