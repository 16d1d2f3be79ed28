"""PPO on RLlib in a served world or in a real environment, and its way out as a plain policy.

RLlib's new API stack, one vectorised environment an EnvRunner: one message a step for all its lanes. RLlib expects
autoreset mode NEXT_STEP, which is the served worlds' default.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.client.access import Token
from simservice.client.policy import Policy, check_spaces
from simservice.client.registration import ENV_ID
from simservice.client.rllib.rollout_runner import RolloutEnvRunner
from simservice.errors import InvalidInput
from simservice.types import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # RLlib deprecates parts of itself while it is imported
    import ray
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.utils.metrics import ENV_RUNNER_SAMPLING_TIMER, TIMERS

SERVED_ENV_ID = f"simservice.client:{ENV_ID}"  # Gymnasium imports what stands before the colon, in every EnvRunner
REMOVE_PATIENCE_S = 10.0
START_ATTEMPTS = 3  # Ray gives itself 30 s to start, which a busy machine may not keep
State = dict[str, Array]
"""All weights of the learning module, critic included; what a later training can start from."""


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Tuned on the true CartPole dynamics behind the same interface, never on a learned world (see decisions.md)."""

    total_steps: int = 57_344
    num_envs: int = 64  # lanes of one EnvRunner
    num_env_runners: int = 0  # 0: the learner's process steps the lanes itself, the fastest on few cores
    rollout_steps: int = 32  # of every lane between two updates
    epochs: int = 10
    minibatch_size: int = 512
    learning_rate: float = 2e-3  # annealed to final_learning_rate, so the last policy is a stable one
    final_learning_rate: float = 2e-5
    gamma: float = 0.98
    gae_lambda: float = 0.9
    clip: float = 0.2
    entropy: float = 0.0
    value_weight: float = 0.5
    gradient_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)

    @property
    def batch_size(self) -> int:
        """Steps between two updates, over all lanes of all EnvRunners."""
        return self.num_envs * self.rollout_steps * max(1, self.num_env_runners)


@dataclass(frozen=True)
class Progress:
    """How far a training is; return_mean is over the latest finished episodes (NaN before the first)."""

    steps: int
    total_steps: int
    return_mean: float
    elapsed_s: float
    sampling_s: float  # of elapsed_s, spent stepping environments


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the policy to act with, and the whole state to go on from."""

    policy: Policy
    state: State
    last: Progress


@contextlib.contextmanager
def local_ray(num_cpus: int = 1, folder: Path | None = None) -> Iterator[None]:
    """A small Ray of this process's own, unless one is connected already; ends with its processes and its files.

    `folder` holds Ray's session files (default: a temporary one); its path must be short, since sockets lie in it.
    """
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="sim-agent-", dir="/tmp"))
        stack.callback(_remove, folder)
        stack.callback(ray.shutdown)
        _start_ray(num_cpus, folder)
        yield


def _remove(folder: Path) -> None:
    """Ray's processes may write their last words for a moment after shutdown() has returned."""
    deadline = time.monotonic() + REMOVE_PATIENCE_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)


def _start_ray(num_cpus: int, folder: Path) -> None:
    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=96 * 2**20,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(folder),
                _node_ip_address="127.0.0.1",
            )
            return
        except Exception as error:  # Ray has no class of its own for it
            if "timed out during startup" not in str(error) or not attempts_left:
                raise
            ray.shutdown()


def served_config(
    address: str,
    world: str,
    settings: PPOSettings,
    *,
    seed: int = 0,
    env_config: Mapping[str, Any] | None = None,
    rollouts: bool = False,
) -> PPOConfig:
    """PPO in the world `name` or `name@version` served at `address`; env_config adds arguments of the environment.

    With `rollouts` the policy goes to the server and plays there (RolloutEnvRunner); otherwise every step is a message.
    """
    arguments = {"address": address, "world": world, **(env_config or {})}
    if isinstance(token := arguments.get("token"), str):
        arguments["token"] = Token(token)  # RLlib prints its configuration
    config = _config(SERVED_ENV_ID, arguments, "vector_entry_point", settings, seed)
    if rollouts:
        config.env_runners(env_runner_cls=RolloutEnvRunner)
    # A session that is truly lost: RLlib drops the unfinished episodes and makes the environment again.
    return config.fault_tolerance(restart_failed_sub_environments=True, restart_failed_env_runners=True)


def real_config(
    env_id: str,
    settings: PPOSettings,
    *,
    seed: int = 0,
    env_config: Mapping[str, Any] | None = None,
    vectorization: Literal["sync", "vector_entry_point"] = "sync",
) -> PPOConfig:
    """The same PPO in a registered environment that runs in this process, or in each EnvRunner's."""
    return _config(env_id, dict(env_config or {}), vectorization, settings, seed)


