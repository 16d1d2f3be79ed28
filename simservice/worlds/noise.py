"""Randomness as a function of (lane seed, lane step, call, draw, element): no generator, nothing to keep or to share.

One counter-based integer hash (two SplitMix64 finalisers) gives 64 bits an element. What follows uses only exact or
correctly rounded operations (shift, convert, multiply, add, table look-up), never log, cos or erfinv: those round
differently in the vector body and the scalar tail of a kernel, and on other processors. So a lane's numbers are the
same bits in every batch, at every position, on every machine.

Knows no world. On the CPU the arithmetic runs in numpy, whose calls cost a fifth of torch's; on a device in torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from simservice.worlds.world import Call, Draw, Tensors

Words = np.ndarray[Any, np.dtype[np.uint64]]
Numbers = np.ndarray[Any, np.dtype[np.float32]]

_SEED_FACTOR = 0x9E3779B97F4A7C15
_STEP_FACTOR = 0xD1342543DE82EF95
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _word(value: int) -> Words:
    """A constant as numpy takes it fastest: at these sizes an operation costs its call, not its arithmetic."""
    return np.array(value, dtype=np.uint64)


_W27, _W30, _W31, _W40 = (_word(shift) for shift in (27, 30, 31, 40))
_WMIX_1, _WMIX_2, _WSEED, _WSTEP = (_word(word) for word in (_MIX_1, _MIX_2, _SEED_FACTOR, _STEP_FACTOR))


def _signed(word: int) -> int:
    """The 64-bit word as the signed integer with the same bits."""
    return word - (2**64 if word & 2**63 else 0)


def _mix(word: Words) -> Words:
    """SplitMix64's finaliser, in place."""
    scratch: Words = np.right_shift(word, _W30)
    np.bitwise_xor(word, scratch, word)
    np.multiply(word, _WMIX_1, word)
    np.right_shift(word, _W27, scratch)
    np.bitwise_xor(word, scratch, word)
    np.multiply(word, _WMIX_2, word)
    np.right_shift(word, _W31, scratch)
    np.bitwise_xor(word, scratch, word)
    return word


def _mix_tensor(word: Tensor) -> Tensor:
    """The same on int64: masks make the arithmetic shifts logical ones, products wrap around alike."""
    word = (word ^ ((word >> 30) & (2**34 - 1))) * _signed(_MIX_1)
    word = (word ^ ((word >> 27) & (2**37 - 1))) * _signed(_MIX_2)
    return word ^ ((word >> 31) & (2**33 - 1))


# ---- normals: the quantile function of 53 bits as straight pieces, geometric in u -----------------------------------

_SEGMENT_BITS = 8  # 256 pieces an octave: the quantile is exact to 2e-6, far below what a sample can show
_OCTAVES = 53
_PIECE_SHIFT = 52 - _SEGMENT_BITS
_FIRST_PIECE = (1023 - _OCTAVES - 1) << _SEGMENT_BITS  # the index of u = 2**-54, the smallest there is
_FRACTION_UNIT = 2.0**-_PIECE_SHIFT
_WORD_TO_U = 2.0**-53


def _quantile_pieces() -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Start and rise of every piece of |normal quantile| over u in [2**-54, 1/2).

    The exponent and the leading mantissa bits of u are the piece's index. Values are rounded to multiples of 2**-36:
    what little two mathematics libraries disagree on is rounded away.
    """
    normal = NormalDist()
    pieces = 1 << _SEGMENT_BITS
    ends = [
        2.0 ** (octave - _OCTAVES - 1) * (1 + piece / pieces) for octave in range(_OCTAVES) for piece in range(pieces)
    ]
    values = np.array([-normal.inv_cdf(end) for end in ends] + [0.0])
    values = np.round(values * 2.0**36) / 2.0**36
    return values[:-1].copy(), np.diff(values)


_START, _RISE = _quantile_pieces()
_W52, _WPIECE, _WFIRST, _WFRACTION = (
    _word(value) for value in (2**52 - 1, _PIECE_SHIFT, _FIRST_PIECE, 2**_PIECE_SHIFT - 1)
)
_HALF, _DWORD_TO_U, _DFRACTION_UNIT, _DUNIFORM_UNIT = (
    np.array(value) for value in (0.5, _WORD_TO_U, _FRACTION_UNIT, 2.0**-24)
)


def _normals(word: Words) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Standard normals from hash words: the low 52 bits choose the size, the highest the sign."""
    u = np.bitwise_and(word, _W52) + _HALF  # the half keeps zero out and stays exact
    np.multiply(u, _DWORD_TO_U, u)
    pattern = u.view(np.uint64)
    piece = np.right_shift(pattern, _WPIECE)
    np.subtract(piece, _WFIRST, piece)
    place = piece.view(np.int64)
    size: np.ndarray[Any, np.dtype[np.float64]] = np.multiply(np.bitwise_and(pattern, _WFRACTION), _DFRACTION_UNIT)
    np.multiply(size, _RISE.take(place), size)
    np.add(size, _START.take(place), size)
    np.copysign(size, word.view(np.int64), size)
    return size


