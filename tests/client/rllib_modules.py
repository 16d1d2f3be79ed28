"""RLModules as RLlib's EnvRunners build them, and their connectors, without Ray running; episodes held side by side."""

import numpy as np
import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

CONFIGS = {"ppo": PPOConfig, "dqn": DQNConfig, "sac": SACConfig}


def config_of(algorithm, observation_space, action_space, connector=None, **model):
    """An algorithm's configuration over two spaces; `model` are fields of DefaultModelConfig."""
    config = CONFIGS[algorithm]().environment(observation_space=observation_space, action_space=action_space)
    config.rl_module(model_config=DefaultModelConfig(**model))
    if connector is not None:
        config.env_runners(env_to_module_connector=lambda env=None, spaces=None, device=None: connector())
    return config


def built(config):
    """(module, env-to-module pipeline) of a configuration."""
    single = config.observation_space, config.action_space
    spaces = {"__env__": single, "__env_single__": single}
    pipeline = config.build_env_to_module_connector(spaces=spaces)
    spaces["default_policy"] = pipeline.observation_space, config.action_space
    return config.get_rl_module_spec(spaces=spaces, inference_only=True).build(), pipeline


def assert_same(ours, theirs, tolerance=0.0):
    """Two lists of episodes are the same to a learner; each has ids of its own."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        mine.validate()
        assert (mine.t_started, mine.t, len(mine)) == (other.t_started, other.t, len(other))
        assert (mine.is_terminated, mine.is_truncated) == (other.is_terminated, other.is_truncated)
        for name in ("observations", "actions", "rewards"):
            my, their = getattr(mine, name), getattr(other, name)
            np.testing.assert_allclose(my.data, their.data, rtol=tolerance, atol=tolerance)
            assert (my.data.dtype, my.data.shape) == (their.data.dtype, their.data.shape)
            assert (my.lookback, my.space, my.finalized) == (their.lookback, their.space, their.finalized)
        assert len(mine.infos.data) == len(other.infos.data)
        for my_info, their_info in zip(mine.infos.data, other.infos.data, strict=True):
            for name, value in my_info.items():
                assert value == pytest.approx(their_info[name])
        assert (mine.infos.lookback, mine.infos.finalized) == (other.infos.lookback, other.infos.finalized)
        assert (mine.observation_space, mine.action_space) == (other.observation_space, other.action_space)
        assert mine.get_return() == pytest.approx(other.get_return(), abs=1e-9 + tolerance)
