"""An RLModule's way to its actions as an ONNX policy that a server can run: PPO's, DQN's and SAC's default modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from simservice.client.rllib.layers import RECURRENT, Graph, add_network, replaced, width_of
from simservice.errors import InvalidInput
from simservice.types import Array

ACTION_DIST_INPUTS = "action_dist_inputs"
Q_VALUES = "q_values"


@dataclass(frozen=True)
class PolicyGraph:
    """A module's way from observations to the inputs of its action distribution."""

    model: bytes  # the ONNX file, with the weights of the moment it was made
    parameters: tuple[str, ...]  # names of the weights that training changes
    constants: Mapping[str, Array]  # the other numbers that a server counts as weights
    head: str  # the output that actions are sampled from
    distribution: str  # how
    width: int  # of the head: numbers a lane

    def weights(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """All weights of the graph when the module's state is this: float32 arrays by name."""
        changed = {name: np.ascontiguousarray(state[name], dtype=np.float32) for name in self.parameters}
        return {**self.constants, **changed}

    def with_weights(self, weights: Mapping[str, Array]) -> bytes:
        """The ONNX file with other weights."""
        return replaced(self.model, weights)


def export_policy(module: Any, read: Callable[[Graph], str]) -> PolicyGraph:
    """The policy of a default RLModule; InvalidInput names what has no translation.

    `read` adds the observation leaves to a graph and returns the name of what the module reads; connectors.py has it.
    """
    if module.is_stateful():
        raise InvalidInput("RLModule", RECURRENT)
    state = module.get_state()
    graph = Graph(state)
    value = read(graph)
    family = _family(module)
    if family == "dqn":
        head, distribution = Q_VALUES, "epsilon_greedy"
        value = _q_values(graph, module, value)
        width = width_of(state, "af")
    else:
        head, distribution = ACTION_DIST_INPUTS, _distribution(module)
        encoder, path = _encoder(module)
        value = add_network(graph, module.pi, "pi", add_network(graph, encoder, path, value))
        width = _head_width(module, width_of(state, "pi"))
    graph.output(head, value, width)
    constants = {name: array for name, array in graph.constants.items() if array.dtype == np.float32}
    return PolicyGraph(graph.serialized(), tuple(graph.parameters), constants, head, distribution, width)


def _family(module: Any) -> str:
    names = {kind.__name__ for kind in type(module).__mro__}
    for name, family in _FAMILIES.items():
        if name in names:
            return family
    raise InvalidInput(
        "RLModule",
        f"is a {type(module).__name__}, which has no translation for rollouts; there is one for "
        f"{', '.join(_FAMILIES)}. Sample with RLlib's own SingleAgentEnvRunner instead",
    )


_FAMILIES = {"DefaultPPOTorchRLModule": "ppo", "DefaultDQNTorchRLModule": "dqn", "DefaultSACTorchRLModule": "sac"}


def _encoder(module: Any) -> tuple[Any, str]:
    if hasattr(module, "pi_encoder"):
        return module.pi_encoder, "pi_encoder"
    if hasattr(module.encoder, "actor_encoder"):
        return module.encoder.actor_encoder, "encoder.actor_encoder"
    return module.encoder.encoder, "encoder.encoder"


def _head_width(module: Any, last_layer: int) -> int:
    """A head with standard deviations of its own adds them to what its layers give."""
    return 2 * last_layer if hasattr(module.pi, "log_std") else last_layer


def _distribution(module: Any) -> str:
    space, name = module.action_space, module.get_exploration_action_dist_cls().__name__
    if isinstance(space, spaces.Discrete) and "Categorical" in name:
        return "categorical"
    if isinstance(space, spaces.MultiDiscrete) and "Categorical" in name:
        return "multi_categorical"
    if isinstance(space, spaces.Box) and "SquashedGaussian" in name:
        return "squashed_gaussian"
    if isinstance(space, spaces.Box) and "DiagGaussian" in name:
        return "gaussian"
    raise InvalidInput(
        "action distribution",
        f"{name} over {type(space).__name__} has no translation for rollouts; sample with RLlib's own "
        "SingleAgentEnvRunner instead",
    )


def _q_values(graph: Graph, module: Any, value: str) -> str:
    """Expected values of all actions; dueling networks as Wang et al. 2016 (arXiv:1511.06581), equation 9."""
    if module.num_atoms > 1:
        raise InvalidInput("num_atoms", f"is {module.num_atoms}; rollouts are translated for num_atoms=1")
    value = add_network(graph, module.encoder, "encoder", value)
    advantage = add_network(graph, module.af, "af", value)
    if not module.uses_dueling:
        return advantage
    mean = graph.add("ReduceMean", advantage, axes=[1], keepdims=1)
    centred = graph.add("Sub", advantage, mean)
    return graph.add("Add", centred, add_network(graph, module.vf, "vf", value))