def train_ppo(
    config: PPOConfig,
    settings: PPOSettings,
    *,
    start: State | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Trains to the last update that fits settings.total_steps, from `start` or from fresh weights.

    Deterministic for a seed with num_env_runners=0. Ray must be connected (see local_ray).
    """
    rounds = settings.total_steps // settings.batch_size
    if rounds < 1:
        problem = f"{settings.total_steps} is less than one batch of {settings.batch_size} steps"
        raise InvalidInput("total_steps", problem + "; ask for more, or take fewer num_envs or rollout_steps")
    with _algorithm(config) as algorithm:
        if start is not None:
            set_state(algorithm, start)
        # Made before RLlib makes it, which would keep a moving mean.
        algorithm.metrics.log_value((TIMERS, ENV_RUNNER_SAMPLING_TIMER), 0.0, reduce="lifetime_sum")
        began = time.monotonic()
        last = Progress(0, settings.total_steps, float("nan"), 0.0, 0.0)
        for _ in range(rounds):
            result = algorithm.train()
            runners = result["env_runners"]
            last = Progress(
                steps=int(runners["num_env_steps_sampled_lifetime"]),
                total_steps=settings.total_steps,
                return_mean=_known(runners.get("episode_return_mean"), last.return_mean),
                elapsed_s=time.monotonic() - began,
                sampling_s=float(result[TIMERS][ENV_RUNNER_SAMPLING_TIMER]),
            )
            if progress is not None:
                progress(last)
        return Trained(policy_of(algorithm), state_of(algorithm), last)


def policy_of(algorithm: Algorithm) -> Policy:
    """The acting half of a trained PPO algorithm as plain arrays; its greedy action is RLlib's own.

    Holds for default PPO modules over a Box with a Discrete or Box action space; InvalidInput otherwise.
    """
    state = {name: np.array(value) for name, value in algorithm.get_module().get_state().items()}
    settings = algorithm.config.model_config
    activation = settings["fcnet_activation"] if isinstance(settings, dict) else settings.fcnet_activation
    environment = algorithm.env_runner_group.get_spaces()["__env_single__"]
    action_space = check_spaces(*environment)
    names = sorted(
        (name.removesuffix(".weight") for name in state if name.endswith(".weight") and "critic" not in name),
        key=lambda name: (not name.startswith("encoder."), int(name.rpartition(".")[2])),
    )
    names = [name for name in names if not name.startswith("vf.")]
    layers = tuple((state[f"{name}.weight"], state[f"{name}.bias"]) for name in names)
    if activation not in ("tanh", "relu"):
        raise InvalidInput("fcnet_activation", f"{activation!r} has no numpy twin; take tanh or relu")
    return Policy(layers, action_space, activation)


def state_of(algorithm: Algorithm) -> State:
    """Weights of actor and critic."""
    modules = algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"]
    return {name: np.array(value) for name, value in modules["default_policy"].items()}


def set_state(algorithm: Algorithm, state: State) -> None:
    """Puts weights of state_of into a fresh algorithm: its learner and its EnvRunners."""
    algorithm.set_state({"learner_group": {"learner": {"rl_module": {"default_policy": dict(state)}}}})
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)


@contextlib.contextmanager
def _algorithm(config: PPOConfig) -> Iterator[Algorithm]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it announces its API stack with a warning
        algorithm = config.build_algo()
        try:
            yield algorithm
        finally:
            algorithm.stop()
            with contextlib.suppress(OSError):  # RLlib makes a folder under ~/ray_results for each algorithm
                Path(algorithm.logdir).rmdir()


def _config(environment: str, arguments: dict[str, Any], mode: str, settings: PPOSettings, seed: int) -> PPOConfig:
    squeezed = isinstance(_action_space(environment, arguments), spaces.Box)
    learning_rate = [[0, settings.learning_rate], [settings.total_steps, settings.final_learning_rate]]
    return (
        PPOConfig()
        .environment(environment, env_config=arguments, normalize_actions=squeezed, clip_actions=False)
        .env_runners(
            num_env_runners=settings.num_env_runners,
            num_envs_per_env_runner=settings.num_envs,
            gym_env_vectorize_mode=mode,
            rollout_fragment_length=settings.rollout_steps,
        )
        .learners(num_learners=0)
        .training(
            lr=learning_rate,
            train_batch_size=settings.batch_size,
            minibatch_size=min(settings.minibatch_size, settings.batch_size),
            num_epochs=settings.epochs,
            gamma=settings.gamma,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip,
            entropy_coeff=settings.entropy,
            vf_loss_coeff=settings.value_weight,
            vf_clip_param=float("inf"),
            grad_clip=settings.gradient_norm,
            use_kl_loss=False,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(settings.hidden), fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def _action_space(environment: str, arguments: Mapping[str, Any]) -> gym.Space[Any]:
    """Asks one environment; so a wrong address or world fails here, in our words, and not inside an EnvRunner."""
    probe: gym.Env[Any, Any] = gym.make(environment, **arguments)
    try:
        return check_spaces(probe.observation_space, probe.action_space)
    finally:
        probe.close()  # type: ignore[no-untyped-call]


def _known(value: float | None, before: float) -> float:
    """RLlib forgets the return while no episode ends, as with a policy whose episodes are long."""
    return before if value is None or np.isnan(value) else float(value)
