"""What an uploaded policy costs a rollout a step: the call and the draw of actions, beside other ways to do the same.

A 64x64 tanh network with a value. Every way runs in turn, round by round, so that whatever else the machine does meets
all alike; told are medians over rounds of the quickest of a few calls, in microseconds.

    python benchmarks/policy_call.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from gymnasium import spaces
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import policy_files as files  # noqa: E402

from simservice.engine.policies import DistributionName  # noqa: E402
from simservice.engine.sampling import ActionDistribution, SamplingParameters, sample  # noqa: E402
from simservice.engine.uploads.inspection import inspect  # noqa: E402
from simservice.engine.uploads.limits import PolicyLimits  # noqa: E402
from simservice.engine.uploads.session import OnnxPolicy, Watchdog  # noqa: E402
from simservice.engine.uploads.shelf import requirements_of  # noqa: E402
from simservice.types import Array  # noqa: E402

LANES = (1, 64, 256, 1024, 4096)
CALLS = 20
HEADS: dict[DistributionName, tuple[str, spaces.Space, int]] = {
    "categorical": ("action_dist_inputs", spaces.Discrete(3), 3),
    "epsilon_greedy": ("q_values", spaces.Discrete(3), 3),
    "gaussian": ("action_dist_inputs", spaces.Box(-1, 1, (6,), np.float32), 12),
    "squashed_gaussian": ("action_dist_inputs", spaces.Box(-1, 1, (6,), np.float32), 12),
}


def quickest_us(call: Callable[[], object]) -> float:
    """Of a few calls, by the clock on the wall."""
    best = float("inf")
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best * 1e6


def ways(policy: OnnxPolicy, file: bytes, lanes: int) -> dict[str, Callable[[], object]]:
    """Ways to get the head and the value of so many lanes."""
    weights = {one.name: numpy_helper.to_array(one).copy() for one in onnx.load_from_string(file).graph.initializer}
    observation = np.random.default_rng(0).standard_normal((lanes, 4)).astype(np.float32)
    feeds = {"observation": observation}
    session, names = policy._session._session, policy._names
    binding = session.io_binding()
    binding.bind_cpu_input("observation", observation)
    kept = [np.empty((lanes, *spec.shape), spec.dtype) for spec in policy.outputs]
    for name, array in zip(names, kept, strict=True):
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def bound() -> list[Array]:
        session.run_with_iobinding(binding)
        return kept  # which the binding points into and does not keep

    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}

    def by_torch() -> list[Array]:
        with torch.inference_mode():
            hidden = torch.from_numpy(observation)
            for place in range(2):
                hidden = torch.addmm(tensors[f"bias_{place}"], hidden, tensors[f"weight_{place}"]).tanh_()
            head = torch.addmm(tensors["bias_2"], hidden, tensors["weight_2"])
            return [head.numpy(), (hidden @ tensors["value_weight"])[:, 0].numpy()]

    def by_numpy() -> list[Array]:
        hidden = observation
        for place in range(2):
            hidden = np.tanh(hidden @ weights[f"weight_{place}"] + weights[f"bias_{place}"])
        return [hidden @ weights["weight_2"] + weights["bias_2"], (hidden @ weights["value_weight"])[:, 0]]

    return {
        "policy": lambda: policy(feeds),
        "onnxruntime alone": lambda: session.run(names, feeds),
        "bound outputs": bound,
        "torch": by_torch,
        "numpy": by_numpy,
    }


def draws(lanes: int) -> dict[str, Callable[[], object]]:
    """Actions of every distribution for so many lanes."""
    rng, found = np.random.default_rng(0), {}
    for name, (output, space, width) in HEADS.items():
        distribution = ActionDistribution(name, space)
        head = {output: rng.standard_normal((lanes, width)).astype(np.float32)}
        luck = {kind: rng.random((lanes, *draw.shape), np.float32) for kind, draw in distribution.draws.items()}
        parameters = SamplingParameters(epsilon=0.1 if name == "epsilon_greedy" else 0.0)
        found[name] = lambda d=distribution, h=head, u=luck, p=parameters: sample(d, h, u, p)
    return found


def main() -> None:
    """Prints a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = files.mlp()
    world = requirements_of("categorical", spaces.Box(-np.inf, np.inf, (4,), np.float32), spaces.Discrete(3))
    limits, watchdog = PolicyLimits(), Watchdog()
    policy = OnnxPolicy(*inspect(file, world, limits), limits, watchdog)
    found: dict[int, dict[str, float]] = {}
    for lanes in LANES:
        calls = {**ways(policy, file, lanes), **draws(lanes)}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for name, call in calls.items():
                times[name].append(quickest_us(call))
        found[lanes] = {name: round(float(np.median(series)), 1) for name, series in times.items()}
        print(f"{lanes:>5} lanes: " + ", ".join(f"{name} {value:g}" for name, value in found[lanes].items()))
    watchdog.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
