"""Checked models in onnxruntime: how a session is opened, and the devices it may run on. The one file that knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from simservice.engine.uploads.messages import first_line
from simservice.errors import InvalidPolicy
from simservice.types import Array

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

onnxruntime.set_default_logger_severity(4)  # what it says of users' files comes as exceptions


class OnnxSession:
    """One model, loaded. InvalidPolicy where onnxruntime cannot load or run it."""

    def __init__(self, model: bytes, outputs: Sequence[str], device: str = "cpu") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        # Memory of a call goes back when it ends: an arena keeps what the largest batch of any policy took.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self.device = device if has_device(device) else "cpu"
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[_PROVIDERS[self.device]])
        except Exception as error:  # of a dozen classes without a common one; nothing of ours is called here
            raise InvalidPolicy(
                f"onnxruntime cannot load the graph ({first_line(error)})", "export it anew, with ONNX's own operators"
            ) from error
        self._outputs = list(outputs)
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs of one batch."""
        try:
            found: list[Array] = self._session.run(self._outputs, feeds, self._options)
        except Exception as error:
            raise InvalidPolicy(
                f"onnxruntime cannot run the graph ({first_line(error)})",
                "see that it runs with observations of this world",
            ) from error
        return found

    def terminate(self) -> None:
        """Ends the call under way at its next node, from another thread; no call comes to an end any more."""
        self._options.terminate = True

    def run_bound(
        self, feeds: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]]
    ) -> list[Any]:
        """The outputs of one batch, in memory of the device: feeds and results are OrtValues there.

        Nothing is copied to the host, and nothing waits for it.
        """
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name, shape, dtype in zip(self._outputs, shapes, dtypes, strict=True):
            binding.bind_output(name, self.device, 0, dtype, shape)
        self._session.run_with_iobinding(binding, self._options)
        return list(binding.get_outputs())


def has_device(device: str) -> bool:
    """Whether the installed onnxruntime can run on "cpu" or "cuda"."""
    return _PROVIDERS.get(device) in onnxruntime.get_available_providers()
