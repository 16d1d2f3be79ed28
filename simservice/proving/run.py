"""Proves recipes: makes the parts that are missing, side by side if asked, and puts each recipe's parts together."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from simservice.proving import controls
from simservice.proving.pace import Pace
from simservice.proving.parts import Kind, Part, Say, make, seed_result
from simservice.proving.proof import ControlResult, Proof, ProofConfig
from simservice.proving.recipe import Check, Recipe

Made = tuple[dict[str, Any] | None, str]
"""A part's result, or None and why there is none."""

_told: Any = None  # in a process of the crew: takes (file, words) of the part that is being made


def prove(recipe: Recipe, config: ProofConfig | None = None, say: Say = lambda words: None) -> Proof:
    """Runs a recipe and returns what it showed; files lie in config.out/NAME."""
    return next(prove_all([recipe], config or ProofConfig(), say))


def prove_all(recipes: Sequence[Recipe], config: ProofConfig, say: Say) -> Iterator[Proof]:
    """Each recipe's proof as soon as it is there; where parts are made side by side not always in the recipes' order.

    A part that fails is told in its recipe's checks, and the others go on.
    """
    runs = [Run(recipe, config) for recipe in recipes]
    pace = Pace({part.file: part.expected_s for run in runs for part in run.wanted}, config.processes, say)
    if config.processes == 1:
        for run in runs:
            while parts := run.ready(pace):
                for part in parts:
                    with pace.making(part.file):
                        made = attempt(part, pace.of(part))
                    run.take(part, made)
            yield run.proof()
    else:
        yield from _side_by_side(runs, pace, config.processes)


class Run:
    """One recipe's proof under way: which parts are wanted, which may be made now, what there is."""

    def __init__(self, recipe: Recipe, config: ProofConfig) -> None:
        # A recipe that asks for nothing but the rows of every family needs the one world that they look at.
        worlds = config.seeds if recipe.bars or recipe.agent is not None else config.seeds[:1]
        first = Part(recipe=recipe, kind="chance", seed=config.seeds[0], config=config, through=True)
        several = [replace(first, seed=seed, through=seed == first.seed) for seed in worlds]
        agents = recipe.agent is not None
        held = controls.names(recipe) if agents and config.with_controls else []
        held.sort(key=lambda name: name != controls.TRAINED)  # it takes longest, so it is begun first
        self.recipe = recipe
        self.wanted = [
            *([first] if agents else []),
            *(replace(part, kind="data") for part in several),
            *(replace(part, kind="seed") for part in several),
            *(replace(first, kind="control", control=name) for name in held),
            *([replace(first, kind="rows")] if config.with_rows else []),
        ]
        self._order = [part.file for part in self.wanted]
        self._taken: dict[Path, tuple[Part, Made]] = {}

    def ready(self, pace: Pace) -> list[Part]:
        """Parts that are to be made and can be now. What earlier proofs left is taken as it is."""
        found: list[Part] = []
        while now := [part for part in self.wanted if self._may(part)]:
            for part in now:
                self.wanted.remove(part)
                asked = replace(part, chance=self._chance)
                made = asked.made()
                if made is None:
                    found.append(asked)
                else:
                    pace.kept(part.file)
                    self.take(asked, (made, ""))
        return found

    def take(self, part: Part, made: Made) -> None:
        """Adds a part that was made, or failed; what stands on a failed one is given up."""
        self._taken[part.file] = part, made
        gone = {part.file} if made[0] is None else set()
        while given_up := [other for other in self.wanted if gone.intersection(_needs(other))]:
            gone = {other.file for other in given_up}
            self.wanted = [other for other in self.wanted if other.file not in gone]
            self._order = [file for file in self._order if file not in gone]

    @property
    def finished(self) -> bool:
        """Whether nothing is missing and nothing under way."""
        return len(self._taken) == len(self._order)

    def proof(self) -> Proof:
        """All parts together."""
        taken = [self._taken[file] for file in self._order]
        there = [(part, found) for part, (found, _) in taken if found is not None]

        def of(kind: Kind) -> list[tuple[Part, dict[str, Any]]]:
            return [(part, found) for part, found in there if part.kind == kind]

        return Proof(
            recipe=self.recipe,
            seeds=[seed_result(part, found) for part, found in of("seed")],
            controls=sorted(
                (ControlResult(**found["control"]) for _, found in of("control")), key=lambda control: control.name
            ),
            rows=[Check(**one) for _, found in of("rows") for one in found["checks"]],
            failures=[f"{part.words}: {why}" for part, (found, why) in taken if found is None],
            chance=self._chance,
            judging_steps=sum(found["judging_steps"] for _, found in there),
            seconds=sum(found["seconds"] for _, found in there),
        )

    @property
    def _chance(self) -> float:
        found = [made[0] for part, made in self._taken.values() if part.kind == "chance"]
        return float(found[0]["chance"]) if found and found[0] is not None else float("nan")

    def _may(self, part: Part) -> bool:
        return all(file in self._taken or file not in self._order for file in _needs(part))


def _needs(part: Part) -> list[Path]:
    """The parts that one stands on, by their files."""
    standing: dict[Kind, list[Kind]] = {
        "chance": [], "data": [], "seed": ["chance", "data"], "control": ["chance", "data"], "rows": ["seed"]
    }  # fmt: skip
    return [replace(part, kind=kind).file for kind in standing[part.kind]]


def attempt(part: Part, say: Say) -> Made:
    """Makes a part; a failure is a result, and lies beside it in full."""
    try:
        return make(part, say), ""
    except Exception as error:
        part.folder.mkdir(parents=True, exist_ok=True)
        part.file.with_suffix(".failed.txt").write_text(traceback.format_exc())
        return None, f"{type(error).__name__}: {error}"[:300]


def _side_by_side(runs: Sequence[Run], pace: Pace, processes: int) -> Iterator[Proof]:
    """The same with several processes, each with one part at a time."""
    with _crew(pace, processes) as crew:
        under_way: dict[Future[Made], tuple[Run, Part]] = {}

        def begin(run: Run) -> Iterator[Proof]:
            for part in run.ready(pace):
                under_way[crew.submit(_attempt_there, part)] = run, part
            if run.finished:
                yield run.proof()

        for run in runs:
            yield from begin(run)
        while under_way:
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                run, part = under_way.pop(future)
                pace.made(part.file)
                run.take(part, future.result())
                yield from begin(run)


@contextmanager
def _crew(pace: Pace, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that make parts; what they say comes to the pace."""
    context = multiprocessing.get_context("spawn")
    said: Any = context.Queue()

    def listen() -> None:
        while (told := said.get()) is not None:
            pace.say(*told)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    crew = ProcessPoolExecutor(processes, mp_context=context, initializer=_join, initargs=(said,))
    try:
        yield crew
    finally:
        crew.shutdown(cancel_futures=True)
        said.put(None)
        listener.join()


def _join(said: Any) -> None:
    global _told
    _told = said


def _attempt_there(part: Part) -> Made:
    def say(words: str) -> None:
        _told.put((part.file, f"{part.words}: {words}"))

    say("begins")
    return attempt(part, say)
