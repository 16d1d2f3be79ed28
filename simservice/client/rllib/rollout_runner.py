"""RLlib's EnvRunner for served worlds that leaves the steps to the server: one request for a whole rollout.

The policy goes to the world instead of observations coming to the policy: the module's graph is put once, its weights
whenever they have changed, and trajectories come back in parts. All else (configuration, weights, checkpoints,
restarts) is RLlib's SingleAgentEnvRunner, which this is.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from simservice.client.opening import FINAL
from simservice.client.policies import PolicyShelf
from simservice.client.rllib.connectors import check_acting, reading
from simservice.client.rllib.episodes import Cut, EpisodeCutter, Rows
from simservice.client.rllib.export import export_policy
from simservice.client.rllib.upload import Uploader
from simservice.client.vector_env import RemoteVectorEnv
from simservice.errors import InvalidInput, SimserviceError, UnknownPolicy
from simservice.types import Array, Imagine, Imagined, PolicyUse, to_leaves

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # RLlib deprecates parts of itself while it is imported
    from ray.rllib.callbacks.callbacks import RLlibCallback
    from ray.rllib.callbacks.utils import make_callback
    from ray.rllib.core.columns import Columns
    from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode
    from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

log = logging.getLogger(__name__)

EPISODE_ROWS = 128  # asked for at once while whole episodes are waited for
UNHEARD = ("on_episode_created", "on_episode_start", "on_episode_step")
"""Callbacks of single steps and beginnings: nobody is there to make them while the server plays."""

INFOS = ("uncertainty", "distrusted", "world_error")
ROLLOUT_TIMER, POLICY_TIMER, EPISODES_TIMER = "rollout_timer", "policy_upload_timer", "episodes_timer"


class RolloutEnvRunner(SingleAgentEnvRunner):  # type: ignore[misc]
    """config.env_runners(env_runner_cls=RolloutEnvRunner): samples by rollouts that the server plays with the module.

    For a served world ("simservice/World-v0" with gym_env_vectorize_mode="vector_entry_point"), the default modules of
    PPO, DQN and SAC that are not recurrent, and connectors that connectors.py knows; anything else is refused with
    InvalidInput when the runner is made. It returns what SingleAgentEnvRunner returns, but for two things: all of a
    rollout has the epsilon (DQN) of its first step, and actions are drawn by the lanes' own luck.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._needs_initial_reset: bool
        self._finished: list[tuple[int, float, float]] = []  # length, return and seconds of episodes, for metrics
        if self.env is None:
            return
        try:
            self._prepare()
        except BaseException:
            self.env.close()  # nobody gets this runner, who could stop it
            raise

    def _prepare(self) -> None:
        check_callbacks(self.config)
        check_acting(self._module_to_env)
        space = self.env.single_observation_space
        self._reading = reading(self._env_to_module, space)
        self._graph = export_policy(self.module, self._reading.observe)
        address, token, tls, _ = self._session.door
        self._uploader = Uploader(PolicyShelf(address, self._session.world, token=token, tls=tls), self._graph)
        action_space = self.env.single_action_space
        lookback = self.config.episode_lookback_horizon
        self._cutter = EpisodeCutter(self.num_envs, self._reading.space, action_space, lookback)

    def make_env(self) -> None:
        """Opens a session of the served world, in place of the one there was."""
        super().make_env()
        remote = self.env.unwrapped
        if not isinstance(remote, RemoteVectorEnv) or remote.session.autoreset_mode is not AutoresetMode.NEXT_STEP:
            found = f"{type(remote).__name__} in mode {remote.metadata.get('autoreset_mode')}"
            self.env.close()
            raise InvalidInput(
                "environment",
                f"is a {found}; rollouts are played in served worlds (gym_env_vectorize_mode='vector_entry_point') "
                "under autoreset mode NEXT_STEP. To evaluate in another environment override env_runner_cls with "
                "RLlib's SingleAgentEnvRunner there",
            )
        self._session = remote.session

    # ---- sampling ------------------------------------------------------------------------------------------------

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        """Steps or episodes as SingleAgentEnvRunner counts them; called by sample()."""
        began = time.monotonic()
        if force_reset or num_episodes is not None or self._needs_initial_reset:
            self._begin()
        done: list[SingleAgentEpisode] = []
        steps = ended = rows = 0
        while steps < num_timesteps if num_timesteps is not None else ended < (num_episodes or 0):
            wanted = EPISODE_ROWS if num_timesteps is None else math.ceil((num_timesteps - steps) / self.num_envs)
            try:
                part = self._play(wanted, explore, random_actions, steps)
            except FINAL as error:
                done += self._cut().done
                steps, ended = 0, len(done)
                self._start_over(error)
                continue
            more, ends = self._cutter.add(part)
            steps, ended, rows = steps + more, ended + ends, rows + len(part)
        cut = self._cut((time.monotonic() - began) / max(1, rows))
        done += cut.done
        ongoing = cut.ongoing
        if num_episodes is not None:
            self._needs_initial_reset = True
            done, ongoing = done[:num_episodes], []
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        self._increase_sampled_metrics(steps, len(done))
        return done + ongoing

    def _play(self, rows: int, explore: bool, random_actions: bool, steps: int) -> Rows:
        """The next rows of all lanes, at most so many as one request may ask for."""
        rows = max(1, min(rows, self._most_rows()))
        if random_actions:
            with self.metrics.log_time(ROLLOUT_TIMER):
                actions = self._random_actions(rows)
                whole = self._session.imagine(Imagine(steps=rows, actions=actions, advance=True))
                return self._rows(whole, actions)
        use = PolicyUse(
            content_hash=self._put_policy(),
            greedy=not explore,
            epsilon=self._epsilon(steps) if explore else 0.0,
            clip_only=not self.config.normalize_actions,
        )
        command = Imagine(steps=rows, policy=use, advance=True, outputs=self._graph.head == Columns.ACTION_DIST_INPUTS)
        with self.metrics.log_time(ROLLOUT_TIMER):
            try:
                return self._rows(self._session.imagine(command))
            except UnknownPolicy:  # expired since it was put; nothing was played
                self._uploader.forget()
                again = replace(use, content_hash=self._put_policy())
                return self._rows(self._session.imagine(replace(command, policy=again)))

    def _put_policy(self) -> str:
        """The name of the policy that the module is now, which the server has."""
        with self.metrics.log_time(POLICY_TIMER):
            return self._uploader.put(self.module.get_state())

    def _most_rows(self) -> int:
        """What one rollout's answer has room for, over all lanes."""
        limits = self._session.contract.limits
        leaves = (*self._session.observation_leaves, *self._session.action_leaves)
        lane_bytes = 64 + sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
        lane_bytes += 4 * self._graph.width + sum(4 * math.prod(leaf.shape) for leaf in self._session.action_leaves)
        return int(min(limits.max_rollout_steps, limits.max_rollout_bytes // (self.num_envs * lane_bytes)))

    def _epsilon(self, steps: int) -> float:
        """DQN's share of random actions where the training is now, by RLlib's count of steps."""
        if not hasattr(self.module, "epsilon_schedule"):
            return 0.0
        runners = self.config.num_env_runners or 1
        self.module.epsilon_schedule.update((self.num_env_steps_sampled_lifetime // runners + steps) * runners)
        return float(self.module.epsilon_schedule.get_current_value())

    def _random_actions(self, rows: int) -> dict[str, Array]:
        """Drawn by Gymnasium's own generator, as RLlib's runner does it; (rows, lanes, ...) by leaf."""
        drawn = batch_space(self.env.single_action_space, rows * self.num_envs).sample()
        leaves = to_leaves(self.env.single_action_space, drawn, "action")
        return {path: array.reshape(rows, self.num_envs, *array.shape[1:]) for path, array in leaves.items()}

    def _rows(self, part: Imagined, actions: dict[str, Array] | None = None) -> Rows:
        """A rollout in RLlib's words."""
        assert part.observation is not None
        flat = {path: array.reshape(-1, *array.shape[2:]) for path, array in part.observation.items()}
        stored = self._reading.stored(flat)
        outputs = dict(part.outputs or {})
        taken = actions or part.action or {}
        action = outputs.pop("raw_action", None)
        if action is None:
            action = taken["action"]
        if isinstance(self.env.single_action_space, spaces.Discrete):
            action = action.astype(np.int32)  # as RLlib's tensors become when they are arrays
        if part.log_probability is not None and self._graph.head == Columns.ACTION_DIST_INPUTS:
            outputs[Columns.ACTION_LOGP] = part.log_probability
        outputs[WEIGHTS_SEQ_NO] = np.broadcast_to(np.int64(self._weights_seq_no), part.reward.shape)
        infos = {name: value for name in INFOS if (value := getattr(part, name)) is not None}
        return Rows(
            observation=stored.reshape(len(part), self.num_envs, *stored.shape[1:]),
            action=action,
            reward=part.reward,
            terminated=part.terminated,
            truncated=part.truncated,
            outputs=outputs,
            infos=infos,
        )

    def stop(self) -> None:
        """Closes the session and the connection for policies."""
        super().stop()
        if self.env is not None:
            self._uploader.close()

    # ---- beginnings and ends -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """New episodes in all lanes; seeded only the first time, as RLlib's runner does it."""
        observation, _ = self._try_env_reset(seed=self._seed if self._needs_initial_reset else None)
        self._needs_initial_reset = False
        leaves = to_leaves(self.env.single_observation_space, observation, "observation")
        self._cutter.begin(self._reading.stored(leaves))

    def _start_over(self, error: SimserviceError) -> None:
        """After a session was lost: another one, where the configuration allows it. Unfinished episodes are dropped.

        Only then: RLlib's own runner begins anew after any error, and for ever where one comes each time.
        """
        self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
        if not self.config.restart_failed_sub_environments:
            raise RuntimeError(
                f"a rollout failed, and restart_failed_sub_environments is not set, which would begin anew: {error}"
            ) from error
        log.warning("a rollout failed and its environments are made anew: %s", error)
        self.make_env()
        self._begin()

    def _cut(self, row_s: float = 0.0) -> Cut:
        """Episodes and chunks of what was played since the last cut; the finished ones are counted and told."""
        with self.metrics.log_time(EPISODES_TIMER):
            cut = self._cutter.cut()
        seconds = cut.lengths * row_s
        self._finished += zip(cut.lengths.tolist(), cut.returns.tolist(), seconds.tolist(), strict=True)
        if listens(self.config, "on_episode_end"):
            for episode, lane in zip(cut.done, cut.lanes.tolist(), strict=True):
                self._tell_end(episode, lane)
        return cut

    def _tell_end(self, episode: SingleAgentEpisode, lane: int) -> None:
        make_callback(
            "on_episode_end",
            callbacks_objects=self._callbacks,
            callbacks_functions=self.config.callbacks_on_episode_end,
            kwargs={
                "episode": episode,
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env.unwrapped,
                "rl_module": self.module,
                "env_index": lane,
                "prev_episode_chunks": [],  # they have been given away
            },
        )

    def get_metrics(self) -> Any:
        """RLlib's metrics of all that was finished since the last call."""
        # Means, minima and maxima are over a window of the latest: what fell out of it need not be told.
        window = math.ceil(self.config.metrics_num_episodes_for_smoothing / (self.config.num_env_runners or 1))
        for length, total, seconds in self._finished[-max(1, window) :]:
            self._log_episode_metrics(length, total, seconds)
        self._finished.clear()
        return self.metrics.reduce()


def listens(config: Any, name: str) -> bool:
    """Whether a configuration has a callback of this name."""
    kinds = config.callbacks_class
    every = kinds if isinstance(kinds, list | tuple) else [kinds]
    return bool(getattr(config, f"callbacks_{name}")) or any(
        getattr(kind, name) is not getattr(RLlibCallback, name) for kind in every
    )


def check_callbacks(config: Any) -> None:
    """InvalidInput names the callback that nobody could make while the server plays."""
    for name in UNHEARD:
        if listens(config, name):
            raise InvalidInput(
                "callbacks",
                f"{name} would be made in every lane while the server plays a rollout; use on_episode_end or "
                "on_sample_end, or sample with RLlib's own SingleAgentEnvRunner",
            )
