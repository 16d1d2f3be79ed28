"""Policies as ONNX files: sound ones, and one of every kind of hostile or careless."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
OPSET = 17


def model(nodes, initializers=(), *, inputs=None, outputs=None, opset=OPSET, domains=(), functions=()):
    """A model of the toy's spaces unless told otherwise: observation (N, 4), three logits."""
    inputs = inputs or [helper.make_tensor_value_info("observation", FLOAT, ["N", 4])]
    outputs = outputs or [helper.make_tensor_value_info("action_dist_inputs", FLOAT, ["N", 3])]
    graph = helper.make_graph(list(nodes), "policy", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def mlp(sizes=(4, 64, 64, 3), *, seed=0, value=True, input_name="observation", head="action_dist_inputs"):
    """Tanh layers with a head and a value, as bytes."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], input_name
    for place, (into, out) in enumerate(pairwise(sizes)):
        ends = place == len(sizes) - 2
        name = head if ends else f"hidden_{place}"
        weights += [
            tensor(f"weight_{place}", (rng.standard_normal((into, out)) / into**0.5).astype(np.float32)),
            tensor(f"bias_{place}", (0.1 * rng.standard_normal(out)).astype(np.float32)),
        ]
        if ends and value:
            weights.append(tensor("value_weight", rng.standard_normal((into, 1)).astype(np.float32)))
            nodes.append(helper.make_node("MatMul", [last, "value_weight"], ["value_column"]))
            weights.append(tensor("last", np.int64([1])))
            nodes.append(helper.make_node("Squeeze", ["value_column", "last"], ["value"]))
        nodes.append(helper.make_node("Gemm", [last, f"weight_{place}", f"bias_{place}"], [name]))
        if not ends:
            nodes.append(helper.make_node("Tanh", [name], [f"active_{place}"]))
            last = f"active_{place}"
    outputs = [helper.make_tensor_value_info(head, FLOAT, ["N", sizes[-1]])]
    if value:
        outputs.append(helper.make_tensor_value_info("value", FLOAT, ["N"]))
    inputs = [helper.make_tensor_value_info(input_name, FLOAT, ["N", sizes[0]])]
    return model(nodes, weights, inputs=inputs, outputs=outputs).SerializeToString()


def mlp_forward(file, observation):
    """What the file's layers say, in numpy: head and value."""
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(file).graph.initializer}
    layers = sum(name.startswith("bias") for name in weights)
    hidden = observation
    for place in range(layers - 1):
        hidden = np.tanh(hidden @ weights[f"weight_{place}"] + weights[f"bias_{place}"])
    head = hidden @ weights[f"weight_{layers - 1}"] + weights[f"bias_{layers - 1}"]
    return head, (hidden @ weights["value_weight"])[:, 0]


HEAD = tensor("w", np.full((4, 3), 0.5, np.float32))


def _to_head(name="observation"):
    return helper.make_node("MatMul", [name, "w"], ["action_dist_inputs"])


def _plus(nodes, name, initializers=()):
    """The head with one number of `name` added, so that nothing of it can be left out."""
    more = [tensor("zero", np.int64([0])), tensor("one_", np.int64([1])), tensor("flat", np.int64([-1]))]
    picked = [
        helper.make_node("Reshape", [name, "flat"], ["flattened"]),
        helper.make_node("Slice", ["flattened", "zero", "one_"], ["number"]),
        helper.make_node("MatMul", ["observation", "w"], ["plain"]),
        helper.make_node("Add", ["plain", "number"], ["action_dist_inputs"]),
    ]
    return model([*nodes, *picked], [HEAD, *more, *initializers]).SerializeToString()


def huge_loop():
    body = helper.make_graph(
        [helper.make_node("Identity", ["condition"], ["go_on"]), helper.make_node("Add", ["state", "state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("count", INT, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, ["N", 4]),
        ],
    )
    loop = helper.make_node("Loop", ["most", "true", "observation"], ["looped"], body=body)
    return model(
        [loop, _to_head("looped")], [HEAD, tensor("most", np.int64(2**62)), tensor("true", np.bool_(True))]
    ).SerializeToString()


def nested_branches(depth=60):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["observation"], ["deep"])],
        "deepest",
        [],
        [helper.make_tensor_value_info("deep", FLOAT, ["N", 4])],
    )
    for _ in range(depth):
        branch = helper.make_node("If", ["true"], ["deep"], then_branch=graph, else_branch=graph)
        if len(branch.SerializeToString()) > 2**18:
            break
        graph = helper.make_graph([branch], "g", [], [helper.make_tensor_value_info("deep", FLOAT, ["N", 4])])
    return model([*graph.node, _to_head("deep")], [HEAD, tensor("true", np.bool_(True))]).SerializeToString()


