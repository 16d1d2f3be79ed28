"""RLModules as RLlib's EnvRunners build them, and their connectors, without an environment and without Ray running."""

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
