"""Weights alone: the fragment is what ONNX writes, and only a graph's own finite weights are taken."""

import numpy as np
import onnx
import policy_files as files
import pytest
from onnx import numpy_helper

from simservice.engine.uploads.weights import ELEMENT_TYPES, WeightSpec, check_weights, encode_weights
from simservice.errors import InvalidPolicy

SPECS = (
    WeightSpec("kernel", "float32", (4, 3)),
    WeightSpec("bias", "float64", (3,)),
    WeightSpec("gain", "float16", ()),
)


def arrays(**changes):
    rng = np.random.default_rng(0)
    made = {spec.name: np.asarray(rng.standard_normal(spec.shape), spec.dtype) for spec in SPECS}
    return {**made, **changes}


def told(found):
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in found.items()}


def test_a_fragment_is_read_by_onnx_as_it_was_written():
    given = arrays()
    read = onnx.load_from_string(check_weights(SPECS, told(given))).graph.initializer
    assert [one.name for one in read] == [spec.name for spec in SPECS]
    for one in read:
        np.testing.assert_array_equal(numpy_helper.to_array(one), given[one.name])


def test_every_element_type_and_long_names_survive():
    for number, dtype in ELEMENT_TYPES.items():
        spec = WeightSpec("n" * 300, dtype.name, (2, 200))
        [read] = onnx.load_from_string(encode_weights([(spec, bytes(400 * dtype.itemsize))])).graph.initializer
        assert (read.name, read.data_type, tuple(read.dims)) == (spec.name, number, spec.shape)


def test_graph_and_fragment_together_are_the_whole_model():
    whole = onnx.load_from_string(files.mlp(value=False))
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(whole)
    del skeleton.graph.initializer[:]
    fragment = encode_weights(
        (WeightSpec(one.name, "float32", tuple(one.dims)), one.raw_data) for one in whole.graph.initializer
    )
    assert onnx.load_from_string(skeleton.SerializeToString() + fragment) == whole


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({name: array for name, array in arrays().items() if name != "bias"}, "the update lacks 'bias'"),
        (arrays(more=np.float32([1])), "the graph has no weight 'more'"),
        (arrays(bias=np.zeros(4)), r"weight 'bias' is float64 \[4\], and in the graph float64 \[3\]"),
        (arrays(kernel=np.zeros((4, 3))), "weight 'kernel' is float64"),
        (arrays(kernel=np.full((4, 3), np.nan, np.float32)), "weight 'kernel' holds nan at element 0"),
        (arrays(gain=np.float16(np.inf)), "weight 'gain' holds inf"),
    ],
)
def test_what_are_not_the_graphs_weights_is_named(found, words):
    with pytest.raises(InvalidPolicy, match=words):
        check_weights(SPECS, told(found))


def test_too_few_bytes_are_named():
    found = told(arrays())
    found["bias"] = ("float64", (3,), b"1234")
    with pytest.raises(InvalidPolicy, match=r"weight 'bias' has 4 bytes; float64 \[3\] has 24"):
        check_weights(SPECS, found)
