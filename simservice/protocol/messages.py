"""The nouns of types.py to and from the messages of a session: one pair of functions each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from gymnasium.vector import AutoresetMode

from simservice.errors import InvalidInput
from simservice.protocol.spaces import MAX_ELEMENTS, decode_space, dtype_name, dtype_of, encode_space
from simservice.protocol.tensors import check_finite, check_leaves, decode_leaves, decode_mask, encode_leaves
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1 import world_pb2 as world_pb
from simservice.types import (
    SEED_LIMIT,
    Array,
    Context,
    Info,
    Infos,
    Leaf,
    Leaves,
    ResetResult,
    StepResult,
    WorldSpec,
    leaves_of,
)

METADATA_BYTES = 64 * 1024
OPTIONS_CHARACTERS = 64 * 1024

MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
"""All autoreset modes in the order of their numbers on the wire, which begin at 1."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hard limits of a server; see world.proto."""

    max_num_envs: int
    max_message_bytes: int = 64 * 2**20
    idle_ttl_s: int = 600
    replies_kept: int = 4
    max_context_frames: int = 0
    lane_bytes: int = 0
    snapshot_lane_bytes: int = 0
    max_points: int = 0
    max_points_bytes: int = 0
    deadline_s: int = 30
    max_rollout_steps: int = 0
    max_rollout_lanes: int = 0
    max_rollout_bytes: int = 0
    rollout_deadline_s: int = 0


@dataclass(frozen=True, kw_only=True)
class WorldContract:
    """All that a client learns of a world before its first step."""

    spec: WorldSpec
    limits: Limits
    provenance: Mapping[str, Any] = field(default_factory=dict)  # the fields of types.Provenance as JSON values
    autoreset_modes: tuple[AutoresetMode, ...] = MODES
    server_version: str = ""


# ---- the contract -----------------------------------------------------------------------------------------------


def encode_world(contract: WorldContract) -> world_pb.World:
    """The contract as a message. NaN in metadata or provenance becomes null: JSON has no word for it."""
    spec = contract.spec
    for root, space in (("observation", spec.observation_space), ("action", spec.action_space)):
        paths = [leaf.path for leaf in leaves_of(space, root)]
        if len(set(paths)) != len(paths):
            raise InvalidInput(f"{root}_space", "two leaves share a path; no key may contain '/'")
    metadata = json.dumps(plain_json(spec.metadata))
    if len(metadata.encode()) > METADATA_BYTES:
        raise InvalidInput("metadata", f"takes {len(metadata)} bytes as JSON, {METADATA_BYTES} are allowed")
    limits = contract.limits
    return world_pb.World(
        name=spec.name,
        version=spec.version,
        family=spec.family,
        observation_space=encode_space(spec.observation_space, "observation"),
        action_space=encode_space(spec.action_space, "action"),
        max_episode_steps=spec.max_episode_steps or 0,
        render_modes=spec.render_modes,
        metadata_json=metadata,
        capabilities=sorted(spec.capabilities),
        autoreset_modes=[encode_mode(mode) for mode in contract.autoreset_modes],
        limits=world_pb.Limits(
            max_num_envs=limits.max_num_envs,
            max_message_bytes=limits.max_message_bytes,
            idle_ttl_s=limits.idle_ttl_s,
            replies_kept=limits.replies_kept,
            max_context_frames=limits.max_context_frames,
            lane_bytes=limits.lane_bytes,
            snapshot_lane_bytes=limits.snapshot_lane_bytes,
            max_points=limits.max_points,
            max_points_bytes=limits.max_points_bytes,
            deadline_s=limits.deadline_s,
            max_rollout_steps=limits.max_rollout_steps,
            max_rollout_lanes=limits.max_rollout_lanes,
            max_rollout_bytes=limits.max_rollout_bytes,
            rollout_deadline_s=limits.rollout_deadline_s,
        ),
        provenance_json=json.dumps(plain_json(contract.provenance)),
        trust_horizon_steps=spec.trust_horizon_steps,
        server_version=contract.server_version,
    )


def decode_world(message: world_pb.World) -> WorldContract:
    """The inverse of encode_world."""
    limits = message.limits
    return WorldContract(
        spec=WorldSpec(
            name=message.name,
            version=message.version,
            family=message.family,
            observation_space=decode_space(message.observation_space, "observation"),
            action_space=decode_space(message.action_space, "action"),
            max_episode_steps=message.max_episode_steps or None,
            render_modes=tuple(message.render_modes),
            metadata=_json_object(message.metadata_json, "metadata"),
            capabilities=frozenset(message.capabilities),
            trust_horizon_steps=message.trust_horizon_steps if message.HasField("trust_horizon_steps") else None,
        ),
        limits=Limits(
            max_num_envs=limits.max_num_envs,
            max_message_bytes=limits.max_message_bytes,
            idle_ttl_s=limits.idle_ttl_s,
            replies_kept=limits.replies_kept,
            max_context_frames=limits.max_context_frames,
            lane_bytes=limits.lane_bytes,
            snapshot_lane_bytes=limits.snapshot_lane_bytes,
            max_points=limits.max_points,
            max_points_bytes=limits.max_points_bytes,
            deadline_s=limits.deadline_s,
            max_rollout_steps=limits.max_rollout_steps,
            max_rollout_lanes=limits.max_rollout_lanes,
            max_rollout_bytes=limits.max_rollout_bytes,
            rollout_deadline_s=limits.rollout_deadline_s,
        ),
        provenance=_json_object(message.provenance_json, "provenance"),
        autoreset_modes=tuple(decode_mode(mode) for mode in message.autoreset_modes),
        server_version=message.server_version,
    )


