"""A session that is truly gone, seen by RLlib's EnvRunner: the environment is made again and sampling goes on."""

import asyncio

import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from simservice.client.rllib import PPOSettings, served_config
from simservice.errors import SimserviceError, UnknownSession
from simservice.serving.local import LocalConfig, LocalServer

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:.*gputil.*")]


@pytest.fixture
def server(save_toy):
    folder = save_toy("toy", growth=0.9, spec={"observation_space": spaces.Box(-10, 10, (4,), np.float32)})
    with LocalServer([folder], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        yield server


def forget(server, token):
    """The session is gone from the store, as after its idle time."""
    store = server.service.replicas[0].store

    async def delete():
        await store.delete(token, (await store.record(token)).epoch)

    asyncio.run_coroutine_threadsafe(delete(), server._loop).result()


def test_a_lost_session_is_made_again_and_its_unfinished_episodes_are_dropped(server):
    config = served_config(server.address, "toy", PPOSettings(num_envs=4, rollout_steps=8))
    runner = SingleAgentEnvRunner(config=config)
    assert sum(len(episode) for episode in runner.sample(num_timesteps=32, random_actions=True)) == 32
    lost = runner.env.unwrapped.session
    forget(server, lost.token)
    episodes = runner.sample(num_timesteps=32, random_actions=True)
    assert sum(len(episode) for episode in episodes) == 32
    assert runner.env.unwrapped.session.token != lost.token
    assert lost.closed
    runner.stop()


def test_without_rllibs_restart_the_loss_is_an_error_that_says_what_happened(server):
    config = served_config(server.address, "toy", PPOSettings(num_envs=4, rollout_steps=8))
    runner = SingleAgentEnvRunner(config=config.fault_tolerance(restart_failed_sub_environments=False))
    runner.sample(num_timesteps=32, random_actions=True)
    forget(server, runner.env.unwrapped.session.token)
    with pytest.raises(RuntimeError) as raised:
        runner.sample(num_timesteps=32, random_actions=True)
    assert isinstance(raised.value.__cause__, UnknownSession)
    runner.stop()


@pytest.mark.parametrize("error", [UnknownSession("0" * 32), SimserviceError.from_wire("from the wire", {})])
def test_rllib_finds_the_words_where_it_looks_for_them(error):
    assert error.args[0] == str(error)  # its reset logs args[0], and fails where there is none
