"""A torch network as an ONNX graph, layer by layer. Asks layers for their class's name; imports no torch.

Written out by hand and not traced: it takes 1 ms where torch's older exporter, which is being given up, takes 32, and
the newer one needs a further package. Weights keep the names that they have in the module's state, so that new weights
fit an old graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from simservice.errors import InvalidInput
from simservice.types import Array, Leaf

OPSET = 17
IR_VERSION = 8
LANES = "lanes"  # the name of the open first axis
FLOAT = int(TensorProto.FLOAT)
RECURRENT = (
    "rollouts on the server keep no memory between steps, so a recurrent module (use_lstm) is not translated; sample "
    "with RLlib's own SingleAgentEnvRunner instead"
)


@dataclass
class Graph:
    """Nodes and weights so far; values are known by their names."""

    weights: Mapping[str, Array]  # a module's state, by name
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    parameters: dict[str, Array] = field(default_factory=dict)  # what changes with training, as float32
    constants: dict[str, Array] = field(default_factory=dict)  # what does not

    def input(self, leaf: Leaf) -> str:
        """An observation leaf of all lanes, (lanes, *leaf.shape) in the leaf's dtype."""
        kind = helper.np_dtype_to_tensor_dtype(leaf.dtype)
        self.inputs.append(helper.make_tensor_value_info(leaf.path, kind, [LANES, *leaf.shape]))
        return leaf.path

    def output(self, name: str, value: str, width: int) -> None:
        """Names `value`, (lanes, width) float32, as one of the graph's results."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, [LANES, width]))

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """A node with one result, whose name is returned."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def parameter(self, name: str) -> str:
        """A weight by its name in the state."""
        self.parameters[name] = np.ascontiguousarray(self.weights[name], dtype=np.float32)
        return name

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """An array that training does not change."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype=dtype)
        return name

    def columns(self, value: str, begin: int, end: int) -> str:
        """Columns of a (lanes, columns) value."""
        return self.add("Slice", value, *(self.constant([number], np.int64) for number in (begin, end, 1)))

    def serialized(self) -> bytes:
        """The whole model as an ONNX file."""
        stored = [numpy_helper.from_array(array, name) for name, array in {**self.constants, **self.parameters}.items()]
        graph = helper.make_graph(self.nodes, "policy", self.inputs, self.outputs, initializer=stored)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="simservice"
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def add_network(graph: Graph, network: Any, path: str, value: str) -> str:
    """The nodes of a network whose weights are called `path`.…; takes and returns the name of a value."""
    kind = type(network).__name__
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](graph, network, path, value)
    if kind in _LAYERS:
        return _LAYERS[kind](graph, network, path, value)
    if "LSTM" in kind or "GRU" in kind:
        raise InvalidInput(f"RLModule.{path}", f"is a {kind}; {RECURRENT}")
    raise InvalidInput(
        f"RLModule.{path}",
        f"is a {kind}, which has no translation for rollouts; there is one for "
        f"{', '.join(sorted(_LAYERS))}. Sample with RLlib's own SingleAgentEnvRunner instead",
    )


# ---- containers ----------------------------------------------------------------------------------------------------


def _sequence(graph: Graph, network: Any, path: str, value: str) -> str:
    for name, layer in network.named_children():
        value = add_network(graph, layer, f"{path}.{name}", value)
    return value


def _perceptron(graph: Graph, network: Any, path: str, value: str) -> str:
    return _sequence(graph, network.mlp, f"{path}.mlp", value)


def _convolutions(graph: Graph, network: Any, path: str, value: str) -> str:
    """RLlib's frames are (lanes, height, width, channels) before and after."""
    value = graph.add("Transpose", value, perm=[0, 3, 1, 2])
    value = _sequence(graph, network.cnn, f"{path}.cnn", value)
    return graph.add("Transpose", value, perm=[0, 2, 3, 1])


def _head(graph: Graph, network: Any, path: str, value: str) -> str:
    value = add_network(graph, network.net, f"{path}.net", value)
    if not network.clip_log_std:
        return value
    half = graph.weights[_last_bias(graph, path)].shape[0] // 2
    mean, log_std = graph.columns(value, 0, half), graph.columns(value, half, 2 * half)
    return graph.add("Concat", mean, _clipped(graph, network, log_std), axis=1)


def _head_with_free_log_std(graph: Graph, network: Any, path: str, value: str) -> str:
    """Standard deviations that are weights of their own, the same for every observation."""
    mean = add_network(graph, network.net, f"{path}.net", value)
    log_std = graph.parameter(f"{path}.log_std")
    if network.clip_log_std:
        log_std = _clipped(graph, network, log_std)
    everywhere = graph.add("Add", graph.add("Mul", mean, graph.constant(0.0)), log_std)
    return graph.add("Concat", mean, everywhere, axis=1)


def _clipped(graph: Graph, network: Any, log_std: str) -> str:
    bound = float(network.config.log_std_clip_param)
    return graph.add("Clip", log_std, graph.constant(-bound), graph.constant(bound))


def _last_bias(graph: Graph, path: str) -> str:
    names = [name for name in graph.weights if name.startswith(f"{path}.net.") and name.endswith(".bias")]
    return max(names, key=lambda name: int(name.split(".")[-2]))