def plain_json(value: Any) -> Any:
    """JSON values only: numpy numbers and arrays become Python's, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(child) for key, child in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain_json(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidInput("json", f"{type(value).__name__} is no JSON value")


def _json_object(text: str, field: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for what is nested too deep
        raise InvalidInput(field, f"is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(field, "is no JSON object")
    return found


def encode_mode(mode: AutoresetMode) -> Any:
    """The autoreset mode as the enum of the wire."""
    return world_pb.AutoresetMode.Value(f"AUTORESET_MODE_{mode.name}")


def decode_mode(number: int) -> AutoresetMode:
    """The autoreset mode; 0, left out, is the default."""
    if number == world_pb.AUTORESET_MODE_UNSPECIFIED:
        return AutoresetMode.NEXT_STEP
    if not 1 <= number <= len(MODES):
        raise InvalidInput("autoreset_mode", f"{number} is no autoreset mode")
    return MODES[number - 1]


def parse_request(payload: bytes) -> pb.PlayRequest:
    """A stored or received request; InvalidInput when the bytes are none."""
    try:
        return pb.PlayRequest.FromString(payload)
    except DecodeError as error:
        raise InvalidInput("request", "the bytes are no PlayRequest") from error


# ---- requests ---------------------------------------------------------------------------------------------------


def encode_step(spec: tuple[Leaf, ...], action: Leaves, lanes: int) -> pb.Step:
    """One action a lane. Shapes and dtypes are checked here, values by the receiver."""
    return pb.Step(action=encode_leaves(spec, action, (lanes,)))


def decode_step(spec: tuple[Leaf, ...], message: pb.Step, lanes: int) -> Leaves:
    """The actions, (lanes, ...) each, all finite and inside the action space."""
    return decode_leaves(spec, message.action, (lanes,))


def encode_reset(
    mask: Array | None,
    seeds: Array | None,
    options: Mapping[str, Any],
    context: Context | None,
    *,
    observation: tuple[Leaf, ...],
    action: tuple[Leaf, ...],
) -> pb.Reset:
    """A reset; mask (lanes,) bool, seeds (lanes,) int64 with -1 for lanes not to be seeded."""
    message = pb.Reset()
    if mask is not None:
        message.mask = np.asarray(mask, bool).tobytes()
    if seeds is not None:
        message.seeds = np.asarray(seeds).astype("<i8").tobytes()
    if options:
        message.options_json = json.dumps(plain_json(options))
    if context is not None:
        message.context.frames = context.frames
        message.context.observation.CopyFrom(encode_leaves(observation, context.observation))
        message.context.action.CopyFrom(encode_leaves(action, context.action))
    return message


def decode_reset(
    message: pb.Reset,
    lanes: int,
    *,
    observation: tuple[Leaf, ...],
    action: tuple[Leaf, ...],
    max_context_frames: int,
) -> tuple[Array | None, Array | None, dict[str, Any], Context | None]:
    """Mask, seeds, options and context as encode_reset took them, all checked."""
    mask = decode_mask(message.mask, lanes, "mask") if message.mask else None
    seeds = decode_seeds(message.seeds, lanes) if message.seeds else None
    if len(message.options_json) > OPTIONS_CHARACTERS:
        problem = f"takes {len(message.options_json)} characters as JSON, {OPTIONS_CHARACTERS} are allowed"
        raise InvalidInput("options", problem)
    options = _json_object(message.options_json, "options")
    context = None
    if message.HasField("context"):
        frames = message.context.frames
        if not 1 <= frames <= max_context_frames:
            allowed = f"1 to {max_context_frames}" if max_context_frames else "no"
            raise InvalidInput("context", f"{frames} frames were sent, this world takes {allowed} frames")
        context = Context(
            observation=decode_leaves(observation, message.context.observation, (lanes, frames), check=False),
            action=decode_leaves(action, message.context.action, (lanes, frames - 1), check=False),
        )
        # Real environments leave their own observation bounds now and then, so observations need only be finite.
        check_finite(observation, context.observation)
        check_leaves(action, context.action)
    return mask, seeds, options, context


def decode_seeds(raw: bytes, lanes: int) -> Array:
    """One int64 a lane, -1 for none."""
    if len(raw) != 8 * lanes or not raw:
        raise InvalidInput("seeds", f"{len(raw)} bytes were sent, {8 * lanes} are expected")
    seeds = np.frombuffer(raw, "<i8").astype(np.int64)
    if seeds.min() < -1:
        raise InvalidInput("seeds", f"{seeds.min()} is no seed; take 0 to {SEED_LIMIT - 1}, or -1 for none")
    return seeds


# ---- results ----------------------------------------------------------------------------------------------------


def encode_step_result(spec: tuple[Leaf, ...], result: StepResult) -> pb.Stepped:
    """The result of a vector step; `spec` are the observation's leaves."""
    message = pb.Stepped(
        observation=encode_leaves(spec, result.observation, result.reward.shape),
        rewards=np.asarray(result.reward).astype("<f8", copy=False).tobytes(),
        terminated=np.asarray(result.terminated, bool).tobytes(),
        truncated=np.asarray(result.truncated, bool).tobytes(),
        infos=encode_infos(result.infos) if result.infos else None,
    )
    if result.final is not None and result.final_observation is not None:
        message.final = np.asarray(result.final, bool).tobytes()
        message.final_observation.CopyFrom(encode_leaves(spec, result.final_observation, result.reward.shape))
    return message


