"""Row A7 where a frame can be held against the truth for ever: GridDot's one dot must neither vanish nor double."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simservice.proving.recipe import Recipe
from simservice.proving.recipes.rssm import CATCH as RSSM
from simservice.proving.recipes.tokens import CATCH as TOKENS


def _of(family: str, words: str, overrides: Mapping[str, Any]) -> Recipe:
    return Recipe(
        name=f"{family}-griddot",
        row="A7",
        title=f"A dot that must stay one dot for 1,000 steps, in a {words} world",
        env_id="simservice/GridDot-v0",
        real_steps=3_000,
        family=family,
        overrides=overrides,
    )


RECIPES = (
    _of("rssm", "recurrent state-space", {**RSSM, "segment_length": 8}),
    _of("tokens", "token", TOKENS),
    _of("diffusion", "diffusion", {}),
)
