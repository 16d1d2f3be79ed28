"""The recipes, a file a family, one a ground of all families. `all_recipes()` knows them by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from simservice.errors import ConfigError
from simservice.proving.recipe import Recipe
from simservice.proving.recipes import diffusion, ensemble, grid_dot, rssm, tokens

_FILES = (ensemble, rssm, tokens, diffusion, grid_dot)


def all_recipes() -> dict[str, Recipe]:
    """Every recipe by its name, in the order of the acceptance table."""
    return {recipe.name: recipe for recipe in _each()}


def find(name: str) -> Recipe:
    """The recipe of this name. Raises ConfigError with near misses."""
    known = all_recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
        raise ConfigError(f"no recipe {name!r}; {meant}", key="name")
    return known[name]


def _each() -> Iterator[Recipe]:
    for file in _FILES:
        yield from file.RECIPES
