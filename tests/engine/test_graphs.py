"""Worlds whose calls cannot be recorded are served all the same, call by call, and a warning says why: torch's own
recorder of CUDA graphs is played by a double here, which raises what it raises; on a device it is the real one."""

import asyncio
import contextlib
import logging

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch.utils._python_dispatch import TorchDispatchMode
from toy import Toy, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.sessions.lanes import Reset, Step
from simservice.types import TRUSTING, Imagine

CONFIG = ToyConfig(noise=0.1, growth=0.95)
ASKING = {  # for values on the host
    torch.ops.aten.item.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
}
ASKED = "operation not permitted when stream is capturing"


class Asking(Toy):
    """Looks at a value in `step`: what a graph cannot."""

    def step(self, state, action, draws):
        if state["x"].sum().item() > 1e9:
            raise AssertionError("values are as they always are")
        return super().step(state, action, draws)


class Recording(TorchDispatchMode):
    """What torch.cuda.graph does to whoever asks for a value meanwhile, and at its own end then."""

    running = False

    def __init__(self, graph, capture_error_mode):
        super().__init__()
        self.broken = False

    def __enter__(self):
        Recording.running = True
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in ASKING:
            self.broken = True
            raise torch.AcceleratorError(f"CUDA error: {ASKED}\nCUDA kernel errors might be reported elsewhere.")
        return function(*args, **(kwargs or {}))

    def __exit__(self, *raised):
        super().__exit__(*raised)
        Recording.running = False
        if self.broken:
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")


class Stream:
    def wait_stream(self, other):
        """Nothing runs beside anything here."""


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
        ),
    ]
)
def device(request, monkeypatch):
    if request.param == "cpu":
        monkeypatch.setattr("simservice.engine.engine.GRAPHED", frozenset({"cpu"}))
        monkeypatch.setattr("simservice.engine.graphs.RECORDED", frozenset({"cpu"}))
        for name, double in {
            "graph": Recording,
            "CUDAGraph": lambda: None,
            "Stream": Stream,
            "current_stream": Stream,
            "stream": lambda stream: contextlib.nullcontext(),
        }.items():
            monkeypatch.setattr(torch.cuda, name, double)
    return request.param


def played(world, device):
    """Rewards of six steps of 20 lanes, and of an open-loop rollout of three steps after them."""

    async def within():
        engine = Engine(world, capacity=64, device=device)
        engine.start()
        try:
            lanes = engine.allocate(20, AutoresetMode.NEXT_STEP, np.arange(20), TRUSTING)
            await engine.reset(lanes, Reset())
            command, rewards = Step({"action": np.arange(20) % 3}), []
            for _ in range(6):
                rewards.append((await engine.step(lanes, command)).reward)
            actions = {"action": np.ones((3, 20), np.int64)}
            parts = [part async for part in engine.imagine(lanes, Imagine(steps=3, actions=actions), None)]
            return np.concatenate([*rewards, *(np.ravel(part.reward) for part in parts)])
        finally:
            engine.stop()

    return asyncio.run(within())


def test_a_world_that_looks_at_values_plays_on_call_by_call_and_one_warning_says_where_it_looks(
    device, caplog, monkeypatch
):
    with caplog.at_level(logging.WARNING, "simservice"):
        found = played(Asking(toy_spec(), CONFIG), device)
    (told,) = [record.getMessage() for record in caplog.records]
    assert "'toy'" in told and "test_graphs.py, line" in told and ASKED in told and "elsewhere" not in told
    monkeypatch.undo()
    np.testing.assert_allclose(found, played(Toy(toy_spec(), CONFIG), "cpu"), rtol=1e-9, atol=1e-9)


def test_a_device_that_is_full_is_not_taken_for_a_world_that_cannot_be_recorded(device):
    class Large(Toy):
        """Needs more memory than there is, while it is recorded."""

        def step(self, state, action, draws):
            if Recording.running:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().step(state, action, draws)

    if device == "cuda":
        pytest.skip("the double alone knows when it records")
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB"):
        played(Large(toy_spec(), CONFIG), device)
