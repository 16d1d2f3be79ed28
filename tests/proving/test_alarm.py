"""The alarm of exploitation: an agent that wins only where ends are decided, and not drawn, is found out."""

from dataclasses import replace

import pytest
from careless import Careless
from cartpole_world import cartpole_spec

from simservice.data.collect import RealStepCounter
from simservice.proving.agent import AgentConfig
from simservice.proving.inside import Inside
from simservice.proving.processes import Errand
from simservice.proving.recipes import find
from simservice.types import Provenance
from simservice.worlds import checkpoint, registry

AGENT = AgentConfig(lanes=16, horizon=32, steps=1024, minibatch=256, reward_scale=0.1)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMSERVICE_EXTRA_FAMILIES", "careless:Careless")
    registry.register(Careless)
    spec = replace(cartpole_spec(), family="careless")
    checkpoint.save(Careless(spec), tmp_path / "careless", provenance=Provenance(env_id="CartPole-v1"))
    return tmp_path / "careless"


def test_the_alarm_fires_where_ends_are_decided_and_not_where_they_are_drawn(world, tmp_path):
    inside = Inside(find("rssm-cartpole"), AGENT, (), 22.0, 20, RealStepCounter())
    decided = inside.learn_and_score(Errand(world, 0, tmp_path / "decided", thresholded=True), through=False)
    assert decided["exploited"] == 1
    assert decided["world_return"] == 500 and decided["real_return"] < 250
    drawn = inside.learn_and_score(Errand(world, 0, tmp_path / "drawn"), through=False)
    assert drawn["exploited"] == 0
    assert drawn["world_return"] == pytest.approx(drawn["real_return"], abs=15)
