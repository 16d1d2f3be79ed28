"""A small exact policy for tests of rollouts: a linear head, no ONNX, every number known."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from simservice.engine.policies import DistributionName, TensorSpec

WIDTHS: dict[str, int] = {"categorical": 3, "gaussian": 4, "squashed_gaussian": 4, "epsilon_greedy": 3}
HEADS = {"epsilon_greedy": "q_values"}


class LinearPolicy:
    """Its head is observation @ weights, its value their sum; `hold` is waited for before a call answers."""

    def __init__(self, distribution: DistributionName = "categorical", seed: int = 0, scale: float = 1.0) -> None:
        width = WIDTHS[distribution]
        self.distribution = distribution
        self.content_hash = f"{seed:064x}"
        self.weights = (np.random.default_rng(seed).normal(size=(4, width)) * scale).astype(np.float32)
        self.head = HEADS.get(distribution, "action_dist_inputs")
        self.inputs = (TensorSpec("observation", (4,), np.dtype(np.float32)),)
        self.outputs = (
            TensorSpec(self.head, (width,), np.dtype(np.float32)),
            TensorSpec("value", (), np.dtype(np.float32)),
        )
        self.calls = 0
        self.hold: threading.Event | None = None

    def __call__(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.hold is not None:
            self.hold.wait(10.0)
        head = observation["observation"] @ self.weights
        return {self.head: head, "value": head.sum(axis=1)}


def linear_model(seed: int = 0, width: int = 3) -> bytes:
    """The same head as an ONNX file, with the value beside it."""
    weights = (np.random.default_rng(seed).normal(size=(4, width))).astype(np.float32)
    ones = np.ones((width, 1), np.float32)
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["observation", "weights"], ["action_dist_inputs"]),
            helper.make_node("MatMul", ["action_dist_inputs", "ones"], ["column"]),
            helper.make_node("Squeeze", ["column", "axes"], ["value"]),
        ],
        "linear",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", 4])],
        [
            helper.make_tensor_value_info("action_dist_inputs", TensorProto.FLOAT, ["n", width]),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n"]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(ones, "ones"), axes],
    )
    opset = helper.make_opsetid("", 18)
    raw: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return raw
