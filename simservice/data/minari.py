"""Keeps episodes as Minari datasets and reads those of others. The only file that knows Minari.

A dataset is never changed once written: more data makes a new version, so a hash always means the same episodes.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import MinariDataset, parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import NAMESPACE_METADATA_FILENAME

from simservice.data.environments import close, make_environment
from simservice.data.episodes import Dataset, check_episode, fingerprint
from simservice.errors import InvalidInput, MissingDataset
from simservice.types import OWN_NAMESPACE, Array, Episode, Leaves, from_leaves, leaves_of, to_leaves

OWN_KEY = "simservice"  # our part of Minari's metadata.json


def datasets_root(root: str | Path | None = None) -> Path:
    """Where datasets lie: `root`, else MINARI_DATASETS_PATH, else ~/.minari/datasets, as Minari has it.

    Always an absolute path: Minari joins a relative one to itself when it measures a dataset's size.
    """
    named = root if root is not None else os.environ.get("MINARI_DATASETS_PATH")
    return Path(named).absolute() if named else Path.home() / ".minari" / "datasets"


def default_dataset_id(env_id: str, policy_name: str, root: str | Path | None = None) -> str:
    """`simservice/cartpole-v1/random-v0`, or the first version after it that is free."""
    environment = _slug(env_id.rpartition(":")[2].removeprefix(OWN_NAMESPACE))
    return free_version(f"simservice/{environment}/{_slug(policy_name) or 'policy'}-v0", root)


def free_version(dataset_id: str, root: str | Path | None = None) -> str:
    """The id itself, or with the first higher version number that does not exist yet."""
    base, version = dataset_id.rsplit("-v", 1)
    number = int(version)
    while (datasets_root(root) / f"{base}-v{number}").exists():
        number += 1
    return f"{base}-v{number}"


def check_target(
    dataset_id: str,
    root: str | Path | None,
    *,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    env_attributes: Mapping[str, Any] | None = None,
    append_to: Dataset | None = None,
) -> None:
    """What save_dataset would refuse, asked before real steps are spent: InvalidInput."""
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise InvalidInput("dataset id", f"{dataset_id!r} is not of the form namespace/name-v0") from error
    top = datasets_root(root)
    if (top / dataset_id).exists():
        hint = free_version(dataset_id, root)
        raise InvalidInput("dataset id", f"{dataset_id} exists already in {top}; the next free version is {hint}")
    if append_to is not None:
        wanted = (env_id, dict(env_kwargs or {}), dict(env_attributes or {}))
        found = (append_to.env_id, dict(append_to.env_kwargs), dict(append_to.env_attributes))
        if wanted != found:
            raise InvalidInput("append", f"{append_to.dataset_id} was recorded in {found}, not in {wanted}")


def list_datasets(root: str | Path | None = None) -> list[str]:
    """The ids of all datasets under the root."""
    top = datasets_root(root)
    found = (path.parent.parent.relative_to(top) for path in top.glob("**/data/metadata.json"))
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))


def save_dataset(
    episodes: Sequence[Episode],
    dataset_id: str,
    *,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    env_attributes: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
    real_steps: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    append_to: Dataset | None = None,
) -> Dataset:
    """Writes a new dataset that minari.load_dataset reads, whole or not at all.

    `append_to` puts the episodes of an earlier dataset first, and adds its real steps. `real_steps` is what recording
    cost (default: the episodes' own steps). Raises InvalidInput for a malformed or taken id.
    """
    check_target(
        dataset_id,
        root,
        env_id=env_id,
        env_kwargs=env_kwargs,
        env_attributes=env_attributes,
        append_to=append_to,
    )
    environment = make_environment(env_id, env_kwargs)
    close(environment)
    spec, observation_space, action_space = environment.spec, environment.observation_space, environment.action_space
    cost = real_steps if real_steps is not None else sum(len(episode) for episode in episodes)
    own: dict[str, Any] = {
        "env_kwargs": dict(env_kwargs or {}),
        "env_attributes": dict(env_attributes or {}),
        **(metadata or {}),
    }
    if append_to is not None:
        episodes, cost = [*append_to.episodes, *episodes], cost + append_to.real_steps
        own["appended_to"] = append_to.dataset_id
    if not episodes:
        raise InvalidInput("episodes", "there are none to save")
    for number, episode in enumerate(episodes):
        check_episode(episode, observation_space, action_space, f"episode {number}")
    own |= {"real_steps": cost, "sha256": fingerprint(episodes)}
    folder = _new_folder(dataset_id, root)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as name:
        data = Path(name) / "dataset" / "data"
        data.parent.mkdir()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="env_spec is not serializable")
            storage = MinariStorage.new(data, observation_space, action_space, spec, jpeg_encoding=False)
        storage.update_metadata(_minari_metadata(dataset_id, own, append_to))
        storage.update_episodes(_buffers(episodes, observation_space, action_space))
        storage.update_episode_metadata([{"policy": episode.policy} for episode in episodes])
        os.rename(data.parent, folder)
    return load_dataset(dataset_id, root)


def load_dataset(dataset: str | Path, root: str | Path | None = None) -> Dataset:
    """A dataset by id or by folder, ours or any other Minari dataset whose spaces have fixed shapes.

    Raises MissingDataset with near misses, and InvalidInput for one that cannot be read or that contains autoreset
    frames (steps recorded after an episode's end).
    """
    data = _find(dataset, root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari warns about its own older versions; what matters is checked here
            opened = MinariDataset(data)
            storage = opened.storage
            metadata = storage.metadata
            found = list(storage.get_episodes(range(storage.total_episodes)))
            extras = list(storage.get_episode_metadata(range(storage.total_episodes)))
    except (OSError, ValueError, KeyError, AssertionError, json.JSONDecodeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(f"dataset {dataset}", f"cannot be read ({problem}); record it again") from error
    observation_space, action_space = opened.observation_space, opened.action_space
    episodes = tuple(
        _episode(record, extra, observation_space, action_space)
        for record, extra in zip(found, extras, strict=True)
        if len(record["rewards"])
    )
    if not episodes:
        raise InvalidInput(f"dataset {dataset}", "holds no episode")
    own = dict(metadata.get(OWN_KEY, {}))
    spec = opened.env_spec
    return Dataset(
        episodes=episodes,
        observation_space=observation_space,
        action_space=action_space,
        env_id=spec.id if spec is not None else None,
        env_kwargs=dict(own.pop("env_kwargs", spec.kwargs if spec is not None else {})),
        env_attributes=dict(own.pop("env_attributes", {})),
        max_episode_steps=spec.max_episode_steps if spec is not None else None,
        dataset_id=str(metadata["dataset_id"]),
        hash=_checked_hash(episodes, own.pop("sha256", None), str(dataset)),
        real_steps=int(own.pop("real_steps", sum(len(episode) for episode in episodes))),
        metadata=own,
    )


def _new_folder(dataset_id: str, root: str | Path | None) -> Path:
    """The folder to be, its parents made and marked as Minari namespaces."""
    namespace, top = parse_dataset_id(dataset_id)[0], datasets_root(root)
    folder = top / dataset_id
    folder.parent.mkdir(parents=True, exist_ok=True)
    level = top
    for part in (namespace or "").split("/"):
        level = level / part
        marker = level / NAMESPACE_METADATA_FILENAME
        if part and not marker.exists():
            marker.write_text("{}")
    return folder


def _minari_metadata(dataset_id: str, own: Mapping[str, Any], append_to: Dataset | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": importlib.metadata.version("minari"),
        "algorithm_name": str(own.get("policy", "")),
        OWN_KEY: dict(own),
    }
    if append_to is not None and append_to.dataset_id is not None:
        described["combined_datasets"] = [append_to.dataset_id]
    return described


def _buffers(
    episodes: Sequence[Episode], observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> Iterable[EpisodeBuffer]:
    for episode in episodes:
        last = np.zeros(len(episode), dtype=bool)
        last[-1] = True
        yield EpisodeBuffer(
            seed=episode.seed,
            observations=from_leaves(observation_space, episode.observation, "observation"),
            actions=from_leaves(action_space, episode.action, "action"),
            rewards=episode.reward,
            terminations=last & episode.terminated,
            truncations=last & episode.truncated,
        )


def _episode(
    record: Mapping[str, Any],
    extra: Mapping[str, Any],
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
) -> Episode:
    name = f"episode {record['id']}"
    terminations = np.asarray(record["terminations"], dtype=bool)
    truncations = np.asarray(record["truncations"], dtype=bool)
    ended = np.flatnonzero(terminations[:-1] | truncations[:-1])
    if len(ended):
        problem = f"goes on after its end at step {ended[0]}: these are autoreset frames, not transitions"
        raise InvalidInput(name, problem)
    episode = Episode(
        observation=_typed(observation_space, record["observations"], "observation"),
        action=_typed(action_space, record["actions"], "action"),
        reward=np.asarray(record["rewards"], dtype=np.float64),
        terminated=bool(terminations[-1]),
        truncated=bool(truncations[-1]),
        seed=extra.get("seed"),
        policy=str(extra.get("policy", "")),
    )
    check_episode(episode, observation_space, action_space, name)
    return episode


def _typed(space: gym.Space[Any], value: Any, root: str) -> Leaves:
    leaves = to_leaves(space, value, root)
    return {leaf.path: _as_dtype(leaves[leaf.path], leaf.dtype) for leaf in leaves_of(space, root)}


def _as_dtype(array: Array, dtype: np.dtype[Any]) -> Array:
    return array if array.dtype == dtype else array.astype(dtype)


def _checked_hash(episodes: Sequence[Episode], stated: str | None, name: str) -> str:
    found = fingerprint(episodes)
    if stated is not None and stated != found:
        raise InvalidInput(f"dataset {name}", "does not have the content it was written with; record it again")
    return found


def _find(dataset: str | Path, root: str | Path | None) -> Path:
    top = datasets_root(root)
    for candidate in (Path(dataset) / "data", Path(dataset), top / dataset / "data"):
        if (candidate / "metadata.json").is_file():
            return candidate
    raise MissingDataset(str(dataset), str(top), list_datasets(root))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")
