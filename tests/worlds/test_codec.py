"""Features of every space a vector family takes, and back."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from simservice.errors import InvalidInput, UnsupportedSpace
from simservice.types import to_leaves
from simservice.worlds.codec import Codec, torch_dtype

SPACES = {
    "box": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "float64 matrix": spaces.Box(-2, 2, (2, 2), np.float64),
    "whole numbers": spaces.Box(-5, 7, (4,), np.int16),
    "one byte": spaces.Box(0, 255, (4,), np.uint8),
    "wide whole numbers": spaces.Box(-(2**20), 2**20, (2,), np.int64),
    "unsigned": spaces.Box(0, 2**20, (2,), np.uint32),
    "discrete": spaces.Discrete(5, start=-2),
    "multi discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi discrete matrix": spaces.MultiDiscrete([[3, 2], [1, 4]], start=[[1, 0], [-3, 9]]),
    "multi binary": spaces.MultiBinary((2, 3)),
    "dict": spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2,), np.float32)}),
    "nested": spaces.Tuple((spaces.Dict({"x": spaces.MultiBinary(2)}), spaces.Discrete(2, start=7))),
}


def sampled(space, lanes=20):
    batched = batch_space(space, lanes)
    batched.seed(3)
    return {
        path: torch.from_numpy(np.asarray(value)) for path, value in to_leaves(space, batched.sample(), "o").items()
    }


@pytest.mark.parametrize("name", SPACES)
def test_decoding_the_features_of_values_gives_the_values(name):
    codec = Codec(SPACES[name], "o")
    values = sampled(SPACES[name])
    features = codec.encode(values)
    assert features.shape == (20, codec.width) and features.dtype == torch.float32
    back = codec.decode(features)
    assert list(back) == [leaf.path for leaf in codec.leaves]
    for leaf in codec.leaves:
        assert back[leaf.path].dtype == torch_dtype(leaf.dtype)
        assert tuple(back[leaf.path].shape) == (20, *leaf.shape)
        if leaf.dtype == np.float64:
            assert torch.allclose(back[leaf.path], values[leaf.path], atol=1e-6)
        else:
            assert np.array_equal(back[leaf.path].numpy(), values[leaf.path].numpy())


@pytest.mark.parametrize("name", SPACES)
def test_any_features_decode_to_members_of_a_whole_numbered_space(name):
    codec = Codec(SPACES[name], "o")
    features = torch.randn(30, codec.width, generator=torch.Generator().manual_seed(0)) * 1e6
    for leaf in codec.leaves:
        for row in codec.decode(features)[leaf.path].numpy():
            if not np.issubdtype(leaf.dtype, np.floating):
                assert leaf.space.contains(leaf.dtype.type(row) if leaf.shape == () else row)
    snapped = codec.snap(features)
    assert torch.equal(codec.snap(snapped), snapped)
    assert torch.equal(snapped, codec.encode(codec.decode(features))) or not codec.columns().logical_not().any()


def test_one_hots_begin_at_the_spaces_start():
    assert Codec(spaces.Discrete(3, start=5), "o").encode({"o": torch.tensor([5, 7])}).tolist() == [
        [1, 0, 0],
        [0, 0, 1],
    ]
    codec = Codec(spaces.MultiDiscrete([2, 3]), "o")
    assert codec.encode({"o": torch.tensor([[1, 2]])}).tolist() == [[0, 1, 0, 0, 1]]


def test_decoded_values_share_nothing_with_the_features():
    codec = Codec(SPACES["box"], "o")
    features = torch.zeros(16, 3)
    codec.decode(features)["o"].fill_(9)
    assert torch.equal(features, torch.zeros(16, 3))


def test_snapping_leaves_a_space_of_floats_alone_and_changes_no_argument():
    features = torch.randn(16, 3)
    assert Codec(SPACES["box"], "o").snap(features) is features
    codec = Codec(SPACES["dict"], "o")
    before = torch.randn(16, codec.width)
    kept = before.clone()
    codec.snap(before)
    assert torch.equal(before, kept)


def test_columns_tell_floats_from_the_rest():
    assert Codec(SPACES["dict"], "o").columns().tolist() == [True, True, False, False, False]
    assert Codec(SPACES["box"], "o").is_continuous
    assert not Codec(SPACES["discrete"], "o").is_continuous


def test_spaces_that_are_no_vectors_are_refused_by_the_leafs_name():
    with pytest.raises(UnsupportedSpace, match="o/a: a Text space has no fixed shape"):
        Codec(spaces.Dict({"a": spaces.Text(5)}), "o")
    with pytest.raises(InvalidInput, match=r"o/0: it is a picture \(8, 8, 3\)"):
        Codec(spaces.Tuple((spaces.Box(0, 255, (8, 8, 3), np.uint8),)), "o")
    with pytest.raises(InvalidInput, match="it has 5000 features"):
        Codec(spaces.Box(-1, 1, (5000,), np.float32), "o")
