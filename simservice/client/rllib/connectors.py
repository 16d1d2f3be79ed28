"""What RLlib's connector pipelines do to observations and actions, said so that a server can do it; or a refusal.

A connector runs Python for every step, which a rollout on the server cannot. Those that RLlib adds by itself, and the
ones named here, are expressed in the policy's graph; any other is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.utils.numpy import flatten_inputs_to_1d_tensor
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space

from simservice.client.rllib.layers import FLOAT, Graph
from simservice.errors import InvalidInput
from simservice.types import Array, Leaf, Leaves, from_leaves, leaves_of

PASSING = frozenset(
    {
        "AddObservationsFromEpisodesToBatch",
        "AddTimeDimToBatchAndZeroPad",
        "AddStatesFromEpisodesToBatch",
        "BatchIndividualItems",
        "NumpyToTensor",
    }
)
"""Env-to-module connectors of every pipeline; none of them changes an observation where nothing is recurrent."""

ACTING = frozenset(
    {
        "GetActions",
        "TensorToNumpy",
        "UnBatchToIndividualItems",
        "RemoveSingleTsTimeRankFromBatch",
        "NormalizeAndClipActions",
        "ListifyDataForVectorEnv",
    }
)
"""Module-to-env connectors of every pipeline: sampling, and fitting actions to their space, which the server does."""


class ScaledFrames(SingleAgentObservationPreprocessor):  # type: ignore[misc]
    """Frames of uint8 as float32 in [0, 1]: what RLlib's convolutions read. For env_to_module_connector.

    Works with RLlib's own runners and, unlike a connector of one's own, with rollouts on the server.
    """

    def recompute_output_observation_space(
        self, input_observation_space: gym.Space[Any], input_action_space: gym.Space[Any]
    ) -> gym.Space[Any]:
        """A Box of the same shape; InvalidInput for what holds no frames."""
        space = input_observation_space
        if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
            raise InvalidInput("observation space", f"is {space}; ScaledFrames reads a Box of uint8")
        return spaces.Box(0.0, 1.0, space.shape, np.float32)

    def preprocess(self, observation: Array, episode: Any) -> Array:
        """One frame, or any number of them."""
        return scaled(observation)


def scaled(frames: Array) -> Array:
    """uint8 to float32 in [0, 1]."""
    return np.multiply(frames, np.float32(1 / 255), dtype=np.float32)


@dataclass(frozen=True)
class Reading:
    """How a module reads observations: as nodes of its graph, and as arrays for episodes."""

    observe: Callable[[Graph], str]  # adds inputs and nodes; returns the name of what the module reads
    stored: Callable[[Leaves], Array]  # observation leaves (n, ...) to what RLlib's episodes hold, (n, ...)
    space: gym.Space[Any]  # of one stored observation


def reading(pipeline: Any, observation_space: gym.Space[Any]) -> Reading:
    """What an env-to-module pipeline does; InvalidInput names the connector that has no translation."""
    changing = [piece for piece in pipeline.connectors if _name(piece) not in PASSING]
    if len(changing) > 1:
        names = ", ".join(map(_name, changing))
        raise InvalidInput("env_to_module_connector", f"{names}: one connector that changes observations is translated")
    leaves = leaves_of(observation_space, "observation")
    if not changing:
        return _as_it_is(observation_space, leaves)
    piece = changing[0]
    if type(piece) is ScaledFrames:
        return _scaled_frames(pipeline.observation_space, leaves[0])
    if _name(piece) == "FlattenObservations" and not piece._keys_to_remove:
        return _flattened(pipeline.observation_space, observation_space, leaves)
    raise InvalidInput("env_to_module_connector", _refusal(_name(piece)))


def check_acting(pipeline: Any) -> None:
    """InvalidInput names the module-to-env connector that has no translation."""
    for piece in pipeline.connectors:
        if _name(piece) not in ACTING:
            raise InvalidInput("module_to_env_connector", _refusal(_name(piece)))


def _name(piece: Any) -> str:
    """RLlib's own by the name of its class; another one, which may be called alike, by its whole path."""
    kind = type(piece)
    return kind.__name__ if kind.__module__.startswith("ray.rllib.") else f"{kind.__module__}.{kind.__qualname__}"


