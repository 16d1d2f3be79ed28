"""A trained policy as plain arrays: a small network that acts with numpy alone. Does not know who trained it.

The file is an .npz of weights and one JSON text; it is read with pickling forbidden.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.types import Array

Act = Callable[[Array], Array]
"""A batch of observations (lanes, ...) in, a batch of actions in the action space's dtype out."""

FORMAT = "simservice-policy-1"
_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0)}


@dataclass(frozen=True)
class Policy:
    """A multilayer perceptron over flat observations.

    The last layer gives logits for a Discrete action space; for a Box it gives means, then log standard deviations,
    of a normal distribution, squeezed from [-1, 1] onto the bounds where both are finite.
    """

    layers: Sequence[tuple[Array, Array]]  # (out, in) weight and (out,) bias of each layer
    action_space: spaces.Discrete[Any] | spaces.Box
    activation: Literal["tanh", "relu"] = "tanh"

    def forward(self, observation: Array) -> Array:
        """What the last layer says: (lanes, ...) observations to (lanes, outputs) float32."""
        hidden = np.asarray(observation, dtype=np.float32).reshape(len(observation), -1)
        wanted = self.layers[0][0].shape[1]
        if hidden.shape[1] != wanted:
            raise InvalidInput("observation", f"has {hidden.shape[1]} numbers a lane; this policy reads {wanted}")
        for weight, bias in self.layers[:-1]:
            hidden = _ACTIVATIONS[self.activation](hidden @ weight.T + bias)
        weight, bias = self.layers[-1]
        return np.asarray(hidden @ weight.T + bias)

    def greedy(self) -> Act:
        """The policy that always takes its likeliest action."""

        def act(observation: Array) -> Array:
            output = self.forward(observation)
            if isinstance(self.action_space, spaces.Discrete):
                return self._discrete(output.argmax(axis=1))
            return self._continuous(output[:, : output.shape[1] // 2])

        return act

    def sampled(self, seed: int) -> Act:
        """The policy that draws its actions, as it did while it learned; the same seed draws the same."""
        generator = np.random.default_rng(seed)

        def act(observation: Array) -> Array:
            output = self.forward(observation)
            if isinstance(self.action_space, spaces.Discrete):
                gumbel = generator.gumbel(size=output.shape)  # argmax(logits + Gumbel) is a draw of the softmax
                return self._discrete((output + gumbel).argmax(axis=1))
            mean, log_std = np.split(output, 2, axis=1)
            return self._continuous(mean + np.exp(log_std) * generator.standard_normal(mean.shape))

        return act

    def save(self, path: str | Path) -> Path:
        """Writes the file whole or not at all; the folder is made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Array] = {}
        for index, (weight, bias) in enumerate(self.layers):
            arrays[f"weight_{index}"], arrays[f"bias_{index}"] = weight, bias
        head = {"format": FORMAT, "layers": len(self.layers), "activation": self.activation}
        if isinstance(self.action_space, spaces.Discrete):
            head["discrete"] = {"n": int(self.action_space.n), "start": int(self.action_space.start)}
            arrays["action"] = np.zeros((), self.action_space.dtype)
        else:
            head["box"] = True
            arrays["action_low"], arrays["action_high"] = self.action_space.low, self.action_space.high
        arrays["head"] = np.frombuffer(json.dumps(head, sort_keys=True).encode(), dtype=np.uint8)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(file.name, path)
        return path

    def _discrete(self, index: Array) -> Array:
        assert isinstance(self.action_space, spaces.Discrete)
        return np.asarray(index + self.action_space.start, dtype=self.action_space.dtype)

    def _continuous(self, squeezed: Array) -> Array:
        assert isinstance(self.action_space, spaces.Box)
        low, high = self.action_space.low, self.action_space.high
        bounded = np.isfinite(low) & np.isfinite(high)
        values = squeezed.reshape(len(squeezed), *self.action_space.shape)
        with np.errstate(invalid="ignore"):
            stretched = np.where(bounded, low + (values + 1.0) * (high - low) / 2.0, values)
        return np.clip(stretched, low, high).astype(self.action_space.dtype)


def check_spaces(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> spaces.Discrete[Any] | spaces.Box:
    """The action space, when a policy of this kind can act between these two; InvalidInput says what it cannot."""
    if not isinstance(observation_space, spaces.Box):
        kind = type(observation_space).__name__
        raise InvalidInput("observation space", f"is a {kind}; plain policies read a Box")
    if not isinstance(action_space, spaces.Discrete | spaces.Box):
        raise InvalidInput("action space", f"is a {type(action_space).__name__}; plain policies act in Discrete or Box")
    return action_space


def load_policy(path: str | Path) -> Policy:
    """Reads what Policy.save wrote. Raises InvalidInput when the file is missing or is not a policy."""
    path = Path(path)
    if not path.is_file():
        raise InvalidInput("policy", f"there is no file {path}; agents/ppo_rllib.py writes one with --out")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head = json.loads(arrays["head"].tobytes())
        if head["format"] != FORMAT:
            raise InvalidInput("policy", f"{path} has format {head['format']!r}; this version reads {FORMAT!r}")
        layers = tuple((arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in range(head["layers"]))
        space: spaces.Discrete[Any] | spaces.Box
        if "discrete" in head:
            limits = head["discrete"]
            space = spaces.Discrete(limits["n"], start=limits["start"], dtype=arrays["action"].dtype.type)
        else:
            low, high = arrays["action_low"], arrays["action_high"]
            space = spaces.Box(low, high, dtype=low.dtype.type)
        return Policy(layers, space, head["activation"])
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput("policy", f"{path} is not a policy file, or is damaged ({error})") from error
