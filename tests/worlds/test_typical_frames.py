"""What is strange among frames: told by what the data varies in, and by how much."""

import numpy as np
import pytest
import torch
from world_fitting import CATCH, POINT_MASS, episodes

from simservice.worlds.typical_frames import TypicalFrames


def frames_of(env_id):
    frames = np.concatenate([episode.observation["observation"] for episode in episodes(env_id)])
    return torch.from_numpy(frames).movedim(-1, 1).float() * (2 / 255) - 1


def learned(frames, held_out):
    typical = TypicalFrames(*frames.shape[1:])
    typical.fit(torch.split(frames, 50), len(frames))
    typical.allow(torch.split(held_out, 50))
    return typical


@pytest.mark.parametrize("env_id", [CATCH, POINT_MASS])
def test_noise_grey_and_negatives_are_strange_and_real_frames_are_not(env_id):
    frames = frames_of(env_id)
    typical = learned(frames[::2], frames[1::2])
    real = typical(frames[1::2])
    assert (real == 0).float().mean() >= 0.98
    noise = torch.rand(64, *frames.shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    for garbage in (noise, torch.zeros_like(noise), -frames[:64]):
        assert typical(garbage).min() > max(1.0, float(real.max()))


def test_until_it_is_told_what_is_usual_nothing_is_strange():
    frames = frames_of(CATCH)
    typical = TypicalFrames(*frames.shape[1:])
    assert not typical(frames).any()
    typical.fit([frames], len(frames))
    assert not typical(-frames).any()


def test_one_step_beyond_along_an_axis_counts_by_the_data_s_spread_along_it():
    """Pixels that never vary tell much by little; those that vary freely, little by much."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.zeros(2000, 1, 4, 4)
    frames[:, 0, 0, 0] = torch.randn(2000, generator=generator) * 0.5
    frames[:, 0, 1, 1] = torch.randn(2000, generator=generator) * 0.05
    typical = learned(frames, frames)

    def moved(row, column):
        frame = torch.zeros(1, 1, 4, 4)
        frame[0, 0, row, column] = 0.9
        return float(typical(frame))

    assert moved(0, 0) == 0 < moved(1, 1) < moved(3, 3)


def test_large_frames_of_many_channels_are_seen_in_few_blocks():
    typical = TypicalFrames(12, 210, 160)
    assert len(typical.mean) <= 768
    typical.fit([torch.rand(20, 12, 210, 160)], 20)
    assert typical(torch.rand(3, 12, 210, 160)).shape == (3,)


def test_of_much_data_evenly_spread_frames_are_taken_wherever_batches_end(monkeypatch):
    monkeypatch.setattr("simservice.worlds.typical_frames._FITTED_FRAMES", 10)
    frames = torch.rand(70, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    one, other, few = (TypicalFrames(1, 4, 4) for _ in range(3))
    one.fit([frames], 70)
    other.fit(torch.split(frames, 9), 70)
    few.fit([frames[::7]], 10)
    for name, value in few.named_buffers():
        assert torch.equal(one.get_buffer(name), value) and torch.equal(other.get_buffer(name), value)
