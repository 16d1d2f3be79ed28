"""A policy as benchmarks use it: two hidden layers of 64, random weights, as an ONNX file."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (64, 64)


def mlp(inputs: int, actions: int, leaf: str) -> bytes:
    """Two hidden layers of tanh, logits and a value, as an ONNX file."""
    rng = np.random.default_rng(0)
    nodes, arrays, last, width = [], [], leaf, inputs
    for place, wide in enumerate((*WIDTHS, actions)):
        weight = (rng.normal(size=(width, wide)) / np.sqrt(width)).astype(np.float32)
        arrays += [numpy_helper.from_array(weight, f"w{place}")]
        arrays += [numpy_helper.from_array(np.zeros(wide, np.float32), f"b{place}")]
        final = place == len(WIDTHS)
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"m{place}"]))
        nodes.append(
            helper.make_node("Add", [f"m{place}", f"b{place}"], ["action_dist_inputs" if final else f"a{place}"])
        )
        if not final:
            nodes.append(helper.make_node("Tanh", [f"a{place}"], [f"h{place}"]))
            last, width = f"h{place}", wide
    arrays += [numpy_helper.from_array(rng.normal(size=(width, 1)).astype(np.float32), "v")]
    arrays += [numpy_helper.from_array(np.array([1], np.int64), "axes")]
    nodes += [
        helper.make_node("MatMul", [last, "v"], ["column"]),
        helper.make_node("Squeeze", ["column", "axes"], ["value"]),
    ]
    head = helper.make_tensor_value_info("action_dist_inputs", TensorProto.FLOAT, ["n", actions])
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n"])
    given = helper.make_tensor_value_info(leaf, TensorProto.FLOAT, ["n", inputs])
    graph = helper.make_graph(nodes, "mlp", [given], [head, value], arrays)
    opset = helper.make_opsetid("", 18)
    raw: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return raw
