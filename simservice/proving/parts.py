"""The parts of a proof, each made by itself and kept on disk: random play, data, a world and its agent, controls, rows.

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
from simservice.training.trainer import train
from simservice.worlds import checkpoint

Say = Callable[[str], None]
Kind = Literal["chance", "data", "seed", "control", "rows"]

CHANCE_EPISODES = 100
EXPECTED_S: dict[Kind, float] = {"chance": 5, "data": 5, "seed": 600, "control": 300, "rows": 200}
"""Of a part that was never made, to begin with."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of one recipe's proof."""

    recipe: Recipe
    kind: Kind
    seed: int  # of the world; of controls and rows the first one's
    config: ProofConfig
    control: str = ""  # C1 ...
    through: bool = False  # the agent learns through the client
    chance: float = float("nan")  # random play's return

    @property
    def folder(self) -> Path:
        """Where all of the proof lies."""
        return (self.config.out / self.recipe.name).absolute()

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        names = {"data": f"data{self.seed}", "seed": f"seed{self.seed}", "control": f"control-{self.control.lower()}"}
        return self.folder / f"{names.get(self.kind, self.kind)}.json"

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
        names = {"data": f"data of seed {self.seed}", "seed": f"seed {self.seed}", "control": f"control {self.control}"}
        return f"{self.recipe.name}, {names.get(self.kind, self.kind)}"

    @property
    def expected_s(self) -> float:
        """How long it will take, as far as is known."""
        return kept.seconds_of(self.file) or EXPECTED_S[self.kind]

    def key(self) -> str:
        """Of all that decides the result. Controls stand on the first seed's data, rows on its world."""
        config, besides = self.config, list[Any]([self.kind, self.seed])
        if self.kind in ("seed", "control"):
            besides += [config.device, config.score_episodes, self.chance, self.data().hash]
            besides += [self.through] if self.kind == "seed" else [self.control, config.control_agents]
        elif self.kind == "rows":
            besides.append(checkpoint.describe(self.world)[0].version)
        return kept.key_of(self.recipe, *besides)

    def made(self) -> dict[str, Any] | None:
        """Its result, if an earlier one holds; None: it is to be made."""
        if self.config.again:
            return None
        try:
            found = kept.read(self.file, self.key())
            return found if found is not None and self._whole(found) else None
        except SimserviceError:  # the world or the data it stands on is gone or damaged
            return None

    def _whole(self, found: dict[str, Any]) -> bool:
        """Whether data or world on disk are those of the result."""
        if self.kind == "data":
            return bool(self.data().hash == found["dataset_hash"])
        return self.kind != "seed" or bool(checkpoint.describe(self.world)[0].version == found["version"])

    def data(self) -> Dataset:
        """What the seed's world learned from."""
        return load_dataset(f"prove/{self.recipe.name}-v0", self.place / "data")


def make(part: Part, say: Say) -> dict[str, Any]:
    """Does the part's work and keeps its result, which is returned."""
    torch.set_num_threads(1)
    began, judge = time.monotonic(), RealStepCounter()
    work = {"chance": _chance, "data": _data, "seed": _one_seed, "control": _control, "rows": _rows}[part.kind]
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


