"""What is no policy, or costs too much, is refused with a typed error that names it; what is one comes back whole."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import policy_files as files
import pytest
from gymnasium import spaces
from onnx import TensorProto, helper

from simservice.engine.uploads.inspector import Inspector
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.operators import ALLOWED
from simservice.engine.uploads.session import OnnxPolicy, Watchdog
from simservice.engine.uploads.shelf import requirements_of
from simservice.errors import InvalidPolicy, PolicyLimitExceeded

OBSERVATION = spaces.Box(-np.inf, np.inf, (4,), np.float32)
TOY = requirements_of("categorical", OBSERVATION, spaces.Discrete(3))
LIMITS = PolicyLimits(inspecting_burst_s=1e6, inspection_s=240.0)  # whatever else the machine does


@pytest.fixture(scope="module")
def inspector():
    inspector = Inspector(LIMITS)
    yield inspector
    inspector.stop()


@pytest.fixture(scope="module")
def watchdog():
    watchdog = Watchdog()
    yield watchdog
    watchdog.stop()


@pytest.fixture
def inspect(inspector):
    """inspect(file, requirements) as the serving process has it."""
    return lambda file, requirements=TOY: asyncio.run(inspector.inspect(file, requirements, "lab"))


def value(kind, name, shape):
    return helper.make_tensor_value_info(name, kind, shape)


FLOAT, INT, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE

REFUSED = {
    "huge loop": (files.huge_loop, InvalidPolicy, r"node 0 \(Loop\) is an operator that policies may not use"),
    "nested branches": (files.nested_branches, InvalidPolicy, r"\(If\) is an operator|no ONNX model"),
    "nested bytes": (files.nested_bytes, InvalidPolicy, "no ONNX model, or one nested too deep"),
    "unrolled": (lambda: files.unrolled(900), PolicyLimitExceeded, r"multiply-adds a lane: 9\d\d,\d\d\d,\d\d\d"),
    "unrolled further": (files.unrolled, PolicyLimitExceeded, "bytes computed in one call of 16 lanes"),
    "external data": (files.external_data, InvalidPolicy, "'w' keeps its data in another file"),
    "NaN weight": (lambda: files.strange_weight(np.nan), InvalidPolicy, "weight 'w' holds nan at element 5"),
    "infinite weight": (lambda: files.strange_weight(np.inf), InvalidPolicy, "weight 'w' holds inf"),
    "NaN constant": (lambda: files.strange_constant(np.nan), InvalidPolicy, "holds nan at element 0"),
    "tiny bytes for a gigabyte": (
        files.tiny_constant_that_claims_a_gigabyte,
        PolicyLimitExceeded,
        "bytes of initializer 'big': 1,073,741,824, and at most",
    ),
    "range of a weight": (files.range_of_a_weight, InvalidPolicy, "'big'.*cannot be told before it runs"),
    "shape of a weight": (files.cast_weight_to_shape, InvalidPolicy, "cannot be told before it runs"),
    "shape of the observation": (files.shape_of_the_observation, InvalidPolicy, "cannot be told before it runs"),
    "many empty nodes": (files.empty_nodes, InvalidPolicy, "of too many parts"),
    "function": (files.hidden_in_a_function, InvalidPolicy, "holds 1 functions of its own"),
    "other domain": (files.other_domain, InvalidPolicy, "operator domain 'com.microsoft'"),
    "random numbers": (lambda: files.operator("RandomNormalLike"), InvalidPolicy, "RandomNormalLike"),
    "multinomial": (lambda: files.operator("Multinomial"), InvalidPolicy, "Multinomial"),
    "unknown size": (lambda: files.operator("NonZero"), InvalidPolicy, "NonZero"),
    "no such operator": (lambda: files.operator("Frobnicate"), InvalidPolicy, "Frobnicate"),
    "mean over lanes": (files.neighbours, InvalidPolicy, "of a lane changes with the other lanes"),
    "every pair of lanes": (files.every_pair, InvalidPolicy, "of a lane changes with the other lanes"),
    "sparse weights": (files.sparse_weight, InvalidPolicy, "sparse"),
    "training information": (files.training_information, InvalidPolicy, "training information"),
    "text weight": (files.text_weight, InvalidPolicy, "'words' has the element type 8"),
    "text constant": (files.text_constant, InvalidPolicy, "."),
    "sequence": (files.sequence, InvalidPolicy, "SequenceConstruct"),
    "long name": (files.long_name, InvalidPolicy, "a name of 5,000 characters"),
    "cycle": (files.cycle, InvalidPolicy, "no valid ONNX"),
    "wide window": (files.many_kernels, PolicyLimitExceeded, "multiply-adds|bytes computed"),
    "ORT format": (lambda: b"\0\0\0\0ORTM" + bytes(64), InvalidPolicy, "no ONNX model"),
    "empty": (lambda: b"", InvalidPolicy, "IR version 0"),
    "text": (lambda: b"not a model at all", InvalidPolicy, "no ONNX model"),
    "truncated": (lambda: files.mlp()[:-7], InvalidPolicy, "no ONNX model"),
    "too large": (lambda: bytes(LIMITS.file_bytes + 1), PolicyLimitExceeded, "bytes of the file: 16,777,217"),
    "old opset": (lambda: files.model([], opset=7).SerializeToString(), InvalidPolicy, r"opset is \[7\]"),
    "new opset": (lambda: files.model([], opset=99).SerializeToString(), InvalidPolicy, r"opset is \[99\]"),
    "wrong input name": (
        lambda: files.mlp(input_name="obs"),
        InvalidPolicy,
        "input 'obs' is no leaf of the observation; name inputs as leaves: observation",
    ),
    "wrong input shape": (
        lambda: files.mlp((5, 8, 3)),
        InvalidPolicy,
        r"input 'observation' is float32 \(N, 5\), and observations of this world are float32 \(N, 4\)",
    ),
    "wrong input dtype": (
        lambda: files.with_signature([value(DOUBLE, "observation", ["N", 4])]),
        InvalidPolicy,
        r"shapes of the graph|float64 \(N, 4\)",
    ),
    "fixed batch": (
        lambda: files.with_signature([value(FLOAT, "observation", [1, 4])]),
        InvalidPolicy,
        "for exactly 1 lanes; export with a dynamic first axis",
    ),
    "unknown input axis": (
        lambda: files.with_signature([value(FLOAT, "observation", ["N", "M"])]),
        InvalidPolicy,
        "axis of unknown size",
    ),
    "no input": (lambda: files.model([]).SerializeToString(), InvalidPolicy, "comes out of no node|no valid ONNX"),
    "wrong head width": (
        lambda: files.mlp((4, 8, 2)),
        InvalidPolicy,
        r"'action_dist_inputs' is float32 \(N, 2\); a categorical policy of this world gives float32 \(N, 3\)",
    ),
    "wrong head name": (lambda: files.mlp(head="logits"), InvalidPolicy, "no output 'action_dist_inputs' among 'log"),
    "wrong weight shape": (lambda: files.with_signature(weight=(7, 3)), InvalidPolicy, "shapes of the graph do not go"),
    **{
        f"large {operator}": (
            lambda operator=operator: files.large(operator),
            PolicyLimitExceeded,
            "bytes computed in one call",
        )
        for operator in ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "OneHot", "Gather")
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_or_careless_file_is_refused_with_what_was_found(inspect, kind):
    make, error, words = REFUSED[kind]
    with pytest.raises(error, match=words) as found:
        inspect(make())
    assert type(found.value) is error
    assert found.value.recoverable
    assert len(str(found.value)) < 600


def test_a_file_that_takes_too_long_is_stopped_by_the_clock_of_its_processor():
    limits = PolicyLimits(
        multiply_adds_per_row=10**12,
        call_multiply_adds=10**13,
        call_bytes=2**30,
        inspection_cpu_s=1,
        trial_call_cpu_s=99,
    )
    inspector = Inspector(limits)
    try:
        with pytest.raises(PolicyLimitExceeded, match="processor seconds of its inspection: over 1"):
            asyncio.run(inspector.inspect(files.unrolled(), TOY, "lab"))
        graph, _ = asyncio.run(inspector.inspect(files.mlp(), TOY, "lab"))  # the next file is none the worse
        assert graph.outputs[0].name == "action_dist_inputs"
    finally:
        inspector.stop()


def test_a_file_that_waits_is_stopped_by_the_clock_on_the_wall():
    limits = PolicyLimits(
        multiply_adds_per_row=10**12, call_multiply_adds=10**13, call_bytes=2**30, inspection_s=0.3, trial_call_cpu_s=99
    )
    inspector = Inspector(limits)
    try:
        began = time.monotonic()
        with pytest.raises(PolicyLimitExceeded, match=r"seconds of its inspection: over 0\.3"):
            asyncio.run(inspector.inspect(files.unrolled(), TOY, "lab"))
        assert time.monotonic() - began < 30
    finally:
        inspector.stop()


def test_a_file_that_needs_more_memory_than_it_may_is_told_so():
    limits = PolicyLimits(
        multiply_adds_per_row=10**12, call_multiply_adds=10**13, call_bytes=2**40, inspection_bytes=200 * 2**20
    )
    inspector = Inspector(limits)
    try:
        with pytest.raises((PolicyLimitExceeded, InvalidPolicy), match=r"bytes of memory|allocate|bad_alloc"):
            asyncio.run(inspector.inspect(files.large("ConstantOfShape"), TOY, "lab"))
    finally:
        inspector.stop()


def test_crowds_are_told_when_to_come_again_and_nobody_crowds_others_out(inspector):
    async def use():
        file = files.mlp()
        asked = [asyncio.create_task(inspector.inspect(file, TOY, "lab")) for _ in range(5)]
        asked.append(asyncio.create_task(inspector.inspect(file, TOY, "shop")))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(use())
    refused = [answer for answer in answers if isinstance(answer, PolicyLimitExceeded)]
    assert len(refused) == 3 and answers[-1] not in refused
    assert all(error.retry_after_s == 1.0 for error in refused)


def test_a_tenant_whose_files_took_long_comes_again_later_and_others_do_not_wait():
    inspector = Inspector(replace(LIMITS, inspecting_burst_s=1e-3, inspecting_share=1e-3))

    async def put():
        with pytest.raises(InvalidPolicy):
            await inspector.inspect(files.huge_loop(), TOY, "lab")
        with pytest.raises(PolicyLimitExceeded, match="processor seconds of inspecting") as found:
            await inspector.inspect(files.huge_loop(), TOY, "lab")
        with pytest.raises(InvalidPolicy):
            await inspector.inspect(files.huge_loop(), TOY, "shop")
        return found.value.retry_after_s

    try:
        assert 1.0 < asyncio.run(put()) <= 120.0
    finally:
        inspector.stop()


def test_the_process_comes_back_when_it_was_killed(inspect, inspector):
    inspect(files.mlp())
    inspector._process.kill()
    graph, _ = inspect(files.mlp())
    assert graph.weights[0].name == "weight_0"


def test_a_sound_policy_computes_what_its_layers_say(inspect, watchdog):
    file = files.mlp()
    graph, weights = inspect(file)
    policy = OnnxPolicy(graph, weights, LIMITS, watchdog)
    observation = np.random.default_rng(0).standard_normal((2500, 4)).astype(np.float32)  # in several calls
    outputs = policy({"observation": observation})
    head, values = files.mlp_forward(file, observation)
    np.testing.assert_allclose(outputs["action_dist_inputs"], head, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["value"], values, rtol=1e-5, atol=1e-5)
    assert [(one.name, one.shape, one.dtype) for one in policy.outputs] == [
        ("action_dist_inputs", (3,), np.float32),
        ("value", (), np.float32),
    ]
    assert policy.content_hash == graph.content_hash(weights)


def test_the_hash_is_of_the_content_and_not_of_how_it_was_written(inspect):
    file = files.mlp()
    graph, weights = inspect(file)
    told = onnx.load_from_string(file)
    told.doc_string, told.producer_name, told.graph.doc_string = "a comment", "somebody", "another"
    told.metadata_props.add(key="when", value="today")
    for node in told.graph.node:
        node.name = f"node {node.output[0]}"
    same, same_weights = inspect(told.SerializeToString())
    assert (same.graph_hash, same_weights) == (graph.graph_hash, weights)
    other, other_weights = inspect(files.mlp(seed=1))
    assert other.graph_hash == graph.graph_hash
    assert other.content_hash(other_weights) != graph.content_hash(weights)


def test_what_is_stored_of_a_graph_is_read_as_it_was(inspect):
    graph, _ = inspect(files.mlp())
    again = type(graph).from_bytes(graph.to_bytes())
    assert again == graph
    assert again.graph_hash == graph.graph_hash


def convolutional():
    """A small picture, scaled and convolved, beside a vector of another leaf."""
    rng = np.random.default_rng(0)
    weights = [
        files.tensor("scale", np.float32(1 / 255)),
        files.tensor("kernel", rng.standard_normal((8, 3, 4, 4)).astype(np.float32)),
        files.tensor("w", rng.standard_normal((8 * 7 * 7 + 2, 4)).astype(np.float32)),
        files.tensor("b", np.zeros(4, np.float32)),
    ]
    nodes = [
        helper.make_node("Cast", ["observation/image"], ["floats"], to=FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "kernel"], ["map"], strides=[2, 2]),
        helper.make_node("Relu", ["map"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"]),
        helper.make_node("Concat", ["flat", "observation/speed"], ["both"], axis=1),
        helper.make_node("Gemm", ["both", "w", "b"], ["action_dist_inputs"]),
    ]
    inputs = [
        value(TensorProto.UINT8, "observation/image", ["N", 16, 16, 3]),
        value(FLOAT, "observation/speed", ["N", 2]),
    ]
    outputs = [value(FLOAT, "action_dist_inputs", ["N", 4])]
    return files.model(nodes, weights, inputs=inputs, outputs=outputs).SerializeToString()


def test_pictures_and_nested_observations_are_inputs_by_leaf(inspect, watchdog):
    observation = spaces.Dict(
        {"image": spaces.Box(0, 255, (16, 16, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,), np.float32)}
    )
    requirements = requirements_of("gaussian", observation, spaces.Box(-1, 1, (2,), np.float32))
    graph, weights = inspect(convolutional(), requirements)
    policy = OnnxPolicy(graph, weights, LIMITS, watchdog)
    rows = {
        "observation/image": np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8),
        "observation/speed": np.zeros((9, 2), np.float32),
    }
    assert policy(rows)["action_dist_inputs"].shape == (9, 4)
    assert graph.rows_per_call >= LIMITS.least_rows


def test_a_wide_policy_is_run_in_smaller_calls(inspect):
    narrow, _ = inspect(files.mlp())
    wide, _ = inspect(files.mlp((4, 16384, 128, 3)))
    assert wide.rows_per_call < narrow.rows_per_call == LIMITS.most_rows
    assert 4 * wide.rows_per_call * (2 * 16384 + 2 * 128) <= LIMITS.call_bytes


def test_the_operators_in_the_docs_are_those_that_are_taken():
    text = (Path(__file__).parents[3] / "docs/policies.md").read_text()
    assert set(text.partition("**Operators:**")[2].split()) == ALLOWED
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert known >= ALLOWED
    assert not {"If", "Loop", "Scan", "RandomNormal", "RandomUniform", "Bernoulli", "NonZero", "Dropout"} & ALLOWED
