"""The demo from beginning to end: starts the parts, plays the rounds, measures, writes the report, leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from simservice.data.collect import RealStepCounter
from simservice.demo.agent_process import AgentProcess
from simservice.demo.baseline import SAME, SMALL_BATCHES, Baseline, play_baseline
from simservice.demo.dyna import Dyna, Plan, Round
from simservice.demo.findings import Findings, details_of, summary_of
from simservice.demo.report import render
from simservice.demo.rounds import Rules
from simservice.demo.scoring import Score, score
from simservice.demo.stages import Stages
from simservice.demo.table import show_table
from simservice.demo.traces import record_traces
from simservice.errors import ConfigError
from simservice.monitor.probe import probe
from simservice.monitor.reality import ProbeConfig
from simservice.monitor.report import ProbeReport
from simservice.serving.service import RayService

PROBE_HORIZON = 100


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the user may choose."""

    seed: int = 0
    out: Path = Path("runs/demo")
    budget: int = Rules.budget  # real steps
    episodes: int = 100  # of the final score
    changed: Mapping[str, float] = field(default_factory=lambda: {"gravity": 12.0})

    def __post_init__(self) -> None:
        least = Rules.first_steps + Rules.round_steps
        if self.budget < least:
            raise ConfigError(
                f"a budget of {self.budget} real steps is too small; the demo needs {least}", key="budget"
            )
        if self.out.exists() and not (self.out.is_dir() and _is_ours(self.out)):
            raise ConfigError(f"{self.out} exists and is no demo's folder; name another with --out", key="out")


def run_demo(config: DemoConfig, console: Console | None = None) -> dict[str, Any]:
    """Runs everything and returns the summary; config.out is replaced as a whole at the very end.

    Interrupted (Ctrl-C, SIGTERM), it ends every process it started, removes what it wrote, and lets
    KeyboardInterrupt out; an earlier run's folder stays as it was.
    """
    stages = Stages(console or Console())
    with ExitStack() as stack:
        stack.enter_context(_terminated_like_interrupted())
        folder = stack.enter_context(_new_folder(config.out))
        scratch = stack.enter_context(_scratch())
        agent = stack.enter_context(AgentProcess(scratch, folder / "agent.log"))
        service = stack.enter_context(_starting(agent))
        try:
            findings = _play(config, stages, folder, agent, service)
        except KeyboardInterrupt:
            stages.console.print("interrupted: ending every process of this run, and removing what it wrote")
            raise
        summary, details = summary_of(findings), details_of(findings)
        _write(folder, "summary.json", json.dumps(summary, indent=2) + "\n")
        _write(folder, "details.json", json.dumps(details) + "\n")
        _write(folder, "report.html", render(summary, details))
        _settle(findings.kept, folder)
    show_table(stages.console, summary, config.out)
    return summary


def _play(
    config: DemoConfig, stages: Stages, folder: Path, agent: AgentProcess, service: Future[RayService]
) -> Findings:
    plan = Plan(seed=config.seed, rules=Rules(budget=config.budget))
    counter = RealStepCounter(budget=config.budget)
    dyna = Dyna(plan=plan, folder=folder, stages=stages, agent=agent, service=service, counter=counter)
    kept = dyna.run()
    assert dyna.dataset is not None
    same, small_batches = _baselines(config, plan, stages, agent, folder, counter.steps)
    scores = _score_rounds(config, plan, stages, dyna.rounds, kept)
    before, after = _probes(config, plan, stages, service.result(), kept, dyna.rounds[-1])
    with stages.stage("one start, one row of actions: reality, dream, changed reality", "probing fidelity"):
        traces = record_traces(
            service.result().address, kept.world, kept.policy, plan.env_id, config.changed, plan.seed
        )
    return Findings(
        plan=plan,
        changed=dict(config.changed),
        rounds=dyna.rounds,
        kept=kept,
        scores=scores,
        baseline=same,
        small_batches=small_batches,
        before=before,
        after=after,
        traces=traces,
        real_steps=counter.steps,
        dataset=dyna.dataset,
        seconds=dict(stages.seconds),
        elapsed_s=stages.elapsed_s,
    )