def nested_bytes(depth=30_000):
    """ModelProto.graph.node.attribute.g.node.attribute.g … as deep as told."""
    heads, length = [], 0
    for place in reversed(range(depth)):
        head = (b"\x0a", b"\x2a", b"\x32")[place % 3] + _varint(length)
        heads.append(head)
        length += len(head)
    return b"\x3a" + _varint(length) + b"".join(reversed(heads))


def _varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def unrolled(depth=1500, width=1024):
    weight = tensor("square", np.full((width, width), 1e-3, np.float32))
    into, out = tensor("into", np.ones((4, width), np.float32)), tensor("w", np.ones((width, 3), np.float32))
    nodes = [helper.make_node("MatMul", ["observation", "into"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{place}", "square"], [f"x{place + 1}"]) for place in range(depth)]
    return model([*nodes, _to_head(f"x{depth}")], [weight, into, out]).SerializeToString()


def external_data(location="/etc/passwd"):
    made = model([_to_head()], [HEAD])
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "48")):
        weight.external_data.add(key=key, value=text)
    return made.SerializeToString()


def strange_weight(number):
    weight = np.full((4, 3), 0.5, np.float32)
    weight[1, 2] = number
    return model([_to_head()], [tensor("w", weight)]).SerializeToString()


def strange_constant(number):
    made = helper.make_node("Constant", [], ["big"], value=tensor("c", np.float32([number])))
    return _plus([made], "big")


def large(operator, attribute="", elements=2**28):
    """A gigabyte that no batch asks for, out of a few bytes."""
    shape = tensor("shape", np.int64([elements]))
    if operator == "ConstantOfShape":
        return _plus([helper.make_node(operator, ["shape"], ["big"])], "big", [shape])
    if operator == "Expand":
        return _plus([helper.make_node(operator, ["seed", "shape"], ["big"])], "big", [shape, tensor("seed", ONE)])
    if operator == "Tile":
        return _plus([helper.make_node(operator, ["seed", "shape"], ["big"])], "big", [shape, tensor("seed", ONE)])
    if operator == "Range":
        ends = [tensor(name, np.int64(number)) for name, number in (("a", 0), ("b", elements), ("c", 1))]
        nodes = [
            helper.make_node(operator, ["a", "b", "c"], ["numbers"]),
            helper.make_node("Cast", ["numbers"], ["big"], to=FLOAT),
        ]
        return _plus(nodes, "big", ends)
    if operator == "Pad":
        pads = tensor("pads", np.int64([0, elements]))
        return _plus([helper.make_node(operator, ["seed", "pads"], ["big"])], "big", [pads, tensor("seed", ONE)])
    if operator == "OneHot":
        more = [
            tensor("indices", np.int64([0])),
            tensor("depth", np.int64(elements)),
            tensor("pair", np.float32([0, 1])),
        ]
        return _plus([helper.make_node(operator, ["indices", "depth", "pair"], ["big"])], "big", more)
    assert operator == "Gather"
    more = [tensor("table", np.ones((1, 2**20), np.float32)), tensor("indices", np.zeros(256, np.int64))]
    return _plus([helper.make_node(operator, ["table", "indices"], ["big"])], "big", more)


ONE = np.ones(1, np.float32)


def range_of_a_weight():
    """Its size is told by a floating-point weight, which an update could make another."""
    ends = [tensor(name, np.float32(number)) for name, number in (("a", 0), ("b", 4), ("c", 1))]
    return _plus([helper.make_node("Range", ["a", "b", "c"], ["big"])], "big", ends)


def cast_weight_to_shape():
    nodes = [
        helper.make_node("Cast", ["size"], ["shape"], to=INT),
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
    ]
    return _plus(nodes, "big", [tensor("size", np.float32([8]))])


def shape_of_the_observation():
    """Its size is told by what a lane sees."""
    nodes = [
        helper.make_node("ReduceMax", ["observation"], ["most"], keepdims=0),
        helper.make_node("Reshape", ["most", "flat"], ["most_1"]),
        helper.make_node("Cast", ["most_1"], ["shape"], to=INT),
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
    ]
    return _plus(nodes, "big")


def tiny_constant_that_claims_a_gigabyte():
    made = model([_to_head()], [HEAD])
    made.graph.initializer.append(TensorProto(name="big", data_type=FLOAT, dims=[2**28], raw_data=b"1234"))
    return made.SerializeToString()


def empty_nodes(count=7_500_000):
    """Two bytes each in the file, a hundred times that once they are parsed."""
    raw = b"\x0a\x00" * count
    return b"\x08\x09\x3a" + _varint(len(raw)) + raw


def hidden_in_a_function():
    body = [helper.make_node("RandomNormalLike", ["x"], ["y"])]
    function = helper.make_function("mine", "Hidden", ["x"], ["y"], body, [helper.make_opsetid("", OPSET)])
    nodes = [helper.make_node("Hidden", ["observation"], ["seen"], domain="mine"), _to_head("seen")]
    return model(nodes, [HEAD], domains=["mine"], functions=[function]).SerializeToString()


def other_domain(domain="com.microsoft", operator="FusedGemm"):
    nodes = [helper.make_node(operator, ["observation", "w"], ["action_dist_inputs"], domain=domain)]
    return model(nodes, [HEAD], domains=[domain]).SerializeToString()


def operator(name, **attributes):
    nodes = [helper.make_node(name, ["observation"], ["seen"], **attributes), _to_head("seen")]
    return model(nodes, [HEAD]).SerializeToString()


def neighbours():
    """Every lane gets the mean of all."""
    nodes = [
        helper.make_node("ReduceMean", ["observation"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["observation", "mean"], ["seen"]),
        _to_head("seen"),
    ]
    return model(nodes, [HEAD]).SerializeToString()


def every_pair():
    """Attention over the batch: N × N."""
    nodes = [
        helper.make_node("Transpose", ["observation"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["observation", "turned"], ["pairs"]),
        helper.make_node("MatMul", ["pairs", "observation"], ["seen"]),
        _to_head("seen"),
    ]
    return model(nodes, [HEAD]).SerializeToString()


def value_of(kind, name, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def with_signature(inputs=None, outputs=None, weight=(4, 3)):
    made = model([_to_head()], [tensor("w", np.ones(weight, np.float32))], inputs=inputs, outputs=outputs)
    return made.SerializeToString()


def sparse_weight():
    made = model([_to_head()], [HEAD])
    values, places = tensor("sparse", np.float32([1])), tensor("places", np.int64([0]))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [12]))
    return made.SerializeToString()


def training_information():
    made = model([_to_head()], [HEAD])
    made.training_info.add().algorithm.CopyFrom(made.graph)
    return made.SerializeToString()


def text_weight():
    made = model([_to_head()], [HEAD])
    made.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"hello"]))
    return made.SerializeToString()


