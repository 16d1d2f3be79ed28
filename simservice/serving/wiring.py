"""Builds all that one process needs for one world: checkpoint, engine, sessions, announcement. Knows no gRPC or Ray."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import simservice
from simservice.engine.engine import Engine
from simservice.engine.graphs import compile_calls
from simservice.engine.stats import Histogram
from simservice.engine.uploads.shelf import PolicyLibrary
from simservice.errors import SimserviceError, StoreUnavailable
from simservice.protocol.memory import keep_freed_memory
from simservice.protocol.messages import Limits, WorldContract, encode_world
from simservice.serving.capacity import lanes_that_fit
from simservice.serving.commands import CommandCodec
from simservice.serving.facade import Hosted
from simservice.serving.renderers import with_pictures
from simservice.serving.rooms import told
from simservice.serving.settings import MAX_MESSAGE_BYTES
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.quotas import QuotaKeeper
from simservice.sessions.redis_policies import policy_store
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig
from simservice.sessions.store import SessionStore
from simservice.telemetry import Distribution, ServingMetrics, ServingReading
from simservice.types import Provenance
from simservice.worlds import checkpoint
from simservice.worlds.world import BUCKETS, World

log = logging.getLogger(__name__)

MEMORY = "memory:"
"""A store URL: sessions end with the process. For trials and tests."""


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """How one process serves one world."""

    device: str = "cpu"
    capacity: int = 4096  # lanes; fewer where the device has no memory for them
    buckets: tuple[int, ...] = BUCKETS
    compiled: bool = False  # whether torch fuses the world's calls: seconds at the start for every batch size
    max_context_frames: int = 64
    announce_every_s: float = 5.0
    announcement_ttl_s: float = 15.0
    tenants: str | None = None  # a tenants file; None: everybody is one anonymous tenant
    formers: tuple[str, ...] = ()  # folders of former versions, held for the sessions that began in them
    operator: str = ""  # the hash of the service's own token
    monitor: str = ""  # the hash of its monitor's
    sessions: SessionConfig = field(default_factory=SessionConfig)


def open_store(url: str, idle_ttl_s: float = SessionConfig.idle_ttl_s) -> SessionStore:
    """The session store at a URL: redis://, rediss://, unix://, or memory: for one that ends with the process."""
    if url == MEMORY:
        return MemoryStore(idle_ttl_s=idle_ttl_s)
    return RedisStore(url, idle_ttl_s=idle_ttl_s)


def build_replica(
    folder: str | Path, store: SessionStore, config: ReplicaConfig | None = None, quotas: QuotaKeeper | None = None
) -> Replica:
    """A replica of the world in a checkpoint folder; nothing runs before its start().

    `quotas` are those of the process: its owner stops them after its replicas.
    """
    config = config or ReplicaConfig()
    loaded = checkpoint.load(folder, device=config.device)
    return Replica(with_pictures(loaded.world, loaded.provenance), loaded.provenance, store, config, quotas)


