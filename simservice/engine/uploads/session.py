"""A checked policy, loaded: a RolloutPolicy that runs its batches in bounded calls under a watchdog."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import numpy as np

from simservice.engine.policies import DistributionName, TensorSpec
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.record import PolicyGraph
from simservice.engine.uploads.runtime import OnnxSession
from simservice.errors import InvalidPolicy, PolicyLimitExceeded, PolicyQuarantined, SimserviceError
from simservice.types import Array, Leaves


class OnnxPolicy:
    """A RolloutPolicy (engine/policies.py). After a call that failed it is of no use any more."""

    content_hash: str
    distribution: DistributionName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(
        self, graph: PolicyGraph, weights: bytes, limits: PolicyLimits, watchdog: Watchdog, device: str = "cpu"
    ) -> None:
        self.content_hash = graph.content_hash(weights)
        self.distribution, self.inputs, self.outputs = graph.distribution, graph.inputs, graph.outputs
        self.bytes = len(graph.skeleton) + len(weights)
        self.problem = ""  # why it is run no more
        self.deadlines: dict[int, float] = {}  # of the calls under way, by thread
        self._late = False
        self._rows = graph.rows_per_call
        self._call_s = limits.call_s
        self._names = [spec.name for spec in graph.outputs]
        self._feeds = [spec.name for spec in graph.inputs]
        self._session = OnnxSession(graph.skeleton + weights, self._names, device)
        self._watchdog = watchdog
        watchdog.watch(self)

    @property
    def device(self) -> str:
        """ "cuda" where batches may come and go in the device's memory; see run_on_device."""
        return self._session.device

    def __call__(self, observation: Leaves) -> dict[str, Array]:
        """Outputs by name, (lanes, ...) each; see RolloutPolicy."""
        feeds = {name: observation[name] for name in self._feeds}
        lanes = len(feeds[self._feeds[0]])
        rows = self._rows
        if lanes <= rows:
            return dict(zip(self._names, self._guarded(self._session.run, feeds), strict=True))
        parts = [
            self._guarded(self._session.run, {name: array[start : start + rows] for name, array in feeds.items()})
            for start in range(0, lanes, rows)
        ]
        return {name: np.concatenate(found) for name, found in zip(self._names, zip(*parts, strict=True), strict=True)}

    def run_on_device(self, observation: Mapping[str, Any], lanes: int) -> dict[str, Any]:
        """The same where the session runs on CUDA: OrtValues in and out, at most `rows_per_call` lanes, no copies."""
        shapes = [(lanes, *spec.shape) for spec in self.outputs]
        found = self._guarded(self._session.run_bound, observation, shapes, [spec.dtype for spec in self.outputs])
        return dict(zip(self._names, found, strict=True))

    def terminate(self) -> None:
        """Ends all calls under way; from the watchdog's thread."""
        self._late = True
        self._session.terminate()

    def _guarded(self, call: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
        if self.problem:
            raise PolicyQuarantined(self.content_hash, self.problem)
        thread, deadline = threading.get_ident(), monotonic() + self._call_s
        self.deadlines[thread] = deadline
        self._watchdog.begun(deadline)
        try:
            return call(*arguments)
        except InvalidPolicy as error:
            raise self._given_up(error) from error
        finally:
            del self.deadlines[thread]

    def _given_up(self, error: InvalidPolicy) -> SimserviceError:
        if self._late:
            self.problem = f"a call of it took more than {self._call_s:g} s"
            return PolicyLimitExceeded(
                "seconds of one call",
                found=f"over {self._call_s:g}",
                most=self._call_s,
                remedy="put a smaller network; this one is run no more",
            )
        self.problem = f"a call of it failed: {error}"
        return error


class Watchdog:
    """One thread that ends calls beyond their deadline. It sleeps until the earliest moment that could be."""

    def __init__(self) -> None:
        self._policies: weakref.WeakSet[OnnxPolicy] = weakref.WeakSet()
        self._wakes_at = math.inf
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def watch(self, policy: OnnxPolicy) -> None:
        """From now on; the thread starts with the first."""
        self._policies.add(policy)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="policy watchdog", daemon=True)
            self._thread.start()

    def begun(self, deadline: float) -> None:
        """A call is under way until a deadline. Nearly always the thread wakes before that anyway: nothing to do."""
        if deadline < self._wakes_at:
            self._wake.set()

    def stop(self) -> None:
        """Ends the thread."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            # Infinity first: a call that begins between these lines sees it and wakes this thread.
            self._wakes_at = math.inf
            now, earliest = monotonic(), math.inf
            for policy in list(self._policies):
                for deadline in list(policy.deadlines.values()):
                    if deadline <= now:
                        policy.terminate()
                    else:
                        earliest = min(earliest, deadline)
            self._wakes_at = earliest
            self._wake.wait(None if math.isinf(earliest) else max(0.0, earliest - now))
