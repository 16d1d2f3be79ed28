"""A proof from beginning to end: record, train, serve, train an agent inside, score it in reality, compare."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simservice.data.collect import RealStepCounter
from simservice.data.episodes import Dataset
from simservice.data.minari import save_dataset
from simservice.errors import ConfigError
from simservice.fidelity.exploitation import exploitation_gap, is_exploited
from simservice.proving import controls
from simservice.proving.agent import AgentConfig
from simservice.proving.processes import Errand, served, train_agents
from simservice.proving.recipe import Check, Figures, Recipe, Trial
from simservice.proving.record import record
from simservice.proving.rows.examine import examine
from simservice.proving.scoring import score
from simservice.training.trainer import TrainConfig, train
from simservice.worlds.checkpoint import load

Say = Callable[[str], None]

SAY_EVERY_S = 10.0
NEAR_RANDOM = 20_000  # steps of random play are enough to know its mean return


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """How a recipe is proven."""

    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path = Path("runs/prove")
    with_controls: bool = True
    with_rows: bool = True  # also hold the first seed's world against what every family must pass
    control_agents: int = 3  # in each control; their median counts, for one agent may be lucky
    score_episodes: int = 100

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError("seeds must be one or more different numbers of 0 or more", key="seeds")
        if self.control_agents < 1 or self.score_episodes < 1:
            raise ConfigError("control_agents and score_episodes must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One world, its agent and its figures."""

    seed: int
    dataset_hash: str
    real_steps: int  # every one the world cost
    real_resets: int
    version: str
    folder: Path
    through_client: bool
    figures: Figures


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """What agents trained in a control get in reality."""

    name: str
    words: str
    world_return: float
    real_return: float
    bar: str  # empty: reported, not judged
    met: bool


@dataclass(frozen=True, kw_only=True)
class Proof:
    """All that a recipe showed."""

    recipe: Recipe
    seeds: Sequence[SeedResult]
    controls: Sequence[ControlResult]
    rows: Sequence[Check]  # that every family must pass, of the first seed's world
    chance: float  # random play's return
    judging_steps: int  # real steps of scores and fresh test data, from which nothing was learned
    seconds: float
    checks: Sequence[Check] = field(default=())

    @property
    def met(self) -> bool:
        """Whether every bar is reached and every control behaves."""
        return all(check.met for check in self.checks)


def prove(recipe: Recipe, config: ProofConfig | None = None, say: Say = lambda words: None) -> Proof:
    """Runs a recipe and returns what it showed; files lie in config.out/NAME."""
    config = config or ProofConfig()
    torch.set_num_threads(1)
    began, folder = time.monotonic(), (config.out / recipe.name).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    judge = RealStepCounter()
    results: list[SeedResult] = []
    first: Dataset | None = None
    chance = _chance(recipe, judge) if recipe.agent is not None else float("nan")
    for seed in config.seeds:
        result, dataset = _one_seed(
            recipe, config, seed, folder / f"seed{seed}", chance, judge, say, through=first is None
        )
        results.append(result)
        first = first or dataset
    assert first is not None
    held: list[ControlResult] = []
    if recipe.agent is not None and config.with_controls:
        held = _controls(recipe, config, first, folder / "controls", chance, judge, say)
    rows: list[Check] = []
    if config.with_rows:
        say(f"{recipe.name}: rows that every family must pass")
        rows = examine(results[0].folder, (), recipe.behaviour)
    proof = Proof(
        recipe=recipe,
        seeds=results,
        controls=held,
        rows=rows,
        chance=chance,
        judging_steps=judge.steps,
        seconds=time.monotonic() - began,
    )
    return replace(proof, checks=_checks(proof))


def record_dataset(recipe: Recipe, seed: int, root: Path) -> tuple[Dataset, RealStepCounter]:
    """The recipe's real data on disk, read back; the counter refuses a step beyond the budget."""
    counter = RealStepCounter(budget=recipe.real_steps)
    episodes = record(recipe.env_id, recipe.real_steps, seed, recipe.behaviour, counter, recipe.env_kwargs)
    dataset = save_dataset(
        episodes,
        f"prove/{recipe.name}-v0",
        env_id=recipe.env_id,
        env_kwargs=recipe.env_kwargs,
        root=root,
        real_steps=counter.steps,
        metadata={"seed": seed, "policy": recipe.behaviour},
    )
    return dataset, counter


