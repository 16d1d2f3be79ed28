"""Has files inspected by a process of its own, one after another. Knows no ONNX.

The serving process reads nothing of a file that was not inspected: it passes bytes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from simservice.engine.uploads.budget import Budget
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.messages import receive, send
from simservice.engine.uploads.record import PolicyGraph
from simservice.engine.uploads.requirements import Requirements
from simservice.errors import InternalError, PolicyLimitExceeded, error_class

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
"""Of this process's environment; what else stands there (addresses, tokens) is none of a file's business."""

MOST_OWED_S = 120.0  # a tenant waits no longer than this for what its files took

GRACE_S = 10.0  # beyond the inspection's own limit, until its process counts as lost


class Inspector:
    """Called from one event loop; the work is done by one thread and the process, which start with the first file."""

    def __init__(self, limits: PolicyLimits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "policy inspector")
        self._waiting: Counter[str] = Counter()
        share, burst_s = limits.inspecting_share, limits.inspecting_burst_s
        self._budget = Budget(share, burst_s, MOST_OWED_S * share)
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._stopped = False

    async def inspect(self, file: bytes, requirements: Requirements, tenant: str) -> tuple[PolicyGraph, bytes]:
        """The graph and its weights; InvalidPolicy or PolicyLimitExceeded says what is wrong with the file."""
        self.refuse_crowds(tenant)
        self._waiting[tenant] += 1
        loop = asyncio.get_running_loop()

        def tell(what: Callable[..., object], *words: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody counts any more
                loop.call_soon_threadsafe(what, *words)

        future = self._thread.submit(
            self._ask, file, requirements, lambda used_s: tell(self._budget.take, tenant, used_s)
        )
        future.add_done_callback(lambda done: tell(self._leave, tenant))
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """Ends the process, also in the middle of a file."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._end()

    def refuse_crowds(self, tenant: str) -> None:
        """PolicyLimitExceeded, with the time to come again, where too many wait or the tenant's took too long."""
        limits = self._limits
        if owed_s := self._budget.owed_s(tenant):
            raise PolicyLimitExceeded(
                "processor seconds of inspecting one tenant's policies",
                found="more a second",
                most=limits.inspecting_share,
                remedy="come again, with fewer or smaller ones; other weights for a known graph need no inspection",
                retry_after_s=owed_s,
            )
        for found, most in (
            (self._waiting[tenant], limits.inspections_waiting_per_tenant),
            (self._waiting.total(), limits.inspections_waiting),
        ):
            if found >= most:
                raise PolicyLimitExceeded(
                    "policies being inspected", found=found, most=most, remedy="come again", retry_after_s=1.0
                )

    def _leave(self, tenant: str) -> None:
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def _ask(
        self, file: bytes, requirements: Requirements, used: Callable[[float], object]
    ) -> tuple[PolicyGraph, bytes]:
        head, blobs = self._exchange(requirements.to_head(self._limits), [*requirements.samples, file])
        used(head["processor_s"])
        if "reason" in head:
            raise error_class(head["reason"]).from_wire(head["message"], head["details"])
        record, weights = blobs
        return PolicyGraph.from_bytes(record), weights

    def _exchange(self, head: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        for last in (False, True):  # one that was idle for long has ended
            try:
                peer = self._reached()
                send(peer, head, blobs)
                return receive(peer)
            except (EOFError, OSError, ValueError) as error:
                self._end()
                if last or self._stopped or isinstance(error, TimeoutError):
                    raise InternalError("the process that inspects policies ended; put the policy again") from error
        raise AssertionError("unreachable")

    def _reached(self) -> socket.socket:
        if self._peer is None:
            ours, theirs = socket.socketpair()
            environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "simservice.engine.uploads.inspecting", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                )
            ours.settimeout(self._limits.inspection_s + GRACE_S)
            self._peer = ours
        return self._peer

    def _end(self) -> None:
        process, peer, self._process, self._peer = self._process, self._peer, None, None
        if peer is not None:
            peer.close()
        if process is not None:
            process.kill()
            process.wait()
