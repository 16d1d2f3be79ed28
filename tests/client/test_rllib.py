"""RLlib learns in a served world, repeats itself for a seed, and hands over the policy it acts by."""

import time

import gymnasium as gym
import numpy as np
import pytest
from cartpole_world import served_cartpole
from gymnasium import spaces
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from simservice.client.policy import load_policy
from simservice.client.rllib import (
    SERVED_ENV_ID,
    PPOSettings,
    RolloutEnvRunner,
    local_ray,
    policy_of,
    real_config,
    served_config,
    set_state,
    state_of,
    train_ppo,
)
from simservice.client.rllib.training import _algorithm
from simservice.errors import InvalidInput, ServerUnavailable
from simservice.serving.local import LocalConfig, LocalServer

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:.*gputil.*")]
SHORT = PPOSettings(total_steps=2_048, num_envs=16, rollout_steps=32, epochs=2)

BY_STEPS_AND_BY_ROLLOUTS = pytest.mark.parametrize("rollouts", [False, True], ids=["by-steps", "by-rollouts"])


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served_cartpole(tmp_path_factory.mktemp("worlds")) as address:
        yield address


@pytest.fixture(scope="module")
def connected():
    with local_ray(num_cpus=2):
        yield


@BY_STEPS_AND_BY_ROLLOUTS
def test_ppo_at_least_doubles_its_return_in_a_served_world(address, connected, rollouts):
    settings = PPOSettings(total_steps=16_384)
    made = []
    config = served_config(address, "cartpole", settings, rollouts=rollouts)
    trained = train_ppo(config, settings, progress=made.append)
    first, last = made[0], made[-1]
    assert last.return_mean > 2 * first.return_mean
    assert last.steps >= settings.total_steps
    assert [one.steps for one in made] == sorted(one.steps for one in made)
    assert trained.last == last


@BY_STEPS_AND_BY_ROLLOUTS
def test_the_same_seed_trains_the_same_policy(address, connected, rollouts):
    configs = [served_config(address, "cartpole", SHORT, seed=3, rollouts=rollouts) for _ in range(2)]
    first, second = (train_ppo(config, SHORT) for config in configs)
    for (weight, bias), (again, bias_again) in zip(first.policy.layers, second.policy.layers, strict=True):
        np.testing.assert_array_equal(weight, again)
        np.testing.assert_array_equal(bias, bias_again)


def test_progress_tells_the_seconds_of_sampling_as_they_were(address, connected, monkeypatch):
    measured, made = [], []
    plain = SingleAgentEnvRunner.sample

    def sample(*words, **more):
        began = time.perf_counter()
        time.sleep(0.3 if len(measured) == 1 else 0.0)  # one that is long moves a mean, and not by its length
        found = plain(*words, **more)
        measured.append(time.perf_counter() - began)
        return found

    monkeypatch.setattr(SingleAgentEnvRunner, "sample", sample)
    train_ppo(served_config(address, "cartpole", SHORT), SHORT, progress=made.append)
    assert len(made) == len(measured) == 4
    for count, one in enumerate(made, 1):
        assert sum(measured[:count]) <= one.sampling_s < sum(measured[:count]) + 0.1 * count
        assert one.sampling_s < one.elapsed_s


def test_training_goes_on_from_where_it_was(address, connected):
    trained = train_ppo(served_config(address, "cartpole", SHORT), SHORT)
    with _algorithm(served_config(address, "cartpole", SHORT, seed=9)) as algorithm:
        set_state(algorithm, trained.state)
        for name, value in state_of(algorithm).items():
            np.testing.assert_array_equal(value, trained.state[name])
        observation = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
        np.testing.assert_array_equal(policy_of(algorithm).greedy()(observation), trained.policy.greedy()(observation))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_policy_taken_out_acts_as_rllib_does(env_id, connected, tmp_path):
    settings = PPOSettings(total_steps=512, num_envs=4, rollout_steps=32, epochs=1)
    with _algorithm(real_config(env_id, settings)) as algorithm:
        algorithm.train()
        policy = load_policy(policy_of(algorithm).save(tmp_path / "policy.npz"))
        env = gym.make(env_id)
        observation = np.stack([env.reset(seed=seed)[0] for seed in range(50)])
        module = algorithm.get_module()
        tensors = module.forward_inference({"obs": _torch(module, observation)})["action_dist_inputs"]
        np.testing.assert_allclose(policy.forward(observation), tensors.detach().numpy(), rtol=1e-5, atol=1e-6)
        assert all(env.action_space.contains(action) for action in policy.greedy()(observation))
        env.close()


@BY_STEPS_AND_BY_ROLLOUTS
def test_several_env_runners_share_a_world(address, connected, rollouts):
    settings = PPOSettings(total_steps=1_024, num_envs=8, num_env_runners=1, rollout_steps=64, epochs=1)
    trained = train_ppo(served_config(address, "cartpole", settings, rollouts=rollouts), settings)
    assert trained.last.steps >= 1_024


@pytest.mark.parametrize(("kind", "world"), [(DQNConfig, "steps"), (SACConfig, "pushes")])
def test_off_policy_algorithms_train_on_rollouts(kind, world, save_toy, connected):
    plain = {"observation_space": spaces.Box(-10, 10, (4,), np.float32), "max_episode_steps": 15}
    push = {**plain, "action_space": spaces.Box(-1, 1, (2,), np.float32)}
    with LocalServer(
        [save_toy("steps", spec=plain), save_toy("pushes", spec=push)],
        store_url="memory:",
        config=LocalConfig(grace_s=0.1),
    ) as server:
        config = (
            kind()
            .environment(SERVED_ENV_ID, env_config={"address": server.address, "world": world})
            .env_runners(
                env_runner_cls=RolloutEnvRunner,
                num_env_runners=0,
                num_envs_per_env_runner=8,
                gym_env_vectorize_mode="vector_entry_point",
                rollout_fragment_length=8,
            )
            .learners(num_learners=0)
            .training(train_batch_size=32, num_steps_sampled_before_learning_starts=100)
            .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=64)
            .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
            .debugging(seed=0, log_level="ERROR")
        )
        algorithm = config.build_algo()
        try:
            for _ in range(6):
                result = algorithm.train()
        finally:
            algorithm.stop()
    learned = result["learners"]["default_policy"]
    losses = [value for name, value in learned.items() if name.endswith("loss")]
    assert losses and np.isfinite(losses).all()
    assert result["env_runners"]["num_episodes_lifetime"] >= 8


def test_a_wrong_address_and_too_few_steps_fail_before_anything_starts():
    with pytest.raises(ServerUnavailable):
        served_config("127.0.0.1:1", "cartpole", SHORT, env_config={"connect_timeout_s": 0.5})
    with pytest.raises(InvalidInput, match="less than one batch of 2048"):
        train_ppo(None, PPOSettings(total_steps=100))


def _torch(module, observation):
    parameter = next(module.parameters())
    return parameter.new_tensor(observation)
