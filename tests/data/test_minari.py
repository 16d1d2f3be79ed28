"""Datasets on disk: what is written is what is read, by us and by Minari."""

from __future__ import annotations

import json

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from simservice.data.collect import collect
from simservice.data.episodes import fingerprint
from simservice.data.minari import default_dataset_id, free_version, list_datasets, load_dataset, save_dataset
from simservice.errors import InvalidInput, MissingDataset

ID = "simservice/cartpole-v1/random-v0"


@pytest.fixture
def episodes():
    return collect("CartPole-v1", steps=120, seed=0, num_envs=2)


@pytest.fixture
def saved(episodes, tmp_path):
    return save_dataset(
        episodes,
        ID,
        env_id="CartPole-v1",
        env_kwargs={"max_episode_steps": 77},
        env_attributes={"gravity": 12},
        root=tmp_path,
        metadata={"seed": 0, "policy": "random"},
    )


def test_what_was_saved_is_what_is_loaded(saved, episodes, tmp_path):
    loaded = load_dataset(ID, tmp_path)
    assert loaded.hash == saved.hash == fingerprint(episodes) == fingerprint(loaded.episodes)
    assert [(e.terminated, e.truncated, e.seed, e.policy) for e in loaded.episodes] == [
        (e.terminated, e.truncated, e.seed, e.policy) for e in episodes
    ]
    assert (loaded.env_id, loaded.env_kwargs, loaded.env_attributes) == (
        "CartPole-v1",
        {"max_episode_steps": 77},
        {"gravity": 12},
    )
    assert (loaded.max_episode_steps, loaded.real_steps, loaded.steps) == (77, 120, 120)
    assert loaded.metadata == {"seed": 0, "policy": "random"}
    assert loaded.observation_space == gym.make("CartPole-v1").observation_space


def test_a_folder_is_as_good_as_an_id(saved, tmp_path):
    assert load_dataset(tmp_path / ID).hash == saved.hash
    assert load_dataset(str(tmp_path / ID / "data")).hash == saved.hash


def test_a_relative_root_is_as_good(episodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_dataset(episodes, ID, env_id="CartPole-v1", root="here")
    assert list_datasets(tmp_path / "here") == list_datasets("here") == [ID]


def test_minari_reads_our_datasets(saved, episodes, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    theirs = minari.load_dataset(ID)
    assert (theirs.total_steps, theirs.total_episodes, theirs.env_spec.id) == (120, len(episodes), "CartPole-v1")
    np.testing.assert_array_equal(theirs[0].observations, episodes[0].observation["observation"])
    assert list(minari.list_local_datasets()) == [ID]


def test_we_read_minaris_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    spaces = {"observation_space": gym.spaces.Dict({"b": gym.spaces.Box(-1, 1, (2,)), "a": gym.spaces.Discrete(3)})}
    spaces["action_space"] = gym.spaces.Tuple((gym.spaces.MultiBinary(2), gym.spaces.MultiDiscrete([2, 3])))
    buffer = EpisodeBuffer(
        observations={"b": np.zeros((4, 2), np.float32), "a": np.array([0, 1, 2, 0])},
        actions=(np.ones((3, 2), np.int8), np.ones((3, 2), np.int64)),
        rewards=[0.0, 1.0, 2.0],
        terminations=[False, False, False],
        truncations=[False, False, True],
        infos={},
    )
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("other/thing-v2", [buffer], **spaces)
    loaded = load_dataset("other/thing-v2")
    (episode,) = loaded.episodes
    assert (loaded.env_id, loaded.real_steps, loaded.observation_space) == (None, 3, spaces["observation_space"])
    assert (episode.terminated, episode.truncated, episode.undiscounted_return) == (False, True, 3.0)
    assert episode.observation["observation/a"].tolist() == [0, 1, 2, 0]
    assert episode.action["action/1"].shape == (3, 2)


def test_autoreset_frames_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffer = EpisodeBuffer(
        observations=np.zeros((5, 4), np.float32),
        actions=np.zeros(4, np.int64),
        rewards=[1.0, 1.0, 0.0, 1.0],
        terminations=[False, True, False, True],
        truncations=[False] * 4,
        infos={},
    )
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("other/glued-v0", [buffer], env="CartPole-v1")
    with pytest.raises(InvalidInput, match="goes on after its end at step 1: these are autoreset frames"):
        load_dataset("other/glued-v0")


def test_more_data_makes_a_new_version_and_leaves_the_old_one(saved, tmp_path):
    more = collect("CartPole-v1", steps=30, seed=9, attributes={"gravity": 12})
    again = save_dataset(
        more,
        free_version(ID, tmp_path),
        env_id="CartPole-v1",
        env_kwargs={"max_episode_steps": 77},
        env_attributes={"gravity": 12},
        root=tmp_path,
        append_to=saved,
    )
    assert again.dataset_id == "simservice/cartpole-v1/random-v1"
    assert (again.steps, again.real_steps) == (150, 150)
    assert fingerprint(again.episodes[: len(saved.episodes)]) == saved.hash
    assert load_dataset(ID, tmp_path).hash == saved.hash
    with pytest.raises(InvalidInput, match=r"append: .* was recorded in"):
        save_dataset(more, "other/b-v0", env_id="CartPole-v1", root=tmp_path, append_to=saved)


def test_a_missing_dataset_names_its_near_miss_and_what_to_do(saved, tmp_path):
    with pytest.raises(
        MissingDataset, match=r"random-v7.*did you mean 'simservice/cartpole-v1/random-v0'.*collect ENV"
    ):
        load_dataset("simservice/cartpole-v1/random-v7", tmp_path)
    with pytest.raises(MissingDataset, match="there are none"):
        load_dataset("x-v0", tmp_path / "nowhere")


@pytest.mark.parametrize(("dataset_id", "message"), [(ID, "exists already.*random-v1"), ("no spaces", "of the form")])
def test_an_id_must_be_free_and_well_formed(saved, episodes, tmp_path, dataset_id, message):
    with pytest.raises(InvalidInput, match=message):
        save_dataset(episodes, dataset_id, env_id="CartPole-v1", root=tmp_path)


def test_a_changed_array_is_noticed(saved, tmp_path):
    with h5py.File(tmp_path / ID / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/rewards"][0] = 5.0
    with pytest.raises(InvalidInput, match="does not have the content it was written with"):
        load_dataset(ID, tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "metadata"])
def test_a_damaged_dataset_says_so(saved, tmp_path, damage):
    data = tmp_path / ID / "data"
    if damage == "truncate":
        (data / "main_data.hdf5").write_bytes(b"not an hdf5 file")
    else:
        (data / "metadata.json").write_text(json.dumps({"total_episodes": 1})[:-3])
    with pytest.raises(InvalidInput, match=r"cannot be read .*record it again"):
        load_dataset(ID, tmp_path)


def test_a_failed_write_leaves_nothing_behind(episodes, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", fail)
    with pytest.raises(KeyboardInterrupt):
        save_dataset(episodes, ID, env_id="CartPole-v1", root=tmp_path)
    assert list_datasets(tmp_path) == []
    assert [path.name for path in (tmp_path / ID).parent.iterdir()] == ["namespace_metadata.json"]


def test_default_ids_are_valid_and_free(saved, tmp_path):
    assert default_dataset_id("CartPole-v1", "random", tmp_path) == "simservice/cartpole-v1/random-v1"
    assert default_dataset_id("ALE/Pong-v5", "ppo-epsilon0.3", tmp_path) == "simservice/ale-pong-v5/ppo-epsilon0-3-v0"
