"""The policies of one world in one process: puts them into the store, inspected, and gets them out of it, loaded.

Knows the store and the inspection, no ONNX and no wire.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from simservice.engine.policies import DistributionName, TensorSpec
from simservice.engine.sampling import ActionDistribution
from simservice.engine.uploads.inspector import Inspector
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.record import PolicyGraph
from simservice.engine.uploads.requirements import SAMPLES, Requirements
from simservice.engine.uploads.session import OnnxPolicy, Watchdog
from simservice.engine.uploads.signature import check_inputs, check_outputs
from simservice.engine.uploads.weights import check_weights
from simservice.errors import InvalidPolicy, PolicyLimitExceeded, PolicyQuarantined, SimserviceError, UnknownPolicy
from simservice.sessions.policies import PolicyStore
from simservice.types import leaves_of, to_leaves

TOUCH_EVERY_S = 60.0
"""A loaded policy that is used renews its time to live in the store no more often than this."""

REFUSED_AGAIN_S = 60.0
"""A file that was refused is refused again without a look for so long."""

REMEMBERED = 256


class Put(NamedTuple):
    """What became of a policy that was put."""

    content_hash: str
    graph: PolicyGraph


@dataclass
class _Loaded:
    policy: OnnxPolicy
    touched_at: float


class PolicyLibrary:
    """Called from one event loop; what takes long runs in threads and the inspection's process."""

    def __init__(
        self,
        store: PolicyStore,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        limits: PolicyLimits | None = None,
        device: str = "cpu",
    ) -> None:
        self.store = store
        self.limits = limits or PolicyLimits()
        self._spaces = (observation_space, action_space)
        self._device = device.partition(":")[0]
        self._inspector = Inspector(self.limits)
        self._watchdog = Watchdog()
        self._requirements: dict[DistributionName, Requirements] = {}
        self._loaded: OrderedDict[tuple[str, str], _Loaded] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Task[_Loaded]] = {}
        self._graphs: OrderedDict[tuple[str, str], PolicyGraph] = OrderedDict()  # by tenant and hash
        self._files: OrderedDict[tuple[str, bytes], Put | SimserviceError] = OrderedDict()
        self._refused_at: dict[tuple[str, bytes], float] = {}
        self._problems: OrderedDict[str, str] = OrderedDict()  # of policies that are run no more, by content hash

    async def put_whole(self, tenant: str, file: bytes, distribution: DistributionName) -> Put:
        """Inspects a file and keeps its policy. InvalidPolicy or PolicyLimitExceeded, and nothing kept."""
        if len(file) > self.limits.file_bytes:
            raise PolicyLimitExceeded(
                "bytes of the file", found=len(file), most=self.limits.file_bytes, remedy="send a smaller network"
            )
        self._inspector.refuse_crowds(tenant)  # before anything is done for the file
        requirements = self._required(distribution)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(distribution.encode() + b"\0" + file).digest())
        known = self._remembered((tenant, digest))
        if isinstance(known, SimserviceError):
            raise known
        if known is not None:
            try:
                await self.store.touch(tenant, known.content_hash)
                return known
            except UnknownPolicy:
                pass  # forgotten since: as if it were new
        try:
            graph, weights = await self._inspector.inspect(file, requirements, tenant)
        except (InvalidPolicy, PolicyLimitExceeded) as error:
            if error.retry_after_s is None:
                self._remember((tenant, digest), error)
            raise
        put = await self._keep(tenant, graph, weights)
        self._remember((tenant, digest), put)
        return put

    async def put_weights(
        self, tenant: str, graph_hash: str, weights: Mapping[str, tuple[str, Sequence[int], bytes]]
    ) -> Put:
        """Keeps a known graph with other weights: (dtype, shape, raw) by name. UnknownPolicy or InvalidPolicy."""
        graph = self._graphs.get((tenant, graph_hash))
        if graph is None:
            graph = PolicyGraph.from_bytes(await self.store.graph(tenant, graph_hash))
            self._keep_graph(tenant, graph)
        return await self._keep(tenant, graph, check_weights(graph.weights, weights))

    async def loaded(self, tenant: str, content_hash: str) -> OnnxPolicy:
        """A policy, ready to run. UnknownPolicy, PolicyQuarantined; InvalidPolicy when it does not fit this world."""
        key = (tenant, content_hash)
        loaded = self._loaded.get(key)
        if loaded is None:
            if content_hash in self._problems:
                raise PolicyQuarantined(content_hash, self._problems[content_hash])
            if key not in self._loading:  # of many that ask together one loads it
                self._loading[key] = asyncio.create_task(self._load(tenant, content_hash))
                self._loading[key].add_done_callback(lambda done: self._loading.pop(key, None))
            loaded = await asyncio.shield(self._loading[key])
        if loaded.policy.problem:
            self._quarantine(loaded.policy)
            raise PolicyQuarantined(content_hash, loaded.policy.problem)
        if time.monotonic() - loaded.touched_at > TOUCH_EVERY_S:
            await self.store.touch(tenant, content_hash)
            loaded.touched_at = time.monotonic()
        if key in self._loaded:
            self._loaded.move_to_end(key)
        return loaded.policy

    def stop(self) -> None:
        """Ends the inspection's process and the watchdog; waits for them."""
        self._inspector.stop()
        self._watchdog.stop()
        self._loaded.clear()

    # ---- putting -----------------------------------------------------------------------------------------------------

    async def _keep(self, tenant: str, graph: PolicyGraph, weights: bytes) -> Put:
        content_hash = graph.content_hash(weights)
        await self.store.put(tenant, content_hash, graph.graph_hash, graph.to_bytes(), weights)
        self._keep_graph(tenant, graph)
        return Put(content_hash, graph)

    def _keep_graph(self, tenant: str, graph: PolicyGraph) -> None:
        self._graphs[tenant, graph.graph_hash] = graph
        self._graphs.move_to_end((tenant, graph.graph_hash))
        while len(self._graphs) > REMEMBERED:
            self._graphs.popitem(last=False)

    def _required(self, distribution: DistributionName) -> Requirements:
        if distribution not in self._requirements:
            self._requirements[distribution] = requirements_of(distribution, *self._spaces)
        return self._requirements[distribution]

    def _remembered(self, key: tuple[str, bytes]) -> Put | SimserviceError | None:
        refused_at = self._refused_at.get(key)
        if refused_at is not None and time.monotonic() - refused_at > REFUSED_AGAIN_S:
            del self._refused_at[key], self._files[key]
        return self._files.get(key)

    def _remember(self, key: tuple[str, bytes], outcome: Put | SimserviceError) -> None:
        self._files[key] = outcome
        self._files.move_to_end(key)
        if isinstance(outcome, SimserviceError):
            self._refused_at[key] = time.monotonic()
        while len(self._files) > REMEMBERED:
            self._refused_at.pop(self._files.popitem(last=False)[0], None)

    # ---- loading -----------------------------------------------------------------------------------------------------

    async def _load(self, tenant: str, content_hash: str) -> _Loaded:
        stored = await self.store.get(tenant, content_hash)
        graph = PolicyGraph.from_bytes(stored.graph)
        requirements = self._required(graph.distribution)
        check_inputs(graph.inputs, requirements.leaves)
        check_outputs(graph.outputs, graph.distribution, requirements.head, self.limits)
        policy = await asyncio.to_thread(OnnxPolicy, graph, stored.weights, self.limits, self._watchdog, self._device)
        loaded = _Loaded(policy, time.monotonic())
        self._loaded[tenant, content_hash] = loaded
        while len(self._loaded) > self.limits.loaded or (
            len(self._loaded) > 1 and sum(one.policy.bytes for one in self._loaded.values()) > self.limits.loaded_bytes
        ):
            _, unused = self._loaded.popitem(last=False)
            if unused.policy.problem:
                self._quarantine(unused.policy)
        return loaded

    def _quarantine(self, policy: OnnxPolicy) -> None:
        self._problems[policy.content_hash] = policy.problem
        while len(self._problems) > REMEMBERED:
            self._problems.popitem(last=False)


def requirements_of(
    distribution: DistributionName, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> Requirements:
    """What a world asks of a policy; InvalidPolicy where the distribution does not fit its actions."""
    head = ActionDistribution(distribution, action_space).head
    leaves = leaves_of(observation_space, "observation")
    # A space of its own to draw from: the same samples every time, and the world's generator is left alone.
    drawn = copy.deepcopy(observation_space)
    drawn.seed(0)
    samples = [to_leaves(drawn, drawn.sample(), "observation") for _ in range(SAMPLES)]
    return Requirements(
        distribution=distribution,
        head=head,
        leaves=tuple(TensorSpec(leaf.path, leaf.shape, leaf.dtype) for leaf in leaves),
        samples=tuple(
            np.stack([np.asarray(sample[leaf.path], leaf.dtype) for sample in samples]).tobytes() for leaf in leaves
        ),
    )