def decode_step_result(spec: tuple[Leaf, ...], message: pb.Stepped, lanes: int) -> StepResult:
    """The inverse of encode_step_result; all arrays are fresh and writable."""
    if len(message.rewards) != 8 * lanes:
        raise InvalidInput("rewards", f"{len(message.rewards)} bytes were sent, {8 * lanes} are expected")
    final = final_observation = None
    if message.final:
        final = decode_mask(message.final, lanes, "final")
        final_observation = decode_leaves(spec, message.final_observation, (lanes,), check=False)
    return StepResult(
        observation=decode_leaves(spec, message.observation, (lanes,), check=False),
        reward=np.frombuffer(message.rewards, "<f8").astype(np.float64),
        terminated=decode_mask(message.terminated, lanes, "terminated"),
        truncated=decode_mask(message.truncated, lanes, "truncated"),
        infos=decode_infos(message.infos, lanes) if message.infos else {},
        final_observation=final_observation,
        final=final,
    )


def encode_reset_result(spec: tuple[Leaf, ...], result: ResetResult, lanes: int) -> pb.ResetDone:
    """The result of a reset; `spec` are the observation's leaves."""
    return pb.ResetDone(observation=encode_leaves(spec, result.observation, (lanes,)), infos=encode_infos(result.infos))


def decode_reset_result(spec: tuple[Leaf, ...], message: pb.ResetDone, lanes: int) -> ResetResult:
    """The inverse of encode_reset_result."""
    return ResetResult(
        observation=decode_leaves(spec, message.observation, (lanes,), check=False),
        infos=decode_infos(message.infos, lanes),
    )


def encode_infos(infos: Infos) -> list[pb.Info]:
    """Infos as arrays with presence masks."""
    return [_encode_info(name, info) for name, info in infos.items()]


def _encode_info(name: str, info: Info) -> pb.Info:
    value = np.asarray(info.value)
    dtype = dtype_name(value.dtype.newbyteorder("="), f"info/{name}")
    return pb.Info(
        name=name,
        dtype=dtype,
        shape=value.shape[1:],
        value=value.astype(dtype_of(dtype, name).newbyteorder("<"), copy=False).tobytes(),
        present=b"" if info.present.all() else np.asarray(info.present, bool).tobytes(),
    )


def decode_infos(messages: Sequence[pb.Info], lanes: int) -> Infos:
    """The inverse of encode_infos."""
    return {message.name: _decode_info(message, lanes) for message in messages}


def _decode_info(message: pb.Info, lanes: int) -> Info:
    name = f"info/{message.name}"
    dtype = dtype_of(message.dtype, name)
    shape = (lanes, *message.shape)
    if min(shape) < 0 or math.prod(shape) > MAX_ELEMENTS or len(message.value) != math.prod(shape) * dtype.itemsize:
        raise InvalidInput(name, f"{len(message.value)} bytes do not fill shape {shape} of {dtype}")
    if dtype.kind == "b":
        value = decode_mask(message.value, math.prod(shape), name).reshape(shape)
    elif message.value:
        value = np.frombuffer(message.value, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    else:
        value = np.zeros(shape, dtype)
    present = decode_mask(message.present, lanes, name) if message.present else np.ones(lanes, bool)
    return Info(value, present)


def encode_frames(frames: Array) -> pb.Rendered:
    """RGB frames (lanes, height, width, 3) uint8."""
    _, height, width, _ = frames.shape
    return pb.Rendered(height=height, width=width, frames=np.ascontiguousarray(frames, np.uint8).tobytes())


def decode_frames(message: pb.Rendered, lanes: int) -> Array:
    """The inverse of encode_frames."""
    shape = (lanes, message.height, message.width, 3)
    if len(message.frames) != math.prod(shape):
        raise InvalidInput("frames", f"{len(message.frames)} bytes were sent, {math.prod(shape)} are expected")
    return (
        np.frombuffer(message.frames, np.uint8).reshape(shape).copy() if message.frames else np.zeros(shape, np.uint8)
    )
