"""Worlds of pictures on two replicas, the one with the lanes killed within steps: the trajectory is the calm one.

The short form of the lines tokens-catch and diffusion-catch of `make faults`.
"""

import pictures
import pytest
from world_fitting import CATCH, SMALLER, episodes

from simservice.client.session import RemoteSession
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.training.trainer import TrainConfig, train

STEPS, KILLED_AT = 96, (80, 91)  # the first snapshot is taken at the 64th request and kept some steps later


@pytest.fixture(scope="module", params=["tokens", "diffusion"])
def world(request, tmp_path_factory, ray_service):
    env, data = make_environment("simservice.grounds:" + CATCH), episodes(CATCH)
    dataset = Dataset(
        episodes=data,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=CATCH,
        hash=fingerprint(data),
        real_steps=600,
    )
    folder = tmp_path_factory.mktemp("worlds") / request.param
    train(dataset, request.param, folder, config=TrainConfig(overrides=SMALLER[request.param], most_updates=20))
    ray_service.deploy(folder, (2, 2))
    yield folder.name
    ray_service.remove(folder.name)


def test_a_replica_killed_within_a_step_of_a_world_of_pictures_changes_nothing(ray_service, world):
    kills, found = pictures.Kills(ray_service, world, KILLED_AT), []
    for disturbed in (None, kills):
        session = RemoteSession(ray_service.address, world, num_envs=pictures.LANES, patience_s=200.0)
        found.append(pictures.play(session, STEPS, disturbed))
        reconnects = session.reconnects
        session.close()
    assert len(set(kills.killed)) == 2 and reconnects >= 2
    assert pictures.different(*found) == 0
    # What is drawn, and not only what happens to be: other luck gives other frames.
    session = RemoteSession(ray_service.address, world, num_envs=pictures.LANES)
    assert pictures.different(pictures.play(session, STEPS, first_seed=1), found[0]) > STEPS
    session.close()