# ---- layers --------------------------------------------------------------------------------------------------------


def _linear(graph: Graph, layer: Any, path: str, value: str) -> str:
    parts = [value, graph.parameter(f"{path}.weight")]
    if layer.bias is not None:
        parts.append(graph.parameter(f"{path}.bias"))
    return graph.add("Gemm", *parts, transB=1)


def _convolution(graph: Graph, layer: Any, path: str, value: str) -> str:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise InvalidInput(f"RLModule.{path}", f"pads by {layer.padding_mode}, {layer.padding}; zeros are translated")
    parts = [value, graph.parameter(f"{path}.weight")]
    if layer.bias is not None:
        parts.append(graph.parameter(f"{path}.bias"))
    return graph.add(
        "Conv",
        *parts,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        dilations=list(layer.dilation),
        group=layer.groups,
        pads=[*layer.padding, *layer.padding],
    )


def _zero_padding(graph: Graph, layer: Any, path: str, value: str) -> str:
    left, right, top, bottom = layer.padding
    return graph.add("Pad", value, graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64))


def _layer_norm(graph: Graph, layer: Any, path: str, value: str) -> str:
    weight, bias = graph.parameter(f"{path}.weight"), graph.parameter(f"{path}.bias")
    return graph.add("LayerNormalization", value, weight, bias, axis=-len(layer.normalized_shape), epsilon=layer.eps)


def _channel_norm(graph: Graph, layer: Any, path: str, value: str) -> str:
    """RLlib's LayerNorm1D: over the channels of (lanes, channels, height, width)."""
    last = graph.add("Transpose", value, perm=[0, 2, 3, 1])
    return graph.add("Transpose", _layer_norm(graph, layer.layer_norm, f"{path}.layer_norm", last), perm=[0, 3, 1, 2])


def _silu(graph: Graph, layer: Any, path: str, value: str) -> str:
    return graph.add("Mul", value, graph.add("Sigmoid", value))


def _gelu(graph: Graph, layer: Any, path: str, value: str) -> str:
    if layer.approximate != "none":
        raise InvalidInput(f"RLModule.{path}", f"is a GELU of kind {layer.approximate!r}; the exact one is translated")
    scaled = graph.add("Erf", graph.add("Mul", value, graph.constant(2.0**-0.5)))
    return graph.add("Mul", graph.add("Mul", value, graph.constant(0.5)), graph.add("Add", scaled, graph.constant(1.0)))


def _flatten(graph: Graph, layer: Any, path: str, value: str) -> str:
    return graph.add("Flatten", value, axis=1)


def _identity(graph: Graph, layer: Any, path: str, value: str) -> str:
    return value


def _plain(operation: str, **names: str) -> Callable[[Graph, Any, str, str], str]:
    """A layer that ONNX has, too; `names` are its attributes by their names in torch."""

    def add(graph: Graph, layer: Any, path: str, value: str) -> str:
        attributes = {ours: float(getattr(layer, theirs)) for ours, theirs in names.items()}
        return graph.add(operation, value, **attributes)

    return add


_Translation = Callable[[Graph, Any, str, str], str]

_CONTAINERS: Mapping[str, _Translation] = {
    "Sequential": _sequence,
    "TorchMLP": _perceptron,
    "TorchCNN": _convolutions,
    "TorchMLPHead": _head,
    "TorchFreeLogStdMLPHead": _head_with_free_log_std,
    "TorchMLPEncoder": lambda graph, network, path, value: add_network(graph, network.net, f"{path}.net", value),
    "TorchCNNEncoder": lambda graph, network, path, value: add_network(graph, network.net, f"{path}.net", value),
}

_LAYERS: Mapping[str, _Translation] = {
    "Linear": _linear,
    "Conv2d": _convolution,
    "ZeroPad2d": _zero_padding,
    "LayerNorm": _layer_norm,
    "LayerNorm1D": _channel_norm,
    "Flatten": _flatten,
    "Identity": _identity,
    "ReLU": _plain("Relu"),
    "Tanh": _plain("Tanh"),
    "Sigmoid": _plain("Sigmoid"),
    "Softplus": _plain("Softplus"),
    "ELU": _plain("Elu", alpha="alpha"),
    "LeakyReLU": _plain("LeakyRelu", alpha="negative_slope"),
    "SiLU": _silu,
    "GELU": _gelu,
}


def replaced(model: bytes, weights: Mapping[str, Array]) -> bytes:
    """An ONNX file with other values in the initializers of these names."""
    parsed = onnx.load_from_string(model)
    for stored in parsed.graph.initializer:
        if stored.name in weights:
            stored.CopyFrom(numpy_helper.from_array(weights[stored.name], stored.name))
    return bytes(parsed.SerializeToString())


def width_of(state: Mapping[str, Array], path: str) -> int:
    """How many numbers a network's last linear layer gives."""
    names: Sequence[str] = [
        name for name in state if name.startswith(f"{path}.") and name.endswith(".weight") and state[name].ndim == 2
    ]
    return int(state[max(names, key=lambda name: int(name.split(".")[-2]))].shape[0])
