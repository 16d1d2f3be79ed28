"""Lines of `make faults` that are quick where little is asked of them: the same code, fewer tries."""

import foreign
import pytest
from crowd import Crowd, difference
from drops import Dropper, episode
from history import violations
from ledger import Ledger, save_ledger
from relay import Relay
from serving_tools import tenants_file

from simservice.client.session import RemoteSession
from simservice.serving.local import LocalConfig, LocalServer
from simservice.worlds import registry

DROPS = 40


@pytest.fixture(scope="module")
def long_ledger(tmp_path_factory):
    registry.register(Ledger)
    folder = save_ledger(tmp_path_factory.mktemp("worlds") / "ledger", max_episode_steps=10**6)
    with LocalServer([folder], config=LocalConfig(grace_s=0.1)) as server:
        yield server.address


def test_drops_within_one_episode_change_nothing(long_ledger):
    with Relay(long_ledger) as relay:
        found, reconnects, raised = episode(relay.address, lambda: relay.drops >= DROPS, 5, Dropper(relay, 5))
    assert not raised
    assert reconnects >= DROPS // 2
    wanted, reconnects, _ = episode(long_ledger, len(found) - 1, 5)
    assert reconnects == 0
    assert found == wanted


def test_a_crowd_over_a_wire_that_drops_keeps_every_rule_of_the_history(long_ledger):
    words = {"sessions": 4, "lanes": 2, "steps": 60, "seed": 1}
    with Crowd(long_ledger, **words) as calm:
        calm.allow(60)
    with Relay(long_ledger) as relay:
        with Crowd(relay.address, **words) as crowd:
            for limit in range(6, 61, 6):
                crowd.allow(limit)
                crowd.wait(4 * (limit - 3))
                relay.cut(reset=limit % 12 == 0)
        assert relay.drops == 10
    assert not crowd.failures
    assert violations(crowd.entries) == []
    assert difference(crowd.played, calm.played) == 0
    assert sum(len(played.stalls_s) for played in crowd.played) >= 10


def test_what_was_done_to_another_session_is_a_difference(long_ledger):
    crowds = [Crowd(long_ledger, sessions=2, lanes=2, steps=10, seed=seed) for seed in (1, 2)]
    for crowd in crowds:
        with crowd:
            crowd.allow(10)
        assert violations(crowd.entries) == []
    assert difference(crowds[0].played, crowds[1].played) == float("inf")


def test_another_tenants_ids_are_answered_like_unknown_ones(toy_folder, tmp_path):
    path, tokens = tenants_file(tmp_path, victim={}, thief={})
    config = LocalConfig(store_url="memory:", grace_s=0.1, tenants=str(path))
    with LocalServer([toy_folder], config=config) as server:
        victim = RemoteSession(server.address, "toy", token=tokens["victim"])
        victim.reset()
        answers, _ = foreign.tries(server.address, tokens["thief"], [victim.token], 100, lambda words, share: None)
        assert foreign.reused_keys(server.address, tokens) == 0
        assert answers["foreign"].pop("OK") == 0
        assert answers["foreign"] == answers["unknown"]
        [text] = answers["unknown"]
        assert text.startswith("NOT_FOUND") and answers["unknown"][text] == 100
        victim.step({"action": victim.contract.spec.action_space.sample()[None]})
        assert victim.reconnects == 0
        victim.close()


def test_times_that_cannot_be_told_apart_separate_by_a_half():
    assert foreign.separation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 0.5
    assert foreign.separation([2.0, 3.0], [0.0, 1.0]) == 1.0