def _normals_tensor(word: Tensor, start: Tensor, rise: Tensor) -> Tensor:
    pattern = (((word & (2**52 - 1)).double() + 0.5) * _WORD_TO_U).view(torch.int64)
    piece = (pattern >> _PIECE_SHIFT) - _FIRST_PIECE
    size = (pattern & (2**_PIECE_SHIFT - 1)).double() * _FRACTION_UNIT * rise[piece] + start[piece]
    return torch.copysign(size, word.double())


# ---- draws ---------------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """What a call's draws ask for, with the hashes of names and elements made once: uniforms first, then normals."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    words: tuple[Words, ...]  # (1, size) for each draw
    uniform_size: int  # numbers a lane
    normal_size: int
    on_device: dict[torch.device, tuple[tuple[Tensor, ...], Tensor, Tensor]] = field(default_factory=dict)

    def tensors(self, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The hashes and the quantile's pieces on a device."""
        if device not in self.on_device:
            words = tuple(torch.from_numpy(word.view(np.int64)).to(device) for word in self.words)
            self.on_device[device] = (words, torch.from_numpy(_START).to(device), torch.from_numpy(_RISE).to(device))
        return self.on_device[device]


@lru_cache(maxsize=1024)
def _plan(call: str, draws: tuple[tuple[str, Draw], ...]) -> _Plan:
    ordered = sorted(draws, key=lambda item: item[1].kind == "normal")
    words = []
    for name, draw in ordered:
        start = np.frombuffer(hashlib.sha256(f"{call}/{name}".encode()).digest()[:8], dtype="<u8")
        elements = np.arange(math.prod(draw.shape), dtype=np.uint64)
        words.append(_mix(start + elements * _WSEED)[None, :])
    uniform_size = sum(math.prod(draw.shape) for _, draw in ordered if draw.kind == "uniform")
    return _Plan(
        names=tuple(name for name, _ in ordered),
        shapes=tuple(draw.shape for _, draw in ordered),
        words=tuple(words),
        uniform_size=uniform_size,
        normal_size=sum(word.shape[1] for word in words) - uniform_size,
    )


def _numbers(plan: _Plan, seed: Words, step: Words) -> Numbers:
    """All numbers of a plan, flat, a block of (lanes, size) for each draw."""
    lane_word = _mix(seed * _WSEED + step * _WSTEP)[:, None]
    blocks = [(lane_word + word).ravel() for word in plan.words]
    bits = _mix(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))
    uniforms = len(seed) * plan.uniform_size
    numbers = np.empty(len(bits), dtype=np.float32)
    if uniforms:
        numbers[:uniforms] = np.multiply(np.right_shift(bits[:uniforms], _W40), _DUNIFORM_UNIT)
    if plan.normal_size:
        numbers[uniforms:] = _normals(bits[uniforms:])
    return numbers


def _numbers_tensor(plan: _Plan, seed: Tensor, step: Tensor) -> Tensor:
    """The same numbers, bit for bit, on any device; nothing waits for the host, so it can be part of a graph."""
    words, start, rise = plan.tensors(seed.device)
    lane_word = _mix_tensor(seed * _signed(_SEED_FACTOR) + step * _signed(_STEP_FACTOR))[:, None]
    bits = _mix_tensor(torch.cat([(lane_word + word).reshape(-1) for word in words]))
    uniforms = seed.shape[0] * plan.uniform_size
    parts = []
    if uniforms:
        parts.append((((bits[:uniforms] >> 40) & (2**24 - 1)).double() * 2.0**-24).float())
    if plan.normal_size:
        parts.append(_normals_tensor(bits[uniforms:], start, rise).float())
    return parts[0] if len(parts) == 1 else torch.cat(parts)


Stream = Call | Literal["explore"]
"""What luck is for: the world's own calls, and the exploration of a policy that is played beside it."""


def lane_draws(draws: Mapping[str, Draw], seed: Tensor, step: Tensor, call: Stream) -> Tensors:
    """The random numbers of one call for B lanes: (B, *shape) float32 by draw name.

    seed and step are (B,) int64. Uniforms are multiples of 2**-24 in [0, 1). A lane's numbers depend on its own seed
    and step, the call's name and the draw's name and shape alone.
    """
    if not draws:
        return {}
    plan = _plan(call, tuple(draws.items()))
    lanes = seed.shape[0]
    numbers: Numbers | Tensor
    if seed.device.type == "cpu":
        numbers = _numbers(plan, seed.numpy().view(np.uint64), step.numpy().view(np.uint64))
    else:
        numbers = _numbers_tensor(plan, seed, step)
    result: Tensors = {}
    offset = 0
    for name, word, shape in zip(plan.names, plan.words, plan.shapes, strict=True):
        end = offset + lanes * word.shape[1]
        block = numbers[offset:end].reshape(lanes, *shape)
        result[name] = block if isinstance(block, Tensor) else torch.from_numpy(block)
        offset = end
    return result
