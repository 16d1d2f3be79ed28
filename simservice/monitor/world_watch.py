"""Watches one world: plays probes when they are due, asks the service about them, and keeps what was learned.

Outlives a dead service, a broken or hanging environment and its own end: a probe counts when its result is kept, and
one that was cut off before is played again, the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simservice.client.reports import read_reports
from simservice.client.worlds import get_world
from simservice.data.minari import load_dataset
from simservice.errors import InvalidInput, RealStepBudgetExceeded, SimserviceError
from simservice.fidelity.drift import DriftConfig
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.monitor.evidence import GOLDEN, Evidence
from simservice.monitor.failures import reason_of
from simservice.monitor.golden import EPISODES, GoldenReplay
from simservice.monitor.imagine import DreamPlayer
from simservice.monitor.isolated import measure
from simservice.monitor.kept import Kept, drop_acknowledgement, state_path, take_acknowledgement
from simservice.monitor.normal import NormalConfig, learn_normal, play_normal
from simservice.monitor.pace import BURST, Pace, PaceConfig, measure_every_s, probes_share
from simservice.monitor.reality import ProbeConfig
from simservice.monitor.rig import RealRig, RigConfig
from simservice.monitor.served import ServedNormal
from simservice.protocol.messages import WorldContract
from simservice.types import Episode

LOG = logging.getLogger(__name__)

LANES = 32
"""Of the sessions that a probe of the served world takes: few, so that it is no load."""

LONGEST_PAUSE_S = 600.0
"""Between attempts at what has failed again and again."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """How one world is watched."""

    pace: PaceConfig = field(default_factory=PaceConfig)
    normal: NormalConfig = field(default_factory=NormalConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    calibration: str | None = None  # a Minari dataset that tells what is normal; None: it is played
    fidelity_every_s: float | None = 3600.0  # None: never
    fidelity: dict[str, Any] = field(default_factory=dict)  # fields of ProbeConfig
    fidelity_timeout_s: float = 1800.0
    golden_every_s: float | None = 600.0
    reports_every_s: float = 60.0
    max_real_steps: int | None = None  # in all, what is normal included
    retry_s: float = 10.0  # after a failure


class WorldWatch:
    """One world. step() is called again and again, by one thread; reading() by any."""

    def __init__(
        self,
        address: str,
        world: str,
        rig: RigConfig,
        config: WatchConfig,
        folder: Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.address, self.world, self.config, self.folder = address, world, config, folder
        self.rig = RealRig(replace(rig, horizon=config.normal.horizon))
        self.now = now
        self.path = state_path(folder, world)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.kept = Kept.load(self.path)
        self.kept = self.kept.settled(_digest(self.rig.config))
        self.pace = Pace(
            probes_share(config.pace, config.fidelity_every_s), self.kept.level, self.kept.level_at, self.kept.burst
        )
        self.evidence: Evidence | None = None
        self.last_heard_at = self.kept.last_probe_at
        self.contract: WorldContract | None = None
        self._due: dict[str, float] = {}
        if self.kept.fidelity_at is not None:  # a restart is no reason to measure it again
            self._due["fidelity"] = self.kept.fidelity_at + (self._fidelity_every_s() or 0.0)
        self._failed: dict[str, int] = {}  # times in a row, by task
        self.interrupted = False

    # ---- the loop -----------------------------------------------------------------------------------------------

    def step(self) -> float:
        """Does what is due and returns the seconds until something else is. Raises nothing but what is our fault."""
        for task, every_s in self._tasks():
            if self.now() < self._due.get(task, 0.0):
                continue
            self._due[task] = self.now() + every_s
            with self._failing(task):
                getattr(self, f"_{task}")()
        self.obey()
        if self.evidence is None:
            return self.config.retry_s
        waiting = [self._due[task] - self.now() for task, _ in self._tasks() if task in self._due]
        return max(0.0, min(waiting, default=self.config.retry_s))

    def _tasks(self) -> list[tuple[str, float]]:
        """What there is to do now, in order, and how long until it is tried again."""
        if self.evidence is None:
            return [("prepare", self.config.retry_s)]
        config = self.config
        tasks: list[tuple[str, float | None]] = [
            ("look", config.pace.every_s),
            ("golden", config.golden_every_s if self.evidence.golden is not None else None),
            ("probe", self._probe_in_s(since_s=0.0)),
            ("reports", config.reports_every_s),
            ("fidelity", self._fidelity_every_s()),
        ]
        return [(task, every_s) for task, every_s in tasks if every_s is not None]

    def _fidelity_every_s(self) -> float | None:
        config = self.config
        return measure_every_s(config.pace, config.fidelity_every_s, self.kept.fidelity_steps)

    def _probe_in_s(self, since_s: float) -> float:
        suspicious = self.evidence is not None and self.evidence.suspicious
        return self.pace.next_in_s(self.rig.config.horizon, suspicious, since_s, self.now())

    @contextlib.contextmanager
    def _failing(self, task: str) -> Iterator[None]:
        """What goes wrong is counted and told, and tried again later."""
        try:
            yield
            self._failed.pop(task, None)
            return
        except SimserviceError as error:
            if self.interrupted:
                return
            reason = reason_of(error)
            LOG.warning("%s: %s failed (%s)", self.world, task, error)
        except Exception:  # a monitor that ends by its own fault would be silent about all worlds
            reason = "other"
            LOG.exception("%s: %s failed", self.world, task)
        self.kept.count("failures", reason)
        self._failed[task] = again = self._failed.get(task, 0) + 1
        pause_s = min(self.config.retry_s * 2 ** (again - 1), LONGEST_PAUSE_S)  # real steps may have been lost with it
        self._due[task] = self.now() + max(pause_s, self._due[task] - self.now())
        self._save()

    # ---- what there is to do ------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Knows what is normal: from what was kept, from a dataset, or by playing it."""
        config, place = self.config, self.path.parent
        epoch = json.loads(self.kept.reality)["epoch"] if self.kept.reality else 0
        if self.kept.dataset is None and config.calibration is not None and epoch == 0:
            self.kept.dataset = config.calibration
        if self.kept.dataset is None:
            self._check_spaces()
            self.kept.dataset = self._play_normal(epoch)
            self._save()
        own = place / "datasets"
        dataset = load_dataset(self.kept.dataset, own if (own / self.kept.dataset).exists() else None)
        normal = learn_normal(dataset, config.normal, self.rig.config.seed)
        evidence = Evidence.begun(normal, config.drift, self.kept)
        evidence.golden = self._golden_of([one for played in normal.episodes.values() for one in played])
        self.evidence = evidence
        self._look()
        self._save()

    def _check_spaces(self) -> None:
        """Before a real step is spent on the wrong environment."""
        self.contract = get_world(self.address, self.world)
        spec = self.contract.spec
        for name, real, served in zip(
            ("observation", "action"), self.rig.spaces, (spec.observation_space, spec.action_space), strict=True
        ):
            if real != served:
                env_id = self.rig.config.env_id
                raise InvalidInput("env", f"{env_id} has the {name} space {real}, the served world has {served}")

    def _play_normal(self, epoch: int) -> str:
        LOG.info("%s: learning what is normal (epoch %d)", self.world, epoch)
        spent, played = self.rig.steps, 0

        def told(new: int, total: int) -> None:
            nonlocal spent, played
            self.last_heard_at, played = self.now(), played + new
            if 10 * played // total > 10 * (played - new) // total:
                LOG.info("%s: %d of %d probes of what is normal, %d real steps", self.world, played, total, spent)
            self._spend("calibration", self.rig.steps - spent, paced=False)
            spent = self.rig.steps

        dataset = play_normal(self.rig, self.config.normal, self.path.parent / "datasets", epoch, told)
        assert dataset.dataset_id is not None
        return dataset.dataset_id

    def _golden_of(self, episodes: list[Episode]) -> GoldenReplay | None:
        if self.config.golden_every_s is None:
            return None
        before = self.rig.steps
        made = GoldenReplay.of(self.rig, episodes[:: max(1, len(episodes) // EPISODES)])
        self._spend(GOLDEN, self.rig.steps - before, paced=False)
        return made

    def _look(self) -> None:
        """Sees which version is served, and learns how wrong it usually is; a new one gets a burst of probes."""
        assert self.evidence is not None
        self.contract = get_world(self.address, self.world)
        version = self.contract.spec.version
        if self.evidence.served is not None and self.evidence.served.version == version:
            return
        path = self.path.parent / f"served-{version}-{self.evidence.normal.data_hash[:12]}.npz"
        if path.exists():
            served = ServedNormal.load(path, self.evidence.normal)
        else:
            with DreamPlayer(self.address, self.contract.spec.full_name, 4 * LANES) as player:
                served = ServedNormal.measured(player, self.evidence.normal)
            served.save(path)
        if self.evidence.served is not None or self.kept.served_version not in (None, version):
            self.pace.burst = BURST
            self._measure_soon()
        self.evidence.serve(served, self.kept)

    def _probe(self) -> None:
        """Plays one probe, measures the served world by it, counts both, and keeps that."""
        evidence = self.evidence
        assert evidence is not None
        if self.pace.wait_s(self.rig.config.horizon, self.now()) > 0:
            return
        number, before, began = self.kept.next_probe, self.rig.steps, self.now()
        self._check_budget(self.rig.config.horizon)
        try:
            [episode] = self.rig.play([self.rig.plan(number)])
        finally:
            self._spend("probe", self.rig.steps - before)
        served = self._served_statistics([episode])
        for kind in evidence.count(number, episode, served):
            self._alarm(kind)
        self.kept.next_probe = number + 1
        self.kept.count("probes", "probe")
        self.pace.burst = max(0, self.pace.burst - 1)
        self.kept.last_probe_at = self.last_heard_at = self.now()
        self._due["probe"] = began + self._probe_in_s(since_s=0.0)
        self._save()

    def _served_statistics(self, episodes: list[Episode]) -> ProbeStatistics | None:
        """None where the service does not answer: that reality was probed counts all the same."""
        evidence = self.evidence
        assert evidence is not None
        if evidence.served is None:
            return None
        world = f"{self.world}@{evidence.served.version}"
        try:
            with DreamPlayer(self.address, world, LANES) as player:
                return evidence.served.measure(player, episodes, evidence.normal)
        except SimserviceError as error:
            LOG.warning("%s: the served world could not be asked (%s)", self.world, error)
            self.kept.count("failures", "service")
            return None

    def _golden(self) -> None:
        evidence = self.evidence
        assert evidence is not None and evidence.golden is not None
        before = self.rig.steps
        self._check_budget(sum(map(len, evidence.golden.episodes)))
        try:
            deviation = evidence.golden.deviation(self.rig)
        finally:
            self._spend(GOLDEN, self.rig.steps - before)
        if evidence.golden_watch.note(deviation):
            self._alarm(GOLDEN)
        elif evidence.golden_watch.suspicious:
            self._due["golden"] = self.now() + self.config.pace.every_s
        self.kept.count("probes", GOLDEN)
        self.last_heard_at = self.now()
        self._save()

    def _reports(self) -> None:
        """Reads what users reported since, and holds it against what is normal."""
        evidence = self.evidence
        assert evidence is not None
        if evidence.corroboration is None or evidence.served is None or self.contract is None:
            return
        found, last = read_reports(self.address, self.contract, evidence.corroboration.after)
        if not found:
            return
        episodes = [one.episode for one in found]
        statistics = self._served_statistics(episodes)
        if statistics is None:
            return
        for place, one in enumerate(found):
            evidence.corroboration.add(one.reporter, evidence.statistics(one.episode), statistics[place : place + 1])
        evidence.corroboration.after = last
        self.kept.count("probes", "reported", len(found))
        self.kept.count("real_steps", "reported", sum(map(len, episodes)))
        self._due["reports"] = self.now()  # there may be more
        self._save()

    def _fidelity(self) -> None:
        """The front page: how far the world can be trusted."""
        rig, seed = self.rig.config, int(self.now()) % 2**31
        config = ProbeConfig(
            env_id=rig.env_id,
            env_kwargs=rig.env_kwargs,
            attributes=rig.attributes,
            **{"seed": seed, "lanes": LANES, **self.config.fidelity},
        )
        found = measure(
            self.address, self.world, config, rig.policy, self.config.fidelity_timeout_s, self._steps_left()
        )
        self.kept.fidelity, self.kept.fidelity_at = found.reading, found.finished_at
        self.kept.fidelity_steps = found.real_steps
        (self.path.parent / "fidelity.json").write_text(json.dumps(found.report, indent=1) + "\n", encoding="utf-8")
        self._spend("fidelity", found.real_steps, paced=False)
        self._save()

    # ---- alarms and what follows --------------------------------------------------------------------------------

    def _alarm(self, kind: str) -> None:
        assert self.evidence is not None
        self.kept.count("alarms", kind)
        verdict = self.evidence.verdict()
        LOG.warning("%s: %s has drifted; %s; %s", self.world, kind, verdict.cause.value, verdict.action)
        self._measure_soon()

    def _measure_soon(self) -> None:
        """The front page is out of date; a budget is kept all the same."""
        if self.config.pace.steps_per_hour is None:
            self._due["fidelity"] = 0.0

    def obey(self) -> bool:
        """Takes the alarm as known when somebody said so: what is normal is learned anew."""
        if self.evidence is None:
            return False
        epoch = self.evidence.reality.reading().epoch
        if not take_acknowledgement(self.folder, self.world, epoch):
            drop_acknowledgement(self.folder, self.world)
            return False
        LOG.info("%s: the change is acknowledged", self.world)
        self.evidence.acknowledge()
        self.kept.dataset = None
        self._save()
        drop_acknowledgement(self.folder, self.world)
        self.evidence = None
        self._due = {task: due for task, due in self._due.items() if task == "fidelity"}
        self._measure_soon()
        return True

    # ---- what is kept -------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Ends what is under way, from another thread; the watch is then of no further use."""
        self.interrupted = True
        self.rig.kill()

    def close(self) -> None:
        """Ends the environment's process."""
        self.rig.close()

    def _save(self) -> None:
        if self.evidence is not None:
            self.evidence.keep(self.kept)
        self.kept.level, self.kept.level_at, self.kept.burst = self.pace.level, self.pace.at, self.pace.burst
        self.kept.save(self.path)

    def _spend(self, source: str, steps: int, paced: bool = True) -> None:
        if steps:
            self.kept.count("real_steps", source, steps)
            if paced:
                self.pace.spend(steps, self.now())

    def _steps_left(self) -> int | None:
        if self.config.max_real_steps is None:
            return None
        own = sum(count for source, count in self.kept.real_steps.items() if source != "reported")
        return self.config.max_real_steps - own

    def _check_budget(self, steps: int) -> None:
        left = self._steps_left()
        if left is not None and left < steps:
            assert self.config.max_real_steps is not None
            raise RealStepBudgetExceeded(steps, self.config.max_real_steps - left, self.config.max_real_steps)


def _digest(rig: RigConfig) -> str:
    """Of all that we decide of a probe: evidence of another kind of probe says nothing of this one's.

    The environment is left out: whatever makes it another is a change of reality, and to be found.
    """
    acting = "" if rig.policy is None else hashlib.sha256(Path(rig.policy).read_bytes()).hexdigest()
    said = [acting, rig.horizon, rig.seed]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
