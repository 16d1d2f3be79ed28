"""A wrapped world is the one inside, caches and all, but for what is changed on purpose."""

import torch
from toy import Toy, ToyConfig, toy_spec

from simservice.worlds.noise import lane_draws
from simservice.worlds.wrapped import WrappedWorld


class Remembering(Toy):
    """Makes something again that snapshots leave out."""

    def rebuild(self, state):
        return {name: row + 1.0 for name, row in state.items()}


def test_rows_luck_steps_and_caches_are_those_of_the_world_inside():
    inside = Remembering(toy_spec(), ToyConfig(noise=0.1))
    inside.context_frames = 3
    world = WrappedWorld(inside)
    assert world.context_frames == 3
    assert (world.spec, world.slots, world.draws) == (inside.spec, inside.slots, inside.draws)
    seed = torch.arange(16)
    state = world.init(lane_draws(world.draws["init"], seed, seed * 0, "init"))
    draws = lane_draws(world.draws["step"], seed, seed * 0 + 1, "step")
    action = {"action": seed % 3}
    (after, out), (wanted, said) = world.step(state, action, draws), inside.step(state, action, draws)
    assert torch.equal(after["x"], wanted["x"]) and torch.equal(out.reward, said.reward)
    assert torch.equal(world.emit(after)["observation"], inside.emit(wanted)["observation"])
    assert torch.equal(world.rebuild(after)["x"], wanted["x"] + 1.0)
