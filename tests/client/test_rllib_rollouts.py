"""The rollout runner beside RLlib's own: the same episodes, the module's own actions, the same life."""

import asyncio

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from rllib_modules import assert_same

from simservice.client.capacity import get_capacity
from simservice.client.policies import PolicyShelf
from simservice.client.rllib import PPOSettings, RolloutEnvRunner, real_config, served_config
from simservice.errors import InvalidInput, InvalidPolicy, UnknownSession
from simservice.serving.local import LocalConfig, LocalServer

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:.*gputil.*")]

LANES, STEPS = 6, 10
SETTINGS = PPOSettings(num_envs=LANES, rollout_steps=STEPS, hidden=(16,))
SERVED = "simservice.client:simservice/World-v0"


@pytest.fixture(scope="module")
def server(save_toy):
    """The worlds "brief" (ends by both ways, with luck), "push" (two pushes of up to 3 to the left or right)."""
    plain = {"observation_space": spaces.Box(-10, 10, (4,), np.float32)}
    push = {**plain, "action_space": spaces.Box(-1, 3, (2,), np.float32), "max_episode_steps": 9}
    folders = [
        save_toy("brief", spec={**plain, "max_episode_steps": 12, "trust_horizon_steps": 7}, bound=1.2, noise=0.05),
        save_toy("push", spec=push),
    ]
    with LocalServer(folders, store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        yield server


def off_policy(kind, server, world):
    """A DQN or SAC configuration with small networks."""
    return (
        kind()
        .environment(SERVED, env_config={"address": server.address, "world": world})
        .env_runners(num_envs_per_env_runner=LANES, gym_env_vectorize_mode="vector_entry_point")
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .debugging(seed=0, log_level="ERROR")
    )


@pytest.fixture
def made():
    """Makes runners, which are stopped at the end."""
    runners = []

    def make(config, kind=RolloutEnvRunner):
        runners.append(kind(config=config))
        return runners[-1]

    yield make
    for runner in runners:
        runner.stop()


def pair(made, config):
    """RLlib's own runner and ours with its weights, both before their first reset."""
    theirs, ours = made(config, SingleAgentEnvRunner), made(config)
    ours.set_state(theirs.get_state())
    return theirs, ours


@pytest.mark.parametrize("world", ["brief", "push"])
def test_greedy_rollouts_are_the_episodes_of_rllibs_own_runner(made, server, world):
    theirs, ours = pair(made, served_config(server.address, world, SETTINGS))
    for steps in (60, 7, 60):
        expected = theirs.sample(num_timesteps=steps, explore=False)
        found = ours.sample(num_timesteps=steps, explore=False)
        assert_same(found, expected, tolerance=1e-5)
        for mine, other in zip(found, expected, strict=True):
            assert mine.extra_model_outputs.keys() == other.extra_model_outputs.keys()
            for name in ("action_dist_inputs", "weights_seq_no"):
                my, their = mine.extra_model_outputs[name], other.extra_model_outputs[name]
                np.testing.assert_allclose(my.data, their.data, rtol=1e-4, atol=1e-5)
                assert (my.data.dtype, my.lookback) == (their.data.dtype, their.lookback)


def test_whole_episodes_are_the_first_that_end(made, server):
    theirs, ours = pair(made, served_config(server.address, "brief", SETTINGS))
    for count in (1, 9):
        expected = theirs.sample(num_episodes=count, explore=False)
        found = ours.sample(num_episodes=count, explore=False)
        assert len(found) == count
        assert_same(found, expected, tolerance=1e-5)


def test_metrics_are_those_of_rllibs_own_runner(made, server):
    theirs, ours = pair(made, served_config(server.address, "brief", SETTINGS))
    told = []
    for runner in (theirs, ours):
        for _ in range(2):
            runner.sample(num_timesteps=150, explore=False)
        metrics = runner.get_metrics()
        names = [name for name in metrics if name.startswith(("episode_", "num_")) and "duration" not in name]
        told.append({name: read(metrics[name]) for name in names})
    assert told[0] == told[1]
    assert {"episode_return_mean", "episode_len_max", "num_env_steps_sampled_lifetime"} <= told[0].keys()


def read(stat):
    """The number or numbers of a metric."""
    if isinstance(stat, dict):
        return {name: read(value) for name, value in stat.items()}
    return pytest.approx(float(np.asarray(stat.peek())), rel=1e-6)


@pytest.mark.parametrize(
    "config_of",
    [
        lambda server: served_config(server.address, "brief", SETTINGS),
        lambda server: served_config(server.address, "push", SETTINGS),
        lambda server: off_policy(SACConfig, server, "push"),
        lambda server: off_policy(SACConfig, server, "brief"),
    ],
    ids=["ppo-discrete", "ppo-box", "sac-box", "sac-discrete"],
)
def test_sampled_actions_are_the_modules_own(made, server, config_of):
    runner = made(config_of(server))
    dist_class = runner.module.get_exploration_action_dist_cls()
    for episode in runner.sample(num_timesteps=200):
        observation = torch.from_numpy(episode.observations.data[:-1])
        with torch.no_grad():
            inputs = runner.module.forward_exploration({"obs": observation})["action_dist_inputs"]
        outputs = {name: buffer.data for name, buffer in episode.extra_model_outputs.items()}
        np.testing.assert_allclose(outputs["action_dist_inputs"], inputs, rtol=1e-4, atol=1e-5)
        likely = dist_class.from_logits(inputs).logp(torch.from_numpy(episode.actions.data))
        np.testing.assert_allclose(outputs["action_logp"], likely, rtol=1e-3, atol=1e-3)


def test_box_actions_are_stored_as_drawn_and_fitted_for_the_world(made, server):
    runner = made(served_config(server.address, "push", SETTINGS))
    outside = 0
    for episode in runner.sample(num_timesteps=300):
        seen, drawn = episode.observations.data.astype(np.float64), episode.actions.data
        fitted = np.clip(-1 + (drawn + 1) * 2, -1, 3)  # RLlib's unsquash_action onto [-1, 3]
        moved = (1.05 * seen[:-1] + 0.1 * fitted.sum(-1, keepdims=True))[: len(drawn)]
        np.testing.assert_allclose(seen[1:], moved, rtol=1e-4, atol=1e-4)
        outside += int((np.abs(drawn) > 1).sum())
    assert outside  # of RLlib's Gaussians some are; the learner gets them as they were


def test_dqn_acts_by_the_epsilon_of_its_schedule(made, server):
    config = off_policy(DQNConfig, server, "brief").env_runners(env_runner_cls=RolloutEnvRunner)
    config.training(epsilon=[[0, 1.0], [1000, 0.0]])
    runner = made(config)

    def share_of_best():
        best = []
        for episode in runner.sample(num_timesteps=600):
            assert set(episode.extra_model_outputs) == {"weights_seq_no"}
            seen = torch.from_numpy(episode.get_observations(slice(0, len(episode))))
            with torch.no_grad():
                values = runner.module.compute_q_values({"obs": seen})
            best.append(values["qf_preds"].argmax(-1).numpy() == episode.get_actions())
        return np.concatenate(best).mean()

    assert share_of_best() < 0.6  # a third of three actions is the best one by chance
    runner.set_state({"num_env_steps_sampled_lifetime": 1000})
    assert share_of_best() == 1.0


def test_a_graph_is_put_once_and_then_weights_when_they_have_changed(made, server, monkeypatch):
    runner = made(served_config(server.address, "brief", SETTINGS))
    put, update, calls = PolicyShelf.put, PolicyShelf.update, []
    monkeypatch.setattr(PolicyShelf, "put", lambda *a: calls.append("whole") or put(*a))
    monkeypatch.setattr(PolicyShelf, "update", lambda *a: calls.append("weights") or update(*a))
    runner.sample(num_timesteps=30)
    runner.sample(num_timesteps=30)
    assert calls == ["whole"]
    state = runner.get_state()
    state["rl_module"] = {name: value + 0.5 for name, value in state["rl_module"].items()}
    runner.set_state({**state, "weights_seq_no": 7})
    episodes = runner.sample(num_timesteps=30)
    assert calls == ["whole", "weights"]
    chunk = next(episode for episode in episodes if episode.extra_model_outputs["weights_seq_no"].data[-1] == 7)
    with torch.no_grad():
        expected = runner.module.forward_exploration({"obs": torch.from_numpy(chunk.observations.data[:-1])})
    fresh = chunk.extra_model_outputs["weights_seq_no"].data == 7
    found = chunk.extra_model_outputs["action_dist_inputs"].data[fresh]
    np.testing.assert_allclose(found, expected["action_dist_inputs"][fresh], rtol=1e-4, atol=1e-5)


def test_a_policy_that_the_service_forgot_is_put_again(made, server):
    runner = made(served_config(server.address, "brief", SETTINGS))
    runner.sample(num_timesteps=30)
    forget_policies(server)
    assert sum(map(len, runner.sample(num_timesteps=60))) >= 60
    forget_policies(server)
    state = runner.get_state()
    runner.set_state({**state, "rl_module": {name: value + 0.1 for name, value in state["rl_module"].items()}})
    assert sum(map(len, runner.sample(num_timesteps=60))) >= 60


def test_the_same_seed_gives_the_same_episodes(made, server):
    config = served_config(server.address, "brief", SETTINGS, seed=4)
    first, second = made(config), made(config)
    second.set_state(first.get_state())
    for _ in range(2):
        assert_same(first.sample(num_timesteps=60), second.sample(num_timesteps=60))


def test_random_actions_need_no_policy(made, server):
    runner = made(served_config(server.address, "push", SETTINGS))
    episodes = runner.sample(num_timesteps=60, random_actions=True)
    assert sum(map(len, episodes)) >= 60
    assert all(SPACE.contains(action) for episode in episodes for action in episode.actions.data)
    assert np.ptp(np.concatenate([episode.actions.data for episode in episodes])) > 2


SPACE = spaces.Box(-1, 3, (2,), np.float32)


def test_a_lost_session_is_made_again_where_the_configuration_says_so(made, server):
    runner = made(served_config(server.address, "brief", SETTINGS))
    runner.sample(num_timesteps=30)
    lost = runner.env.unwrapped.session
    forget_session(server, lost.token)
    assert sum(map(len, runner.sample(num_timesteps=60))) >= 60
    assert runner.env.unwrapped.session.token != lost.token
    config = served_config(server.address, "brief", SETTINGS).fault_tolerance(restart_failed_sub_environments=False)
    other = made(config)
    other.sample(num_timesteps=30)
    forget_session(server, other.env.unwrapped.session.token)
    with pytest.raises(RuntimeError, match="restart_failed_sub_environments") as raised:
        other.sample(num_timesteps=30)
    assert isinstance(raised.value.__cause__, UnknownSession)


def test_weights_that_are_no_numbers_are_an_error_and_not_another_beginning(made, server):
    runner = made(served_config(server.address, "brief", SETTINGS))
    state = runner.get_state()
    runner.set_state({**state, "rl_module": {name: value * np.nan for name, value in state["rl_module"].items()}})
    with pytest.raises(InvalidPolicy):
        runner.sample(num_timesteps=30)


class AtEnds(RLlibCallback):
    """Counts what ends."""

    def on_episode_end(self, *, episode, env_index, metrics_logger, **rest):
        assert episode.is_done
        metrics_logger.log_value("my_ends", 1, reduce="sum")


class AtSteps(RLlibCallback):
    """Wants to be told of every step."""

    def on_episode_step(self, **rest):
        raise AssertionError


def test_callbacks_hear_of_ends_and_those_of_steps_are_refused(made, server):
    config = served_config(server.address, "brief", SETTINGS)
    runner = made(config.copy(copy_frozen=False).callbacks(AtEnds))
    episodes = runner.sample(num_timesteps=120)
    assert runner.get_metrics()["my_ends"].peek() == sum(episode.is_done for episode in episodes) > 0
    with pytest.raises(InvalidInput, match="on_episode_step would be made in every lane"):
        made(config.copy(copy_frozen=False).callbacks(AtSteps))


def test_what_a_server_cannot_do_is_refused_when_the_runner_is_made(made, server):
    before = get_capacity(server.address, "brief").replica.sessions_active
    config = served_config(server.address, "brief", SETTINGS)
    filtered = config.copy(copy_frozen=False)
    filtered.env_runners(env_to_module_connector=lambda env=None, spaces=None, device=None: MeanStdFilter())
    recurrent = config.copy(copy_frozen=False).rl_module(model_config=DefaultModelConfig(use_lstm=True))
    real = real_config("CartPole-v1", SETTINGS, vectorization="sync")
    same_step = config.copy(copy_frozen=False)
    same_step.environment(env_config={**config.env_config, "autoreset_mode": "same_step"})
    for wrong, words in (
        (filtered, "env_to_module_connector: MeanStdFilter"),
        (recurrent, "use_lstm"),
        (real, "rollouts are played in served worlds"),
        (same_step, "autoreset mode NEXT_STEP"),
    ):
        with pytest.raises(InvalidInput, match=words):
            made(wrong)
    assert get_capacity(server.address, "brief").replica.sessions_active == before


# ---- what happens to a service -------------------------------------------------------------------------------------


def forget_session(server, token):
    """The session is gone from the store, as after its idle time."""
    store = server.service.replicas[0].store

    async def delete():
        await store.delete(token, (await store.record(token)).epoch)

    asyncio.run_coroutine_threadsafe(delete(), server._loop).result()


def forget_policies(server):
    """No policy is known any more, as after its time to live."""
    for one in server.service.replicas:
        for known in (one.policies.store._shelves, one.policies._loaded, one.policies._graphs, one.policies._files):
            known.clear()
