"""Makes real environments by Gymnasium id, with changed physics where asked. Does not know what is recorded of them."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from simservice.errors import InvalidInput, UnknownEnvironment, near_miss
from simservice.types import qualified

Environment = gym.Env[Any, Any]

FRAMES_ID = "simservice/Frames-v0"
"""Any environment as pictures: its arguments are env_id, size, stack and env_kwargs."""


def make_environment(
    env_id: str, env_kwargs: Mapping[str, Any] | None = None, attributes: Mapping[str, Any] | None = None
) -> Environment:
    """The environment as gym.make gives it, with `attributes` set on the unwrapped environment.

    Attributes change physics that is no constructor argument (CartPole's gravity); a value that the environment
    derived from an attribute when it was built is not derived again. Raises UnknownEnvironment with near misses, and
    InvalidInput for an attribute the environment does not have.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is out of date.*")
            # Box2D's binding warns while its module is being made, and crashes where warnings are errors.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            environment = gym.make(qualified(env_id), **_limited(env_id, env_kwargs or {}))
    except gym.error.Error as error:
        raise UnknownEnvironment(env_id, _why(env_id, error)) from error
    except ModuleNotFoundError as error:
        raise UnknownEnvironment(env_id, str(error)) from error
    except TypeError as error:
        raise UnknownEnvironment(env_id, f"its arguments {dict(env_kwargs or {})} do not fit ({error})") from error
    try:
        set_attributes(environment, attributes or {})
    except InvalidInput:
        close(environment)
        raise
    return environment


def as_frames(
    env_id: str, env_kwargs: Mapping[str, Any] | None, size: int, stack: int = 1
) -> tuple[str, dict[str, Any]]:
    """The id and arguments of the environment whose observation is the rendered frame of this one."""
    arguments = {"env_kwargs": dict(env_kwargs)} if env_kwargs else {}
    return FRAMES_ID, {"env_id": env_id, "size": size, **({"stack": stack} if stack > 1 else {}), **arguments}


def _limited(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments; pictures of an environment take over its time limit, so that a world of them has it, too."""
    drawn = gym.registry.get(str(env_kwargs.get("env_id"))) if env_id == FRAMES_ID else None
    if drawn is None or drawn.max_episode_steps is None:
        return dict(env_kwargs)
    return {"max_episode_steps": drawn.max_episode_steps, **env_kwargs}


def set_attributes(environment: Environment, attributes: Mapping[str, Any]) -> None:
    """Sets attributes of the unwrapped environment; all of them must exist already and keep their kind."""
    real = environment.unwrapped
    for name, value in attributes.items():
        if name.startswith("_") or not hasattr(real, name):
            numbers = [key for key, found in vars(real).items() if isinstance(found, int | float)]
            problem = f"{type(real).__name__} has no such attribute"
            raise InvalidInput(f"attribute {name}", problem + near_miss(name, numbers))
        found = getattr(real, name)
        if isinstance(found, int | float | np.number) and not isinstance(value, int | float):
            raise InvalidInput(f"attribute {name}", f"is the number {found}, and cannot become {value!r}")
        setattr(real, name, value)


def close(environment: Environment) -> None:
    """Gives back what the environment holds (Gymnasium leaves its own close without types)."""
    environment.close()  # type: ignore[no-untyped-call]


def parse_settings(settings: Iterable[str], field: str) -> dict[str, Any]:
    """`name=value` texts as a dict; a value is a Python literal (12, 0.5, true, "text", [1, 2]) or else plain text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip().isidentifier():
            raise InvalidInput(field, f"{setting!r} is not of the form name=value, e.g. gravity=12")
        parsed[name.strip()] = _literal(text.strip())
    return parsed


def max_episode_steps(environment: Environment) -> int | None:
    """Where the environment truncates, if it says so."""
    return environment.spec.max_episode_steps if environment.spec is not None else None


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _why(env_id: str, error: gym.error.Error) -> str:
    if isinstance(error, gym.error.DependencyNotInstalled):
        return f"a package it needs is not installed ({error})"
    if ":" not in env_id and env_id not in gym.registry:
        close_ones = difflib.get_close_matches(env_id, gym.registry, n=1, cutoff=0.7)
        meant = (
            f"; did you mean {close_ones[0]!r}?"
            if close_ones
            else "; gymnasium.pprint_registry() lists those there are"
        )
        return "no environment of this name is registered" + meant
    return str(error)
