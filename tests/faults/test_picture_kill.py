"""Worlds of pictures on two replicas, the one with the lanes killed within steps: the trajectory is the calm one.

The short form of the lines tokens-catch and diffusion-catch of `make faults`.
"""

import pictures
import pytest
from world_fitting import SMALLER, trained

from simservice.client.session import RemoteSession

STEPS, KILLED_AT = 96, (80, 91)  # the first snapshot is taken at the 64th request and kept some steps later


@pytest.fixture(scope="module", params=["tokens", "diffusion"])
def world(request, tmp_path_factory, ray_service):
    folder = trained(request.param, tmp_path_factory.mktemp("worlds"), SMALLER[request.param], most_updates=20)
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
