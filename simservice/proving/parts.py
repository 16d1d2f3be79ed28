"""The parts of a proof, each made by itself and kept on disk: random play, one world and its agent, controls, rows.

So parts can be made side by side, an ended proof goes on where it stood, and what is the same is not done twice.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from simservice.data.collect import RealStepCounter
from simservice.data.episodes import Dataset
from simservice.data.minari import load_dataset, save_dataset
from simservice.errors import SimserviceError
from simservice.proving import controls, kept
from simservice.proving.inside import Inside
from simservice.proving.processes import Errand, train_agents
from simservice.proving.proof import ControlResult, ProofConfig, SeedResult
from simservice.proving.recipe import Check, Figures, Recipe, Trial
from simservice.proving.record import record
from simservice.proving.rows.examine import examine
from simservice.proving.scoring import score
from simservice.training.trainer import TrainConfig, train
from simservice.worlds import checkpoint

Say = Callable[[str], None]
Kind = Literal["chance", "seed", "controls", "rows"]

CHANCE_EPISODES = 100
EXPECTED_S: dict[Kind, float] = {"chance": 5, "seed": 600, "controls": 1200, "rows": 200}
"""Of a part that was never made, to begin with."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of one recipe's proof."""

    recipe: Recipe
    kind: Kind
    seed: int  # of the world; of controls and rows the first one's
    config: ProofConfig
    through: bool = False  # the agent learns through the client
    chance: float = float("nan")  # random play's return

    @property
    def folder(self) -> Path:
        """Where all of the proof lies."""
        return (self.config.out / self.recipe.name).absolute()

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return self.folder / (f"seed{self.seed}.json" if self.kind == "seed" else f"{self.kind}.json")

    @property
    def place(self) -> Path:
        """The folder of the seed's data, world and agent."""
        return self.folder / f"seed{self.seed}"

    @property
    def world(self) -> Path:
        """The seed's world."""
        return self.place / self.recipe.name

    @property
    def words(self) -> str:
        """tokens-catch, seed 1."""
        return f"{self.recipe.name}, seed {self.seed}" if self.kind == "seed" else f"{self.recipe.name}, {self.kind}"

    @property
    def expected_s(self) -> float:
        """How long it will take, as far as is known."""
        return kept.seconds_of(self.file) or EXPECTED_S[self.kind]

    def key(self) -> str:
        """Of all that decides the result. Controls and rows stand on the first seed's data and world."""
        recipe, config = self.recipe, self.config
        besides: list[Any] = [self.kind, self.seed, config.score_episodes, self.chance]
        if self.kind == "seed":
            besides.append(self.through)
        elif self.kind != "chance":
            spec, provenance = checkpoint.describe(self.world)
            besides += [provenance.dataset_hash, spec.version, config.control_agents]
        return kept.key_of(recipe, *besides)

    def made(self) -> dict[str, Any] | None:
        """Its result, if an earlier one holds; None: it is to be made."""
        if self.config.again:
            return None
        try:
            found = kept.read(self.file, self.key())
            return found if found is None or self.kind != "seed" or self._whole(found) else None
        except SimserviceError:  # the world or the data it stands on is gone or damaged
            return None

    def _whole(self, found: dict[str, Any]) -> bool:
        """Whether data and world on disk are those of the result."""
        version = checkpoint.describe(self.world)[0].version
        return bool(version == found["version"] and self.data().hash == found["dataset_hash"])

    def data(self) -> Dataset:
        """What the seed's world learned from."""
        return load_dataset(f"prove/{self.recipe.name}-v0", self.place / "data")


def make(part: Part, say: Say) -> dict[str, Any]:
    """Does the part's work and keeps its result, which is returned."""
    torch.set_num_threads(1)
    began, judge = time.monotonic(), RealStepCounter()
    work = {"chance": _chance, "seed": _one_seed, "controls": _controls, "rows": _rows}[part.kind]
    found = work(part, judge, say)
    seconds = round(time.monotonic() - began, 1)
    return kept.write(part.file, part.key(), seconds=seconds, judging_steps=judge.steps, **found)


def seed_result(part: Part, found: dict[str, Any]) -> SeedResult:
    """A seed's result as it was kept."""
    names = ("dataset_hash", "real_steps", "real_resets", "version", "figures")
    return SeedResult(
        seed=part.seed,
        folder=part.world,
        through_client=part.through and part.recipe.agent is not None,
        **{name: found[name] for name in names},
    )


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