class Replica:
    """One served world in this process."""

    def __init__(
        self,
        world: World,
        provenance: Provenance,
        store: SessionStore,
        config: ReplicaConfig,
        quotas: QuotaKeeper | None = None,
    ) -> None:
        self.config = config
        self.store = store
        capacity = lanes_that_fit(world, config.device, config.capacity)
        known = provenance.fidelity.get("uncertainty_known")
        self._tells_support = known is not None
        if config.compiled:
            compile_calls(world)
        keep_freed_memory()
        self.engine = Engine(
            world,
            capacity=capacity,
            device=config.device,
            buckets=config.buckets,
            known_uncertainty=math.inf if known is None else float(known),
            rollout_limits=config.sessions.rollout_limits,
        )
        context_frames = config.max_context_frames if "context" in world.spec.capabilities else 0
        codec = CommandCodec(world.spec, context_frames)
        self.metrics = ServingMetrics(world.spec.name, world.spec.version)
        self.policies = PolicyLibrary(
            policy_store(store), world.spec.observation_space, world.spec.action_space, device=config.device
        )
        self.service = SessionService(
            self.engine,
            store,
            decode=codec.stored_command,
            replies=codec,
            config=config.sessions,
            quotas=quotas,
            observe_append=self.metrics.observe_journal_append,
            policies=self.policies,
        )
        self.metrics.watch(self.reading)
        limits = Limits(
            max_num_envs=min(config.sessions.max_num_envs, capacity),
            max_message_bytes=MAX_MESSAGE_BYTES,
            idle_ttl_s=round(config.sessions.idle_ttl_s),
            replies_kept=config.sessions.replies_kept,
            max_context_frames=context_frames,
            lane_bytes=self.engine.lane_bytes,
            snapshot_lane_bytes=self.engine.snapshot_lane_bytes,
            max_points=config.sessions.max_points,
            max_points_bytes=config.sessions.max_points_bytes,
            deadline_s=max(1, round(config.sessions.deadline_s)),
            max_rollout_steps=config.sessions.max_rollout_steps,
            max_rollout_lanes=self.engine.rollout_limits.lanes,
            max_rollout_bytes=config.sessions.max_rollout_bytes,
            rollout_deadline_s=max(1, round(config.sessions.rollout_deadline_s)),
        )
        contract = WorldContract(
            spec=world.spec,
            limits=limits,
            provenance=asdict(provenance),
            server_version=simservice.__version__,
        )
        self.hosted = Hosted(contract, self.service, codec, self.metrics, self.policies)
        self.beside: Callable[[], Sequence[Hosted]] = tuple  # former versions that this process holds as well
        self._announcing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Warms the engine up, then tells the store that the world is served; StoreUnavailable when it cannot."""
        await asyncio.to_thread(self.engine.start)
        try:
            contract = encode_world(self.hosted.contract).SerializeToString()
            await self._announce(contract)
        except BaseException:
            self.engine.stop()
            raise
        self._announcing = asyncio.create_task(self._keep_announcing(contract))

    async def stop(self) -> None:
        """Ends after the requests under way. Sessions stay in the store, for the next replica to resume."""
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.wait([self._announcing])
            self._announcing = None
        await self.service.stop()
        await asyncio.to_thread(self.engine.stop)
        await asyncio.to_thread(self.policies.stop)

    def reading(self) -> ServingReading:
        """The counters of engine and sessions as they are now."""
        engine, sessions = self.engine.stats(), self.service.stats()
        others = [host.service for host in self.beside()]
        stored = [session.stored_bytes for service in (self.service, *others) for session in service.held.all()]
        return ServingReading(
            lane_steps=engine.lane_steps,
            lanes_in_use=engine.lanes_in_use + sum(service.engine.lanes_in_use for service in others),
            lanes_capacity=engine.capacity + sum(service.engine.capacity for service in others),
            sessions_open=sessions.open + sum(service.stats().open for service in others),
            restores=sessions.resumed - sessions.adopted,
            store_bytes={"sum": sum(stored), "max": max(stored, default=0)},
            out_of_support=engine.beyond_support if self._tells_support else None,
            world_errors=engine.world_errors,
            requests_waiting=engine.waiting,
            episodes={"terminated": engine.episodes_terminated, "truncated": engine.episodes_truncated},
            batch_lanes=_distribution(engine.tick_lanes),
            tick_seconds=_distribution(engine.tick_seconds),
        )

    async def _announce(self, contract: bytes) -> None:
        await self.store.announce(self.hosted.full_name, contract, self.config.announcement_ttl_s)
        owner = f"{self.hosted.full_name}/{self.hosted.replica}"
        await self.store.announce_room(owner, told(self.hosted), self.config.announcement_ttl_s)

    async def _keep_announcing(self, contract: bytes) -> None:
        while True:
            await asyncio.sleep(self.config.announce_every_s)
            try:
                await self._announce(contract)
            except StoreUnavailable as error:
                log.warning("world %s could not be announced: %s", self.hosted.full_name, error)
            except SimserviceError:
                log.exception("world %s could not be announced", self.hosted.full_name)


def _distribution(histogram: Histogram) -> Distribution:
    return Distribution(histogram.bounds, histogram.counts, histogram.total)
