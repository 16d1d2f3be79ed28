"""Pictures: any Box of two or three axes as bytes, and back."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.worlds.pictures import Pictures, centred, snapped


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 5), (1, 6, 5)),
        ((6, 5, 3), (3, 6, 5)),
        ((3, 6, 5), (3, 6, 5)),
        ((4, 7, 9), (4, 7, 9)),
        ((8, 8, 1), (1, 8, 8)),
    ],
)
def test_frames_come_back_as_they_were_wherever_the_channels_are(shape, expected):
    pictures = Pictures(spaces.Box(0, 255, shape, np.uint8), "observation")
    assert pictures.shape == expected
    frames = torch.randint(0, 256, (2, 4, *shape), dtype=torch.uint8)
    levels = pictures.bytes_of(frames)
    assert levels.shape == (2, 4, *expected) and levels.dtype == torch.uint8
    assert torch.equal(pictures.frames_of(levels), frames)
    assert pictures.frames_of(levels).untyped_storage().data_ptr() != levels.untyped_storage().data_ptr()


def test_channels_stay_with_their_pixels():
    pictures = Pictures(spaces.Box(0, 255, (4, 5, 3), np.uint8), "observation")
    frame = torch.zeros(1, 4, 5, 3, dtype=torch.uint8)
    frame[0, 1, 2, 0] = 7
    assert pictures.bytes_of(frame)[0, 0, 1, 2] == 7


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0.0, 1.0, np.float32), (-1.0, 1.0, np.float64), (-20, 30, np.int16)]
)
def test_other_bounds_are_laid_on_256_levels(low, high, dtype):
    space = spaces.Box(low, high, (4, 4, 3), dtype)
    pictures = Pictures(space, "observation")
    frame = torch.from_numpy(np.stack([space.sample() for _ in range(3)]))
    again = pictures.frames_of(pictures.bytes_of(frame))
    assert again.dtype == frame.dtype
    assert (again.double() - frame.double()).abs().max() <= (0.5 if dtype == np.int16 else (high - low) / 510 + 1e-6)
    assert all(space.contains(row) for row in again.numpy())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (4,), np.float32),
        spaces.Discrete(3),
        spaces.Dict({"image": spaces.Box(0, 255, (8, 8, 3), np.uint8)}),
        spaces.Box(-np.inf, np.inf, (8, 8), np.float32),
        spaces.Box(np.zeros((8, 8), np.float32), np.eye(8, dtype=np.float32), dtype=np.float32),
        spaces.Box(0, 255, (32, 32, 20), np.uint8),
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused_by_name(space):
    with pytest.raises(InvalidInput, match="observation"):
        Pictures(space, "observation")


def test_snapping_finds_the_nearest_byte_and_stays_inside():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(snapped(centred(levels) + 0.003), levels)
    assert snapped(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
