"""Pictures as metrics see them: pooled to blocks, and PSNR and SSIM as an independent library computes them."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from simservice.fidelity.pixels import MOST_DECIBELS, POOLED_SIDE, picture, psnr, seen, ssim


def frames(seed: int = 0, shape: tuple[int, ...] = (3, 40, 30, 3)) -> np.ndarray:
    """Smooth pictures with some noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    wave = 127 + 80 * np.sin(x / 5 + seed)[..., None] * np.cos(y / 7)[..., None]
    return np.clip(wave + 20 * generator.normal(size=shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(3, 40, 30, 3), (2, 64, 64, 1)])
def test_psnr_and_ssim_are_those_of_torchmetrics(shape):
    one, other = frames(0, shape), frames(1, shape)
    for index in range(shape[0]):
        pair = [torch.from_numpy(side[[index]].astype(np.float64)).permute(0, 3, 1, 2) for side in (one, other)]
        theirs = [of(*pair, data_range=255.0) for of in (peak_signal_noise_ratio, structural_similarity_index_measure)]
        ours = psnr(one, other)[index], ssim(one, other)[index]
        assert ours == pytest.approx([float(value) for value in theirs], abs=1e-4)


def test_equal_frames_get_the_most():
    one = frames()
    assert psnr(one, one).tolist() == [MOST_DECIBELS] * 3
    assert ssim(one, one) == pytest.approx(1.0)


def test_pictures_are_seen_as_blocks_and_vectors_as_they_are():
    leaves = {"observation/eye": frames()[None], "observation/arm": np.ones((1, 3, 2), np.float32)}
    assert seen(leaves, lead=2).shape == (1, 3, POOLED_SIDE * POOLED_SIDE * 3 + 2)
    flat = np.full((1, 50, 33, 3), 77, np.uint8)
    np.testing.assert_allclose(seen({"observation": flat}, lead=1), 77.0)


def test_a_board_of_bytes_is_no_picture():
    board = np.zeros((4, 8, 8, 1), np.uint8)
    assert picture({"observation": board}, lead=1) is None
    assert seen({"observation": board}, lead=1).shape == (4, 64)


def test_a_block_is_the_mean_of_its_pixels():
    one = frames(shape=(1, 48, 24, 1))
    blocks = one.astype(float).reshape(12, 4, 12, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(seen({"observation": one}, lead=1)[0], blocks.ravel())
