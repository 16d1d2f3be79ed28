"""Rollouts to and from their messages: what is asked for, and the parts of the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from simservice.errors import InvalidInput
from simservice.protocol.branches import LUCKS, as_integers
from simservice.protocol.messages import decode_infos, decode_seeds
from simservice.protocol.tensors import LITTLE, decode_leaves, decode_mask, encode_leaves
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array, Imagine, Imagined, Leaf, Leaves, PolicyUse

HASH_CHARACTERS = 64
MOST_LANES = 2**24  # that a message may speak of; the server knows its own limit


def encode_imagine(command: Imagine, action: tuple[Leaf, ...], lanes: int) -> pb.Imagine:
    """What is asked for of a session of so many lanes; values are checked by the receiver."""
    chosen = [] if command.lanes is None else as_integers("lanes", command.lanes)
    if command.lanes is not None and not chosen:
        raise InvalidInput("lanes", "names no lane")
    copies, steps = as_integers("copies", [command.copies])[0], as_integers("steps", [command.steps])[0]
    message = pb.Imagine(
        steps=steps,
        advance=command.advance,
        lanes=chosen,
        copies=0 if copies == 1 else copies,
        luck=LUCKS["fresh"] if command.fresh else pb.LUCK_UNSPECIFIED,
        seeds=b"" if command.seeds is None else np.array(as_integers("seeds", command.seeds, 2**63), "<i8").tobytes(),
        stop_at_end=command.stop_at_end,
        omit_observation=not command.observation,
        omit_action=not command.action,
        omit_outputs=not command.outputs,
    )
    if command.actions is not None:
        lead = (steps, (len(chosen) or lanes) * copies)
        message.actions.CopyFrom(encode_leaves(action, command.actions, lead))
    if command.policy is not None:
        use = command.policy
        message.policy.CopyFrom(
            pb.PolicyUse(content_hash=use.content_hash, greedy=use.greedy, epsilon=use.epsilon, clip_only=use.clip_only)
        )
    return message


def decode_imagine(message: pb.Imagine, action: tuple[Leaf, ...], lanes: int) -> Imagine:
    """The inverse of encode_imagine, what can be told without the lanes' state checked."""
    if message.luck not in (pb.LUCK_UNSPECIFIED, *LUCKS.values()):
        raise InvalidInput("luck", f"{message.luck} is no luck")
    copies = message.copies or 1
    count = (len(message.lanes) or lanes) * copies
    if count > MOST_LANES:
        raise InvalidInput("copies", f"{copies} copies of {count // copies} lanes are more than {MOST_LANES}")
    actions = policy = None
    if message.HasField("actions"):
        if message.steps < 1:
            raise InvalidInput("steps", "is 0; a rollout has 1 or more")
        actions = decode_leaves(action, message.actions, (message.steps, count))
    elif message.HasField("policy"):
        policy = _decode_policy(message.policy)
    else:
        raise InvalidInput("driver", "a rollout has actions, or a policy")
    return Imagine(
        steps=message.steps,
        actions=actions,
        policy=policy,
        advance=message.advance,
        lanes=np.array(message.lanes, np.int64) if message.lanes else None,
        copies=copies,
        fresh=message.luck == pb.LUCK_FRESH,
        seeds=decode_seeds(message.seeds, len(message.seeds) // 8) if message.seeds else None,
        stop_at_end=message.stop_at_end,
        observation=not message.omit_observation,
        action=not message.omit_action,
        outputs=not message.omit_outputs,
    )


def _decode_policy(message: pb.PolicyUse) -> PolicyUse:
    name = message.content_hash
    if len(name) != HASH_CHARACTERS or not set(name) <= set("0123456789abcdef"):
        raise InvalidInput("content_hash", f"must be {HASH_CHARACTERS} hexadecimal digits in lower case")
    if not 0.0 <= message.epsilon <= 1.0:
        raise InvalidInput("epsilon", f"is {message.epsilon}; it is a share from 0 to 1")
    return PolicyUse(content_hash=name, greedy=message.greedy, epsilon=message.epsilon, clip_only=message.clip_only)


# ---- the answer -------------------------------------------------------------------------------------------------

MASKS = ("began", "stopped", "final", "distrusted", "world_error")


def decode_imagined(
    message: pb.Imagined, observation: tuple[Leaf, ...], action: tuple[Leaf, ...], lanes: int
) -> Imagined:
    """The inverse of rollout_parts.encode_imagined; all arrays are fresh and writable."""
    shape = (message.steps, lanes)
    final = _as_mask(message.final, shape, "final")
    finals = 0 if final is None else int(final.sum())
    found: dict[str, Leaves | None] = {}
    for name, spec, lead in (
        ("start", observation, (lanes,)),
        ("observation", observation, shape),
        ("action", action, shape),
        ("final_observation", observation, (finals,)),
    ):
        found[name] = decode_leaves(spec, getattr(message, name), lead, check=False) if message.HasField(name) else None
    outputs = {
        name: info.value.reshape(*shape, *info.value.shape[1:])
        for name, info in decode_infos(message.outputs, math.prod(shape)).items()
    }
    return Imagined(
        first=message.first,
        reward=_as_array(message.rewards, "<f8", shape, "rewards"),
        terminated=decode_mask(message.terminated, math.prod(shape), "terminated").reshape(shape),
        truncated=decode_mask(message.truncated, math.prod(shape), "truncated").reshape(shape),
        began=_as_mask(message.began, shape, "began"),
        stopped=_as_mask(message.stopped, shape, "stopped"),
        final=final,
        uncertainty=_as_array(message.uncertainty, "<f4", shape, "uncertainty") if message.uncertainty else None,
        distrusted=_as_mask(message.distrusted, shape, "distrusted"),
        world_error=_as_mask(message.world_error, shape, "world_error"),
        log_probability=(
            _as_array(message.log_probability, "<f4", shape, "log_probability") if message.log_probability else None
        ),
        outputs=outputs or None,
        last=message.last,
        **found,
    )


def joined(parts: Sequence[Imagined]) -> Imagined:
    """All parts of a rollout as one."""
    if len(parts) == 1:
        return parts[0]
    whole: dict[str, Any] = {
        name: _stack([getattr(part, name) for part in parts]) for name in ("reward", "terminated", "truncated")
    }
    for name in MASKS:
        whole[name] = _stack_some(parts, name, False)
    whole["uncertainty"] = _stack_some(parts, "uncertainty", np.nan)
    whole["log_probability"] = _stack_some(parts, "log_probability", 0.0)
    for name in ("observation", "action", "final_observation", "outputs"):
        given = [leaves for part in parts if (leaves := getattr(part, name)) is not None]
        whole[name] = {path: _stack([leaves[path] for leaves in given]) for path in given[0]} if given else None
    return Imagined(first=parts[0].first, start=parts[0].start, last=parts[-1].last, **whole)


def _stack(arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays)


def _stack_some(parts: Sequence[Imagined], name: str, nothing: float) -> Array | None:
    """The arrays of all parts, where some may have none."""
    given = [getattr(part, name) for part in parts]
    known = next((array for array in given if array is not None), None)
    if known is None:
        return None
    return _stack(
        [
            np.full(part.reward.shape, nothing, known.dtype) if array is None else array
            for part, array in zip(parts, given, strict=True)
        ]
    )


def _as_mask(raw: bytes, shape: tuple[int, int], name: str) -> Array | None:
    return decode_mask(raw, math.prod(shape), name).reshape(shape) if raw else None


def _as_array(raw: bytes, dtype: str, shape: tuple[int, int], name: str) -> Array:
    kind = np.dtype(dtype)
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise InvalidInput(name, f"{len(raw)} bytes do not fill shape {shape} of {kind}")
    array = np.frombuffer(raw, kind).reshape(shape)
    return array.copy() if LITTLE else array.astype(kind.newbyteorder("="))