def _data(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """Records what the seed's world may learn from."""
    began, worked = time.monotonic(), processor_s()
    shutil.rmtree(part.place, ignore_errors=True)  # only what a proof wrote lies in it
    say(f"{part.recipe.real_steps:,} real steps")
    dataset, counter = record_dataset(part.recipe, part.seed, part.place / "data")
    spent = {"processor_s": processor_s() - worked, "clock_s": time.monotonic() - began}
    return {"dataset_hash": dataset.hash, "real_steps": counter.steps, "real_resets": counter.resets, **spent}


def _one_seed(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """Trains on what was recorded, serves, lets an agent learn, scores it, measures the world."""
    recipe, began, worked = part.recipe, time.monotonic(), processor_s()
    dataset, recorded = part.data(), kept.found(replace(part, kind="data").file)
    figures, earlier = _world(part, dataset, say)
    if recipe.agent is not None:
        say(f"an agent learns {'through the client' if part.through else 'in the same lanes'}")
        inside = _inside(part, dataset, judge)
        errand = Errand(part.world, part.seed, part.place / "agent")
        figures |= inside.learn_and_score(errand, through=part.through)
        # The whole way of one world, on one thread and by the clock; what follows only measures.
        figures["minutes"] = (processor_s() - worked + earlier + recorded["processor_s"]) / 60
        figures["clock_minutes"] = (time.monotonic() - began + earlier + recorded["clock_s"]) / 60
        if recipe.thresholded:
            say("an agent learns where ends are decided, not drawn")
            errand = replace(errand, out=part.place / "agent-thresholded", thresholded=True)
            found = inside.learn_and_score(errand, through=False)
            figures |= {f"thresholded_{name}": found[name] for name in ("world_return", "real_return", "exploited")}
    say("measuring")
    world = checkpoint.load(part.world).world
    trial = Trial(
        recipe=recipe, seed=part.seed, world=world, dataset=dataset, folder=part.place, device=part.config.device
    )
    figures |= recipe.measure(trial)
    return {
        **{name: recorded[name] for name in ("dataset_hash", "real_steps", "real_resets")},
        "version": world.spec.version,
        "figures": {name: float(value) for name, value in figures.items()},
    }


def _world(part: Part, dataset: Dataset, say: Say) -> tuple[Figures, float]:
    """The seed's world, and seconds of earlier runs; an ended training goes on, a finished one is not made again."""
    recipe, key, file = part.recipe, part.key(), part.place / "training.json"
    begun = None if part.config.again else kept.read(file, key)
    if begun is not None and begun["train_s"] is not None and _is_world(part.world):
        return {"train_s": begun["train_s"]}, begun["train_s"]
    # Another one, or damaged; what was saved of a training lies beside it.
    shutil.rmtree(part.world, ignore_errors=True)
    kept.write(file, key, train_s=None)
    trained, began = processor_s(), time.monotonic()
    summary = train(
        dataset,
        recipe.family,
        part.world,
        config=recipe.training(part.seed, part.config.device, resume=begun is not None),
        progress=lambda words, share: say(words),
    )
    # Processor time leaves out what others on the machine do; of runs that were ended only the clock's is known.
    spent, earlier = processor_s() - trained, max(0.0, summary.seconds - (time.monotonic() - began))
    kept.write(file, key, train_s=spent + earlier)
    return {"train_s": spent + earlier}, earlier


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


def _control(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """One world that must not work, or the one that must, agents in it, and what these get in reality."""
    recipe, dataset, config = part.recipe, part.data(), part.config
    assert recipe.agent is not None
    folder = part.folder / "controls" / part.control.lower()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    control = controls.find(part.control)
    say(f"the world of {part.control}, {control.words}")
    training, agents = recipe.training(part.seed, config.device), range(config.control_agents)
    worlds = [
        control.build(recipe, dataset, training, folder / f"world{number}", number)
        for number in (agents if control.drawn else [0])
    ]
    say(f"agents learn in {part.control}")
    errands = [Errand(worlds[seed % len(worlds)], seed, folder / f"agent{seed}") for seed in agents]
    shown = train_agents(errands, recipe.agent, recipe.env_id, sealed=control.sealed)
    inside = _inside(part, dataset, judge)
    real = [float(np.mean(inside.score(errand))) for errand in errands]
    found = ControlResult(
        name=control.name,
        words=control.words,
        judged=control.judged,
        most=controls.ceiling(recipe, part.chance),
        world_return=float(np.median([agent["world_return"] for agent in shown])),
        real_return=float(np.median(real)),
        real_returns=real,
    )
    return {"control": vars(found)}


def _rows(part: Part, judge: RealStepCounter, say: Say) -> dict[str, Any]:
    """What every family must pass, of the first seed's world."""
    checks: list[Check] = examine(part.world, (), part.recipe.behaviour, counter=judge, say=say)
    return {"checks": [vars(check) for check in checks]}


def processor_s() -> float:
    """Seconds of processor time of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