def _refusal(name: str) -> str:
    return (
        f"{name} runs Python in every step and has no translation for rollouts on the server (there is one for "
        "ScaledFrames and FlattenObservations without keys_to_remove); leave it out, or sample with RLlib's own "
        "SingleAgentEnvRunner"
    )


# ---- readings ------------------------------------------------------------------------------------------------------


def _as_it_is(space: gym.Space[Any], leaves: Sequence[Leaf]) -> Reading:
    if not isinstance(space, spaces.Box) or leaves[0].dtype.kind != "f":
        kind = f"a Box of {space.dtype}" if isinstance(space, spaces.Box) else f"a {type(space).__name__}"
        raise InvalidInput(
            "observation space",
            f"is {kind}, which RLlib's networks do not read as it is; add env_to_module_connector=ScaledFrames for "
            "frames, or FlattenObservations",
        )
    return Reading(lambda graph: _float(graph, leaves[0]), lambda found: found["observation"], space)


def _scaled_frames(space: gym.Space[Any], leaf: Leaf) -> Reading:
    def observe(graph: Graph) -> str:
        return graph.add("Mul", _float(graph, leaf), graph.constant(1 / 255))

    return Reading(observe, lambda found: scaled(found["observation"]), space)


def _flattened(space: gym.Space[Any], observation_space: gym.Space[Any], leaves: Sequence[Leaf]) -> Reading:
    """One row of numbers a lane; RLlib takes a Dict's parts in the order of their sorted names, as tree does."""
    struct = get_base_struct_from_space(observation_space)

    def observe(graph: Graph) -> str:
        parts = [_flat_part(graph, leaf) for leaf in _in_sorted_order(observation_space, leaves)]
        return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)

    def stored(found: Leaves) -> Array:
        nested = from_leaves(observation_space, found, "observation")
        return np.asarray(flatten_inputs_to_1d_tensor(nested, struct, batch_axis=True), dtype=np.float32)

    return Reading(observe, stored, space)


def _in_sorted_order(space: gym.Space[Any], leaves: Sequence[Leaf]) -> list[Leaf]:
    by_path = {leaf.path: leaf for leaf in leaves}
    return [by_path[path] for path in _sorted_paths(space, "observation")]


def _sorted_paths(space: gym.Space[Any], root: str) -> list[str]:
    if isinstance(space, spaces.Dict):
        return [path for key in sorted(space.spaces) for path in _sorted_paths(space.spaces[key], f"{root}/{key}")]
    if isinstance(space, spaces.Tuple):
        return [path for i, child in enumerate(space.spaces) for path in _sorted_paths(child, f"{root}/{i}")]
    return [root]


def _flat_part(graph: Graph, leaf: Leaf) -> str:
    if isinstance(leaf.space, spaces.Discrete | spaces.MultiDiscrete):
        return _one_hot(graph, leaf)
    width = int(np.prod(leaf.shape))
    return graph.add("Reshape", _float(graph, leaf), graph.constant([-1, width], np.int64))


def _one_hot(graph: Graph, leaf: Leaf) -> str:
    """Comparison with every number that there is: RLlib's one_hot, which counts from 0 whatever the space's start."""
    counts = [int(leaf.space.n)] if isinstance(leaf.space, spaces.Discrete) else np.ravel(leaf.space.nvec).tolist()  # type: ignore[attr-defined]
    value = graph.add("Cast", graph.input(leaf), to=FLOAT)
    value = graph.add("Reshape", value, graph.constant([-1, len(counts)], np.int64))
    parts = []
    for column, count in enumerate(counts):
        one = graph.columns(value, column, column + 1)
        same = graph.add("Equal", one, graph.constant(np.arange(count)[None]))
        parts.append(graph.add("Cast", same, to=FLOAT))
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _float(graph: Graph, leaf: Leaf) -> str:
    value = graph.input(leaf)
    return value if leaf.dtype == np.float32 else graph.add("Cast", value, to=FLOAT)