def _baselines(
    config: DemoConfig, plan: Plan, stages: Stages, agent: AgentProcess, folder: Path, steps: int
) -> tuple[Baseline, Baseline]:
    """The same PPO without a dream: as it is, and retuned for few steps."""
    found = []
    for name, title, settings in (
        ("baseline", "the same PPO in reality, without a dream", SAME),
        ("baseline-small-batches", "PPO in reality, retuned for few steps", SMALL_BATCHES),
    ):
        with stages.stage(title, "baselines") as line:
            played = play_baseline(
                agent,
                folder / "policies" / f"{name}.npz",
                settings,
                env_id=plan.env_id,
                steps=steps,
                episodes=config.episodes,
                seed=plan.seed,
                progress=line.show,
            )
            line.result = f"mean return {played.score.mean:.1f} after {played.real_steps:,} real steps"
        found.append(played)
    return found[0], found[1]


def _score_rounds(config: DemoConfig, plan: Plan, stages: Stages, rounds: list[Round], kept: Round) -> list[Score]:
    """The kept policy's score, and the others' for the picture; nothing is chosen by them."""
    scores = []
    with stages.stage(f"{config.episodes} real episodes with the trained policy", "scoring in reality") as line:
        for played in rounds:
            line.show(f"scoring round {played.number}'s policy")
            scores.append(score(played.policy, plan.env_id, config.episodes, plan.seed))
        final = scores[kept.number - 1]
        line.result = f"mean return {final.mean:.1f}, worst {min(final.returns):.0f}"
    return scores


def _probes(
    config: DemoConfig, plan: Plan, stages: Stages, service: RayService, kept: Round, newest: Round
) -> tuple[ProbeReport, ProbeReport]:
    """The kept world against reality as it was, and as it is after the change."""
    if kept.world != newest.world:
        service.deploy(kept.folder)
    reports = []
    words = ", ".join(f"{name} {value:g}" for name, value in config.changed.items())
    for title, attributes in (("reality as it was", {}), (f"changed reality, {words}", dict(config.changed))):
        with stages.stage(f"probing the served world against {title}", "probing fidelity") as line:
            probing = ProbeConfig(
                env_id=plan.env_id, attributes=attributes, horizon=PROBE_HORIZON, seed=plan.seed, episodes=8
            )
            found = probe(service.address, kept.world, probing, policy=kept.policy.greedy(), tell=line.show)
            line.result = f"trust horizon {found.trust_horizon} steps"
        reports.append(found)
    return reports[0], reports[1]


@contextmanager
def _starting(agent: AgentProcess) -> Iterator[Future[RayService]]:
    """Ray Serve, and then the agent, come up while the first world is trained; one by one, since both want a core."""
    service = RayService()

    def start() -> RayService:
        service.start()
        agent.start()
        return service

    with ThreadPoolExecutor(1, "starting") as pool:
        try:
            yield pool.submit(start)
        finally:
            pool.shutdown(wait=True)
            service.stop()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all went well, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name in ("policies", "worlds"):
            (folder / name).mkdir()
        yield folder
        folder.chmod(0o755)
        old = folder.with_name(folder.name + "-old")
        if out.exists():
            os.rename(out, old)
        os.rename(folder, out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _scratch() -> Iterator[Path]:
    """For the agent's Ray: under /tmp, since the sockets in it may have no long path."""
    folder = Path(tempfile.mkdtemp(prefix="sim-demo-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does; a second signal does not disturb the tidying up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {which: signal.signal(which, interrupt) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _settle(kept: Round, folder: Path) -> None:
    """The kept world and policy get names that later commands can rely on."""
    shutil.copytree(kept.folder, folder / "world")
    shutil.copyfile(folder / "policies" / f"round-{kept.number}.npz", folder / "policy.npz")


def _write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def _is_ours(out: Path) -> bool:
    return not any(out.iterdir()) or (out / "summary.json").is_file()
