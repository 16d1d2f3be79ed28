"""Writes what a proof leaves: pictures of its dreams and the card."""

from __future__ import annotations

from pathlib import Path

from simservice.data.minari import load_dataset
from simservice.proving.card import write_card
from simservice.proving.pictures import write
from simservice.proving.proof import Proof
from simservice.proving.recipe import Trial
from simservice.worlds.checkpoint import load


def finish(proof: Proof, out: Path) -> Path:
    """A picture of the first world that there is, and the card; returns the card's path."""
    folder, recipe, first = (out / proof.recipe.name).absolute(), proof.recipe, proof.seeds[0]
    dataset = load_dataset(f"prove/{recipe.name}-v0", first.folder.parent / "data")
    trial = Trial(recipe=recipe, seed=first.seed, world=load(first.folder).world, dataset=dataset, folder=folder)
    return write_card(proof, folder, [write(trial, folder / "dream.png")])
