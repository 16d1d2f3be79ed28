"""What is wrong with a request, told before any of it is done. Knows no tensors and no threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simservice.engine.control import Control
from simservice.errors import InvalidInput, NeedsReset, RolloutLimitExceeded, SimserviceError
from simservice.sessions.lanes import Reset
from simservice.sessions.settings import RolloutLimits
from simservice.types import Array, Imagine, Leaf, Leaves, WorldSpec, leaves_of


def misshapen(leaves: Leaves, wanted: Sequence[Leaf], lead: tuple[int, ...]) -> InvalidInput | None:
    """What is wrong with the leaves' names, shapes or dtypes."""
    if len(leaves) != len(wanted):
        return InvalidInput(wanted[0].path, f"expected the leaves {[leaf.path for leaf in wanted]}, got {list(leaves)}")
    for leaf in wanted:
        array = leaves.get(leaf.path)
        if array is None:
            return InvalidInput(leaf.path, f"is missing; got {list(leaves)}")
        if array.shape != (*lead, *leaf.shape) or array.dtype != leaf.dtype:
            return InvalidInput(
                leaf.path,
                f"expected {leaf.dtype} of shape {(*lead, *leaf.shape)}, got {array.dtype} of shape {array.shape}",
            )
    return None


def reset_problem(
    spec: WorldSpec, control: Control, lanes: Array, command: Reset, idle: bool
) -> SimserviceError | None:
    """Why a reset cannot be done; `idle`: nothing waits for the lanes, so their columns can be read."""
    if command.options:
        names = ", ".join(repr(name) for name in sorted(command.options))
        return InvalidInput("options", f"unknown: {names}; this service takes no reset options")
    if command.mask is not None:
        if command.mask.shape != (len(lanes),) or command.mask.dtype != np.bool_:
            return InvalidInput("mask", f"must be {len(lanes)} booleans, one a lane")
        if not command.mask.any():
            return InvalidInput("mask", "selects no lane")
    if command.seeds is not None and command.seeds.shape != (len(lanes),):
        return InvalidInput("seeds", f"must be {len(lanes)} integers, one a lane, -1 for none")
    if command.context is not None:
        if "context" not in spec.capabilities:
            return InvalidInput("context", f"world {spec.full_name} cannot be grounded in real observations")
        frames = command.context.frames
        observation = leaves_of(spec.observation_space, "observation")
        action = leaves_of(spec.action_space, "action")
        return misshapen(command.context.observation, observation, (len(lanes), frames)) or misshapen(
            command.context.action, action, (len(lanes), frames - 1)
        )
    if command.mask is not None and idle:
        unready = np.flatnonzero(~control.ready[lanes] & ~command.mask)
        if len(unready):
            return NeedsReset(unready.tolist())
    return None


def played_lanes(control: Control, lanes: Array, command: Imagine, limits: RolloutLimits) -> Array:
    """The lanes that a rollout copies, each once; raises what is wrong with which, how many and how long."""
    if command.advance:
        for name, given in (
            ("lanes", command.lanes is not None),
            ("copies", command.copies != 1),
            ("luck", command.fresh),
            ("seeds", command.seeds is not None),
            ("stop_at_end", command.stop_at_end),
        ):
            if given:
                raise InvalidInput(name, "goes with a rollout of copies; one that advances the session plays its lanes")
    places = np.arange(len(lanes)) if command.lanes is None else command.lanes
    if command.lanes is not None:
        if not len(places) or places.min() < 0 or places.max() >= len(lanes):
            raise InvalidInput("lanes", f"must be some of 0 to {len(lanes) - 1}")
        if len(np.unique(places)) < len(places):
            raise InvalidInput("lanes", "a lane is named twice; ask for more copies instead")
    if command.steps < 1:
        raise InvalidInput("steps", f"is {command.steps}; a rollout has 1 or more")
    if command.copies < 1:
        raise InvalidInput("copies", f"is {command.copies}; there is 1 or more of each lane")
    count = len(places) * command.copies
    if command.steps > limits.steps:
        raise RolloutLimitExceeded("steps", asked=command.steps, most=limits.steps)
    if count > limits.lanes:
        raise RolloutLimitExceeded("lanes", asked=count, most=limits.lanes)
    if command.seeds is not None and (not command.fresh or len(command.seeds) != count or command.seeds.min() < 0):
        raise InvalidInput("seeds", f"with fresh luck, {count} integers from 0, one a new lane; else none")
    unready = places[~control.ready[lanes[places]]]
    if len(unready):
        raise NeedsReset(unready.tolist())
    chosen: Array = lanes[places]
    return chosen