def text_constant():
    node = helper.make_node("Constant", [], ["words"], value_string="hello")
    return model([node, _to_head()], [HEAD]).SerializeToString()


def sequence():
    nodes = [
        helper.make_node("SequenceConstruct", ["observation"], ["all"]),
        helper.make_node("ConcatFromSequence", ["all"], ["seen"], axis=0),
        _to_head("seen"),
    ]
    return model(nodes, [HEAD]).SerializeToString()


def long_name():
    made = model([_to_head()], [tensor("w" * 5000, np.ones((4, 3), np.float32))])
    made.graph.node[0].input[1] = "w" * 5000
    return made.SerializeToString()


def cycle():
    nodes = [
        helper.make_node("Add", ["observation", "b"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        _to_head("b"),
    ]
    return model(nodes, [HEAD]).SerializeToString()


def many_kernels():
    """A pool whose window is as wide as its image: few outputs, and billions of comparisons."""
    nodes = [
        helper.make_node("Reshape", ["observation", "image"], ["picture"]),
        helper.make_node("Expand", ["picture", "wide"], ["large"]),
        helper.make_node("MaxPool", ["large"], ["pooled"], kernel_shape=[63, 63], pads=[31, 31, 31, 31]),
        helper.make_node("ReduceMax", ["pooled"], ["most"], axes=[2, 3], keepdims=0),
        _to_head("most"),
    ]
    more = [tensor("image", np.int64([-1, 4, 1, 1])), tensor("wide", np.int64([1, 1, 96, 96]))]
    return model(nodes, [HEAD, *more]).SerializeToString()
