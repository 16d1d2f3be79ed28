"""The strip of a dream: what is shown, and how large."""

import numpy as np
import pytest
from PIL import Image

from simservice.training.strip import png, strip


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_real_frames_imagined_ones_and_their_difference_lie_below_one_another(channels):
    real = np.zeros((4, 32, 32, channels), np.uint8)
    dreamt = real.copy()
    real[2, 5, 7, -1], dreamt[2, 5, 7, -1] = 10, 250
    picture = strip(real, dreamt)
    height, width = picture.shape[0] // 3, picture.shape[1] // 4
    assert picture.shape == (3 * 98, 4 * 98, 3) and picture.dtype == np.uint8
    above, middle, below = (picture[row * height : (row + 1) * height, 2 * width : 3 * width, 2] for row in range(3))
    spot = (slice(1 + 15, 1 + 18), slice(1 + 21, 1 + 24))  # the pixel, three times as large, inside its frame
    assert (above[spot] == 10).all() and (middle[spot] == 250).all() and (below[spot] == 240).all()


def test_the_file_is_a_png_that_others_read_as_it_was(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    (tmp_path / "strip.png").write_bytes(png(picture))
    assert (np.asarray(Image.open(tmp_path / "strip.png")) == picture).all()
