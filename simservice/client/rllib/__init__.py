"""RLlib in served worlds: this package alone, of all that a client has, knows ray."""

from simservice.client.rllib.connectors import ScaledFrames
from simservice.client.rllib.rollout_runner import RolloutEnvRunner
from simservice.client.rllib.training import (
    SERVED_ENV_ID,
    PPOSettings,
    Progress,
    State,
    Trained,
    local_ray,
    policy_of,
    real_config,
    served_config,
    set_state,
    state_of,
    train_ppo,
)

__all__ = [
    "SERVED_ENV_ID",
    "PPOSettings",
    "Progress",
    "RolloutEnvRunner",
    "ScaledFrames",
    "State",
    "Trained",
    "local_ray",
    "policy_of",
    "real_config",
    "served_config",
    "set_state",
    "state_of",
    "train_ppo",
]
