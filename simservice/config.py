"""Settings from TOML and from --a.b=c words as frozen dataclasses; an unknown key is named with its near miss."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from simservice.errors import ConfigError, SimserviceError, near_miss

Config = TypeVar("Config")


def load(kind: type[Config], path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The dataclass `kind` from its defaults, then the TOML file, then the overrides ("--a.b=c" or "a.b=c").

    Raises ConfigError for a missing or broken file, an unknown key, and a value that is not of the field's type.
    """
    values = read_toml(path) if path is not None else {}
    return build(kind, _merge(values, parse_overrides(overrides)))


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file's tables as nested dicts."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Nested dicts from "--a.b=c" words; values stay text until a field tells their type."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        path = key.split(".")
        if not equals or not all(part.isidentifier() for part in path):
            raise ConfigError(f"{word!r} is not of the form name=value (or part.name=value): write it so, with a value")
        table: dict[str, Any] = {}
        table[path[-1]] = _Text(text)
        for part in reversed(path[:-1]):
            table = {part: table}
        values = _merge(values, table)
    return values


def build(kind: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """A frozen dataclass from nested mappings, every key and value checked; `where` is the path for messages.

    Fields may be bool, int, float, str, Path, Literal, another dataclass, a tuple of these, a mapping from text to
    these, or optional. An int serves as a float; nothing else is converted, except text from overrides.
    """
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in known:
            raise ConfigError(f"there is no setting {name!r}{near_miss(key, known)}", key=name)
        arguments[key] = _convert(known[key], value, name)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.init
        and field.name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"the setting {where}{missing[0]!r} has no default and must be given", key=missing[0])
    try:
        return kind(**arguments)
    except SimserviceError:
        raise
    except ValueError as error:  # a dataclass that checks itself once, in __post_init__
        raise ConfigError(f"{where.rstrip('.') or kind.__name__}: {error}") from error


class _Text(str):
    """A value from the command line: its type is not known before the field's."""


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return str(value) if isinstance(value, _Text) else value
    if origin in (Union, types.UnionType):
        return _convert_optional(typing.get_args(hint), value, name)
    if origin is Literal:
        return _convert_literal(typing.get_args(hint), value, name)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, name)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(name, "a table", value)
        return {key: _convert(typing.get_args(hint)[1], item, f"{name}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _wrong(name, "a table", value)
        return build(typing.cast(type[Any], hint), value, f"{name}.")
    return _convert_scalar(hint, value, name)


def _convert_scalar(hint: Any, value: Any, name: str) -> Any:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if hint not in words:
        raise TypeError(f"{name}: settings of type {hint} are not supported")
    if hint in (str, Path):
        if not isinstance(value, str):
            raise _wrong(name, words[hint], value)
        return hint(str(value))
    if isinstance(value, _Text):
        return _read_text(hint, value, _wrong(name, words[hint], value))
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, (int, float) if hint is float else hint):
        raise _wrong(name, words[hint], value)
    return hint(value)


def _read_text(hint: type, text: str, error: ConfigError) -> Any:
    if hint is bool:
        if text not in ("true", "false"):
            raise error
        return text == "true"
    try:
        return hint(text)
    except ValueError:
        raise error from None


def _convert_optional(choices: Sequence[Any], value: Any, name: str) -> Any:
    present = [choice for choice in choices if choice is not type(None)]
    if len(present) < len(choices) and (value is None or (isinstance(value, _Text) and value == "none")):
        return None
    errors: list[ConfigError] = []
    for choice in present:
        try:
            return _convert(choice, value, name)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _convert_literal(choices: Sequence[Any], value: Any, name: str) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, _Text) and value == str(choice)):
            return choice
    raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, found {value!r}", key=name)


def _convert_tuple(hints: Sequence[Any], value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, _Text):
        value = [_Text(part.strip()) for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise _wrong(name, "a list", value)
    each = [hints[0]] * len(value) if len(hints) == 2 and hints[1] is Ellipsis else list(hints)
    if len(each) != len(value):
        raise ConfigError(f"{name} must have {len(each)} entries, found {len(value)}", key=name)
    return tuple(_convert(hint, item, f"{name}[{i}]") for i, (hint, item) in enumerate(zip(each, value, strict=True)))


def _wrong(name: str, wanted: str, found: Any) -> ConfigError:
    shown = str(found) if isinstance(found, _Text) else found
    return ConfigError(f"{name} must be {wanted}, found {shown!r}", key=name)
