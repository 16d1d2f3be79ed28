"""One gradient step of a training: loss, gradients, the weights moved. On a CUDA device it can be a graph.

A recurrent loss is thousands of small kernels, and to start them one by one takes several times as long as they do;
a graph of a whole step starts them all at once. Only a loss that does the same at every update can be one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from simservice.training.gang import Gang
from simservice.worlds.capture import nothing_freed
from simservice.worlds.world import Batch, Phase, Tensors, World

Precision = Literal["float32", "bfloat16"]

Loss = Callable[[Batch, Tensors, str], tuple[Tensor, Tensors]]

WARM_UPS = 3
"""Steps before a graph is captured: libraries and the optimiser make what they need."""


@dataclass
class Step:
    """Called with a batch it moves the weights; gives the loss before that, and its parts."""

    world: World
    phase: Phase
    optimizer: torch.optim.Optimizer
    loss: Loss
    gang: Gang
    device: torch.device
    precision: Precision

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensors]:
        self.optimizer.zero_grad(set_to_none=True)
        versions = [(buffer, buffer._version) for buffer in self.world.buffers()]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            whole, parts = self.loss(batch, {}, self.phase.name)
        torch.autograd.backward(whole)
        value = self.gang.average(self.world.parameters(), whole.detach())
        if self.phase.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.world.parameters(), self.phase.max_gradient_norm)
        self.optimizer.step()
        self.gang.follow(buffer for buffer, version in versions if buffer._version != version)
        return value, {name: part.detach() for name, part in parts.items()}


class GraphedStep:
    """The same as a CUDA graph, after some steps as they are. Results are overwritten by the next step."""

    def __init__(self, step: Step) -> None:
        self._step, self._done = step, 0
        self._graph = torch.cuda.CUDAGraph()
        self._batch: list[Tensor] = []
        self._result: tuple[Tensor, Tensors] | None = None

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensors]:
        self._done += 1
        if self._done <= WARM_UPS:
            return self._apart(batch)
        if self._result is None:
            self._result = self._captured(batch)
        for kept, given in zip(self._batch, _tensors(batch), strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._result

    def _apart(self, batch: Batch) -> tuple[Tensor, Tensors]:
        """On a stream of its own, as a capture will be."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _captured(self, batch: Batch) -> tuple[Tensor, Tensors]:
        kept = Batch(
            observation={path: leaf.clone() for path, leaf in batch.observation.items()},
            action={path: leaf.clone() for path, leaf in batch.action.items()},
            reward=batch.reward.clone(),
            terminated=batch.terminated.clone(),
            is_first=batch.is_first.clone(),
            valid=batch.valid.clone(),
        )
        self._batch = _tensors(kept)
        self._step.optimizer.zero_grad(set_to_none=True)  # gradients of a graph are written, not added
        gc.collect()  # now, for during the capture nothing is
        with nothing_freed(), torch.cuda.graph(self._graph):
            return self._step(kept)


def _tensors(batch: Batch) -> list[Tensor]:
    return [leaf for part in batch for leaf in (part.values() if isinstance(part, dict) else [part])]