def _one_seed(
    recipe: Recipe,
    config: ProofConfig,
    seed: int,
    folder: Path,
    chance: float,
    judge: RealStepCounter,
    say: Say,
    *,
    through: bool,
) -> tuple[SeedResult, Dataset]:
    began, worked = time.monotonic(), processor_s()
    folder = _fresh(folder)
    say(f"{recipe.name}, seed {seed}: {recipe.real_steps} real steps")
    dataset, counter = record_dataset(recipe, seed, folder / "data")
    recorded = processor_s()
    out = folder / recipe.name
    summary = train(
        dataset,
        recipe.family,
        out,
        config=TrainConfig(seed=seed, overrides=recipe.overrides, patience=recipe.patience),
        progress=_now_and_then(f"{recipe.name}, seed {seed}", say),
    )
    figures: Figures = {"train_s": processor_s() - recorded}  # what others on the machine do is left out
    if recipe.agent is not None:
        say(f"{recipe.name}, seed {seed}: an agent learns {'through the client' if through else 'in the same lanes'}")
        inside = Inside(recipe, recipe.agent, dataset, chance, config.score_episodes, judge)
        errand = Errand(out, seed, folder / "agent")
        figures |= inside.learn_and_score(errand, through=through)
        # The whole way of one world, on one thread and by the clock; what follows only measures.
        figures |= {"minutes": (processor_s() - worked) / 60, "clock_minutes": (time.monotonic() - began) / 60}
        if recipe.thresholded:
            say(f"{recipe.name}, seed {seed}: an agent learns where ends are decided, not drawn")
            errand = replace(errand, out=folder / "agent-thresholded", thresholded=True)
            found = inside.learn_and_score(errand, through=False)
            figures |= {f"thresholded_{name}": found[name] for name in ("world_return", "real_return", "exploited")}
    say(f"{recipe.name}, seed {seed}: measuring")
    trial = Trial(recipe=recipe, seed=seed, world=load(out).world, dataset=dataset, folder=folder)
    figures |= recipe.measure(trial)
    # At once: a proof that is ended while its controls learn leaves what it found.
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    result = SeedResult(
        seed=seed,
        dataset_hash=dataset.hash,
        real_steps=counter.steps,
        real_resets=counter.resets,
        version=summary.version,
        folder=out,
        through_client=through and recipe.agent is not None,
        figures=figures,
    )
    return result, dataset


@dataclass(frozen=True)
class Inside:
    """Agents that learn inside a world, and what they get in reality."""

    recipe: Recipe
    agent: AgentConfig
    dataset: Dataset
    chance: float  # random play's return
    episodes: int
    judge: RealStepCounter

    def learn_and_score(self, errand: Errand, *, through: bool) -> Figures:
        """The figures of one agent: its returns in the world and in reality, their gap, and the alarm."""
        scratch, env_id = errand.out.parent, self.recipe.env_id
        if through:
            with served(errand.folder, env_id, scratch) as address:
                (found,) = train_agents([replace(errand, address=address)], self.agent, env_id)
        else:
            (found,) = train_agents([errand], self.agent, env_id)
        real = self.score(errand)
        gap = exploitation_gap(np.array(found["world_returns"]), np.array(real), self.recipe.best_return - self.chance)
        mean = float(np.mean(real))
        return {
            "world_return": found["world_return"],
            "real_return": mean,
            "worst_episode": min(real),
            "gap": abs(found["world_return"] - mean) / max(abs(mean), 1e-9),
            "exploited": float(is_exploited(gap)),  # the alarm: 1 where the agent wins in the dream only
            "imagined_steps": float(found["steps"]),
            "agent_s": found["seconds"],
        }

    def score(self, errand: Errand) -> list[float]:
        """Returns of the trained agent in reality."""
        seen, weights = {episode.seed for episode in self.dataset.episodes}, Path(f"{errand.out}.safetensors")
        recipe = self.recipe
        return score(recipe.env_id, recipe.env_kwargs, weights, errand.seed, self.judge, seen, self.episodes)


