"""Rollouts as a user asks for them and gets them: plain arguments in, arrays (steps, environments, ...) out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from simservice.errors import InvalidInput
from simservice.protocol.branches import LUCKS
from simservice.types import Array, Imagine, Imagined, Leaves, PolicyUse, WorldSpec, from_leaves


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """T imagined steps of n environments, as a vector environment would have given them one by one.

    Values of a Dict or Tuple space are dicts or tuples of arrays, as everywhere in Gymnasium. A mask that is None is
    False everywhere.
    """

    start: Any  # (n, ...): the observations before the first step; None: left out
    observation: Any  # (T, n, ...): after each step; None: left out
    action: Any  # (T, n, ...): a policy's; None: they were given
    reward: Array  # (T, n) float64
    terminated: Array  # (T, n) bool
    truncated: Array  # (T, n) bool
    began: Array | None  # (T, n) bool, NEXT_STEP: the step began an episode, and its action was ignored
    stopped: Array | None  # (T, n) bool: the step was not made, as the episode is over; its rows are zeros
    final: Array | None  # (T, n) bool, SAME_STEP: an episode ended and the next one began in this step
    final_observation: Any  # (final.sum(), ...): the last observations of those episodes, in the order of `final`
    uncertainty: Array | None  # (T, n) float32, NaN where the world does not know
    distrusted: Array | None  # (T, n) bool: truncated where the world is not to be trusted
    world_error: Array | None  # (T, n) bool: the world gave no numbers; the step was not made, and truncated
    log_probability: Array | None  # (T, n) float32, of a policy's raw action
    outputs: dict[str, Array]  # (T, n, ...) by name: what the policy gave beside its action, and "raw_action"

    def __len__(self) -> int:
        return len(self.reward)


def as_trajectories(spec: WorldSpec, imagined: Imagined) -> Trajectories:
    """The session's leaves in the forms of the world's spaces."""
    given = {field.name: getattr(imagined, field.name) for field in fields(Trajectories)}
    for name in ("start", "observation", "final_observation"):
        given[name] = _value(spec.observation_space, given[name], "observation")
    given["action"] = _value(spec.action_space, given["action"], "action")
    given["outputs"] = given["outputs"] or {}
    return Trajectories(**given)


def _value(space: Any, leaves: Leaves | None, root: str) -> Any:
    return None if leaves is None else from_leaves(space, leaves, root)


def as_imagine(
    actions: Leaves | None,
    policy: PolicyUse | str | None,
    steps: int | None,
    *,
    advance: bool = False,
    lanes: Sequence[int] | Array | None = None,
    copies: int = 1,
    luck: Literal["same", "fresh"] = "same",
    seeds: Sequence[int] | Array | None = None,
    stop_at_end: bool | None = None,
    observation: bool = True,
    action: bool = True,
    outputs: bool = True,
) -> Imagine:
    """The rollout that such arguments mean; InvalidInput for those that contradict each other."""
    if (actions is None) == (policy is None):
        raise InvalidInput("actions", "give either actions, (steps, environments, ...), or a policy")
    if actions is not None:
        lengths = {len(array) for array in actions.values()}
        if len(lengths) != 1 or (steps is not None and lengths != {steps}):
            raise InvalidInput("actions", f"have {sorted(lengths)} rows, one a step is expected")
        steps = lengths.pop()
    if steps is None:
        raise InvalidInput("steps", "is missing; say how many steps the policy acts for")
    if luck not in LUCKS:
        raise InvalidInput("luck", f"{luck!r} is none; there are: {', '.join(LUCKS)}")
    return Imagine(
        steps=steps,
        actions=actions,
        policy=PolicyUse(content_hash=policy) if isinstance(policy, str) else policy,
        advance=advance,
        lanes=None if lanes is None else np.asarray(lanes),
        copies=copies,
        fresh=luck == "fresh",
        seeds=None if seeds is None else np.asarray(seeds),
        stop_at_end=actions is not None and not advance if stop_at_end is None else stop_at_end,
        observation=observation,
        action=action,
        outputs=outputs,
    )