def _chance(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """Random play's mean return over finished episodes."""
    recipe = part.recipe
    returns = score(recipe.env_id, recipe.env_kwargs, None, 0, judge, (), CHANCE_EPISODES)
    return {"chance": float(np.mean(returns))}


def _one_seed(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """Records, trains, serves, lets an agent learn, scores it, measures the world."""
    recipe, began, worked = part.recipe, time.monotonic(), processor_s()
    dataset, counts, figures = _world(part, say)
    if recipe.agent is not None:
        say(f"an agent learns {'through the client' if part.through else 'in the same lanes'}")
        inside = _inside(part, dataset, judge)
        errand = Errand(part.world, part.seed, part.place / "agent")
        figures |= inside.learn_and_score(errand, through=part.through)
        # The whole way of one world, on one thread and by the clock; what follows only measures.
        earlier = counts.pop("earlier_s")
        figures["minutes"] = (processor_s() - worked + earlier) / 60
        figures["clock_minutes"] = (time.monotonic() - began + earlier) / 60
        if recipe.thresholded:
            say("an agent learns where ends are decided, not drawn")
            errand = replace(errand, out=part.place / "agent-thresholded", thresholded=True)
            found = inside.learn_and_score(errand, through=False)
            figures |= {f"thresholded_{name}": found[name] for name in ("world_return", "real_return", "exploited")}
    say("measuring")
    world = checkpoint.load(part.world).world
    figures |= recipe.measure(Trial(recipe=recipe, seed=part.seed, world=world, dataset=dataset, folder=part.place))
    return {
        "dataset_hash": dataset.hash,
        "real_steps": counts["steps"],
        "real_resets": counts["resets"],
        "version": world.spec.version,
        "figures": {name: float(value) for name, value in figures.items()},
    }


def _world(part: Part, say: Say) -> tuple[Dataset, dict[str, Any], Figures]:
    """Data and world of a seed; a training that was ended goes on, one that came to its end is not made again."""
    recipe, key, file = part.recipe, part.key(), part.place / "training.json"
    begun = None if part.config.again else kept.read(file, key)
    try:
        dataset = part.data() if begun is not None and part.data().hash == begun["dataset_hash"] else None
    except SimserviceError:
        dataset = None
    if begun is None or dataset is None:
        shutil.rmtree(part.place, ignore_errors=True)  # only what a proof wrote lies in it
        say(f"{recipe.real_steps:,} real steps")
        dataset, counter = record_dataset(recipe, part.seed, part.place / "data")
        begun = kept.write(
            file, key, dataset_hash=dataset.hash, steps=counter.steps, resets=counter.resets, train_s=None
        )
    counts = {"steps": begun["steps"], "resets": begun["resets"], "earlier_s": 0.0}
    if begun["train_s"] is not None and _is_world(part.world):
        return dataset, {**counts, "earlier_s": begun["train_s"]}, {"train_s": begun["train_s"]}
    shutil.rmtree(part.world, ignore_errors=True)  # a damaged one; what was saved of a training lies beside it
    recorded, began = processor_s(), time.monotonic()
    summary = train(
        dataset,
        recipe.family,
        part.world,
        config=TrainConfig(seed=part.seed, overrides=recipe.overrides, patience=recipe.patience, resume=True),
        progress=lambda words, share: say(words),
    )
    # Processor time leaves out what others on the machine do; of runs that were ended only the clock's is known.
    spent, earlier = processor_s() - recorded, max(0.0, summary.seconds - (time.monotonic() - began))
    kept.write(file, key, **{**{k: v for k, v in begun.items() if k != "key"}, "train_s": spent + earlier})
    return dataset, {**counts, "earlier_s": earlier}, {"train_s": spent + earlier}


def _is_world(folder: Path) -> bool:
    try:
        checkpoint.load(folder)
    except SimserviceError:
        return False
    return True


def _inside(part: Part, dataset: Dataset, judge: RealStepCounter) -> Inside:
    assert part.recipe.agent is not None
    recorded = {episode.seed for episode in dataset.episodes}
    return Inside(part.recipe, part.recipe.agent, recorded, part.chance, part.config.score_episodes, judge)


def _controls(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """Worlds that must not work and one that must, agents in each, and what these get in reality."""
    recipe, dataset, folder = part.recipe, part.data(), part.folder / "controls"
    assert recipe.agent is not None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say("worlds of the controls")
    built = controls.build(recipe, dataset, part.seed, folder)
    say("agents learn in the controls")
    errands = [
        Errand(control.folder, seed, folder / f"{control.name.lower()}-agent{seed}")
        for control in built
        for seed in range(part.config.control_agents)
    ]
    truth = built[-1].folder  # the oracle is the real environment: it alone is not sealed
    shown = train_agents([errand for errand in errands if errand.folder != truth], recipe.agent, recipe.env_id)
    shown += train_agents(
        [errand for errand in errands if errand.folder == truth], recipe.agent, recipe.env_id, sealed=False
    )
    inside, found = _inside(part, dataset, judge), []
    for place, control in enumerate(built):
        own = slice(place * part.config.control_agents, (place + 1) * part.config.control_agents)
        real = [float(np.mean(inside.score(errand))) for errand in errands[own]]
        found.append(
            ControlResult(
                name=control.name,
                words=control.words,
                judged=control.judged,
                most=controls.ceiling(recipe, part.chance),
                world_return=float(np.median([agent["world_return"] for agent in shown[own]])),
                real_return=float(np.median(real)),
            )
        )
    return {"controls": [vars(control) for control in found]}


def _rows(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """What every family must pass, of the first seed's world."""
    checks: list[Check] = examine(part.world, (), part.recipe.behaviour, counter=judge, say=say)
    return {"checks": [vars(check) for check in checks]}


def processor_s() -> float:
    """Seconds of processor time of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