def _chance(recipe: Recipe, judge: RealStepCounter) -> float:
    """Random play's mean return over finished episodes."""
    episodes = max(100, NEAR_RANDOM // 200)
    return float(np.mean(score(recipe.env_id, recipe.env_kwargs, None, 0, judge, (), episodes)))


def _controls(
    recipe: Recipe, config: ProofConfig, dataset: Dataset, folder: Path, chance: float, judge: RealStepCounter, say: Say
) -> list[ControlResult]:
    assert recipe.agent is not None
    folder, results = _fresh(folder), list[ControlResult]()
    scored = Inside(recipe, recipe.agent, dataset, chance, config.score_episodes, judge)
    say(f"{recipe.name}: worlds of the controls")
    built = controls.build(recipe, dataset, config.seeds[0], folder)
    say(f"{recipe.name}: agents learn in the controls")
    errands = [
        Errand(control.folder, seed, folder / f"{control.name.lower()}-agent{seed}")
        for control in built
        for seed in range(config.control_agents)
    ]
    truth = built[-1].folder  # the oracle is the real environment: it alone is not sealed
    inside = train_agents([errand for errand in errands if errand.folder != truth], recipe.agent, recipe.env_id)
    inside += train_agents(
        [errand for errand in errands if errand.folder == truth], recipe.agent, recipe.env_id, sealed=False
    )
    for place, control in enumerate(built):
        own = slice(place * config.control_agents, (place + 1) * config.control_agents)
        real = [float(np.mean(scored.score(errand))) for errand in errands[own]]
        value, bar, met = float(np.median(real)), "", True
        if control.judged == "near random":
            most = controls.ceiling(recipe, chance)
            bar, met = f"<= {most:.3g}", value <= most
        elif control.judged == "target":
            bar, met = f">= {recipe.oracle_return:g}", value >= recipe.oracle_return
        results.append(
            ControlResult(
                name=control.name,
                words=control.words,
                world_return=float(np.median([found["world_return"] for found in inside[own]])),
                real_return=value,
                bar=bar,
                met=met,
            )
        )
    return results


def _checks(proof: Proof) -> list[Check]:
    found = [result.figures for result in proof.seeds]
    row = proof.recipe.row
    checks = [
        Check(row=row, what=f"{bar.figure} ({bar.across})", bar=bar.words, seen=bar.seen(found), met=bar.met(found))
        for bar in proof.recipe.bars
    ]
    return checks + [
        Check(row=control.name, what=f"real_return, {control.words}", bar=control.bar or "reported",
              seen=control.real_return, met=control.met)
        for control in proof.controls
    ] + list(proof.rows)  # fmt: skip


def _now_and_then(title: str, say: Say) -> Callable[[str, float], None]:
    """Progress of a training, told at most every SAY_EVERY_S."""
    last = -SAY_EVERY_S

    def tell(words: str, share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_EVERY_S:
            last = time.monotonic()
            say(f"{title}: {words}")

    return tell


def processor_s() -> float:
    """Seconds of processor time of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _fresh(folder: Path) -> Path:
    """The folder, empty. Only what a proof wrote lies in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def as_json(proof: Proof) -> dict[str, Any]:
    """The proof as JSON values."""
    recipe = proof.recipe
    return {
        "name": recipe.name,
        "row": recipe.row,
        "met": proof.met,
        "family": recipe.family,
        "env_id": recipe.env_id,
        "real_steps": recipe.real_steps,
        "random_return": proof.chance,
        "judging_steps": proof.judging_steps,
        "seconds": round(proof.seconds, 1),
        "checks": [vars(check) for check in proof.checks],
        "seeds": [{**vars(result), "folder": result.folder.name} for result in proof.seeds],
        "controls": [vars(control) for control in proof.controls],
    }
