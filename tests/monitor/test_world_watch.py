"""A watch of one world: what it finds, what it survives, and that its own end changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import toy_reality
from toy_registered import MODULE_ID, MOODY_ID
from watched import Clock, copy_of, learned, probes, watch_of

from simservice.client.reports import report
from simservice.data.collect import collect_episodes
from simservice.errors import InvalidInput, RealEnvironmentFailed
from simservice.monitor.kept import request_acknowledgement
from simservice.monitor.pace import PaceConfig
from simservice.monitor.rig import RealRig, RigConfig
from simservice.monitor.watch_reading import fidelity_reading, watch_reading

CHANGED = RigConfig(env_id=MODULE_ID, attributes={"growth": 1.06})
NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def normal(toy_server, tmp_path_factory):
    return learned(toy_server.address, tmp_path_factory.mktemp("normal"))


@pytest.fixture
def folder(normal, tmp_path):
    return copy_of(normal, tmp_path / "monitor")


def begun(address, folder, **changes):
    """A watch that has read what it knows."""
    watch = watch_of(address, folder, **changes)
    watch._prepare()
    return watch


def state(folder):
    return json.loads((folder / "toy" / "state.json").read_text())


def test_unchanged_reality_stays_ok_and_says_what_it_could_find(toy_server, folder):
    watch = begun(toy_server.address, folder)
    probes(watch, 15)
    reading = watch_reading(watch)
    watch.close()
    assert (reading.state, reading.cause, reading.probes) == ("ok", "nothing", {"probe": 15})
    assert set(reading.log10_evidence) == {"dynamics", "reward", "termination", "served_model", "policy_shift"}
    assert max(reading.log10_evidence.values()) < 3 < min(reading.log10_threshold.values())
    assert 0 < reading.detectable_shift < 1
    assert set(reading.detectable_change) == {"dynamics", "reward"}


def test_a_restart_in_mid_stream_changes_nothing(toy_server, normal, tmp_path):
    whole, parts = copy_of(normal, tmp_path / "whole"), copy_of(normal, tmp_path / "parts")
    watch = begun(toy_server.address, whole, rig=CHANGED)
    probes(watch, 6)
    watch.close()
    for number in range(3):
        watch = begun(toy_server.address, parts, rig=CHANGED)
        if number == 1:  # killed after the probe was played and before it was kept: it is played again, the same
            watch.rig.play([watch.rig.plan(watch.kept.next_probe)])
            watch.close()
            watch = begun(toy_server.address, parts, rig=CHANGED)
        probes(watch, 2)
        watch.close()
    assert state(whole)["reality"] == state(parts)["reality"]
    assert state(whole)["served"] == state(parts)["served"]
    assert state(whole)["next_probe"] == state(parts)["next_probe"] == 6


def test_a_probe_that_is_counted_twice_counts_once(toy_server, folder):
    watch = begun(toy_server.address, folder)
    [episode] = watch.rig.play([watch.rig.plan(0)])
    watch.evidence.count(0, episode, None)
    before = watch.evidence.reality.to_json()
    assert watch.evidence.count(0, episode, None) == []
    assert watch.evidence.reality.to_json() == before
    watch.close()


def test_a_changed_reality_is_found_named_acknowledged_and_the_next_change_is_found_too(toy_server, folder):
    watch = begun(toy_server.address, folder, rig=CHANGED)
    probes(watch, 25)
    found = watch_reading(watch)
    assert found.state == "drift"
    assert found.alarms["dynamics"] == 1
    assert found.cause == "reality"  # the served world no longer fits either
    assert request_acknowledgement(folder, "toy") == 0
    assert request_acknowledgement(folder, "toy") == 0  # asking twice is asking once
    assert watch.obey()
    assert watch_reading(watch).state == "acknowledged"
    watch.close()

    watch = begun(toy_server.address, folder, rig=CHANGED)  # ended while it learned: it goes on learning
    assert watch.kept.dataset == "simservice/monitor-v1"
    probes(watch, 20)
    calm = watch_reading(watch)
    assert (calm.state, calm.epoch, calm.alarms["dynamics"]) == ("ok", 1, 1)
    with pytest.raises(InvalidInput, match="no alarm to acknowledge"):
        request_acknowledgement(folder, "toy")
    watch.close()

    watch = begun(toy_server.address, folder, rig=replace(CHANGED, attributes={"growth": 1.05, "push": 0.13}))
    probes(watch, 25)
    again = watch_reading(watch)
    watch.close()
    assert (again.state, again.alarms["dynamics"], again.epoch) == ("drift", 2, 1)


def test_who_acknowledges_nothing_is_told(tmp_path):
    with pytest.raises(InvalidInput, match="no watch of 'toy'"):
        request_acknowledgement(tmp_path, "toy")


def test_exact_replays_find_a_small_change_in_two_rounds_and_a_spurious_one_alarms_nobody(toy_server, folder):
    watch = begun(toy_server.address, folder, golden_every_s=600.0)
    watch._golden()
    assert (watch.evidence.golden_watch.deviation, watch_reading(watch).state) == (0.0, "ok")
    watch.rig.close()
    watch.rig = RealRig(replace(watch.rig.config, attributes={"growth": 1.0501}))
    watch._golden()
    assert watch_reading(watch).state == "suspect"
    watch._golden()
    reading = watch_reading(watch)
    watch.close()
    assert (reading.state, reading.alarms, reading.cause) == ("drift", {"golden": 1}, "rig")
    assert reading.golden_deviation > 1


def test_reality_is_probed_while_the_service_is_away(toy_server, folder):
    watch = begun(toy_server.address, folder)
    watch.address = NOWHERE
    probes(watch, 1)
    watch.close()
    assert watch.kept.probes == {"probe": 1}
    assert watch.kept.failures["service"] >= 1


@pytest.mark.parametrize("mood", ["hang", "die", "raise"])
def test_an_environment_that_fails_is_counted_and_tried_again(toy_server, folder, tmp_path, mood):
    mind = tmp_path / "mood"
    rig = RigConfig(env_id=MOODY_ID, env_kwargs={"mood": str(mind)}, probe_timeout_s=1.0)
    watch = begun(toy_server.address, folder, rig=rig)
    probes(watch, 1)
    mind.write_text(mood)
    with pytest.raises(RealEnvironmentFailed, match="failed"):
        watch._probe()
    mind.write_text("")
    probes(watch, 1)
    watch.close()
    assert (watch.kept.next_probe, watch.kept.probes["probe"]) == (2, 2)


def test_a_failing_task_is_told_and_the_others_go_on(toy_server, folder, tmp_path):
    mind, clock = tmp_path / "mood", Clock()
    rig = RigConfig(env_id=MOODY_ID, env_kwargs={"mood": str(mind)}, probe_timeout_s=1.0)
    watch = begun(toy_server.address, folder, rig=rig, clock=clock, reports_every_s=1e9)
    mind.write_text("raise")
    watch.step()
    assert watch.kept.failures == {"environment": 1}
    assert watch.step() > 0  # not at once again
    clock.now += 60
    mind.write_text("")
    watch.step()
    watch.close()
    assert watch.kept.probes == {"probe": 1}


def test_a_budget_makes_probes_wait_and_what_was_spent_is_kept(toy_server, folder):
    clock = Clock()
    pace = PaceConfig(every_s=10.0, steps_per_hour=40.0)
    watch = begun(toy_server.address, folder, clock=clock, pace=pace, reports_every_s=1e9)
    for _ in range(10):
        clock.now += max(watch.step(), 10.0)
    watch.close()
    assert watch.kept.probes["probe"] <= 3  # of the ten that were due
    again = watch_of(toy_server.address, folder, clock=clock, pace=pace)
    assert again.pace.left(clock.now) == watch.pace.left(clock.now) < 20


def test_the_last_real_step_is_the_last(toy_server, folder):
    watch = begun(toy_server.address, folder, max_real_steps=1)
    watch.step()
    watch.close()
    assert watch.kept.failures == {"budget": 1}
    assert "probe" not in watch.kept.probes


def test_reports_corroborate_and_never_alarm_alone(toy_server, folder):
    with toy_reality.registered() as env_id:
        lies = collect_episodes(env_id, episodes=40, seed=3, policy="random", attributes={"growth": 1.2})
    watch = begun(toy_server.address, folder)
    report(toy_server.address, "toy", lies)
    watch._reports()
    watch._reports()
    seen = watch_reading(watch)
    assert seen.probes["reported"] == 40
    assert (seen.corroborating_tenants, seen.state, seen.alarms) == (1, "ok", {})
    assert not watch.evidence.suspicious  # one reporter alone is no reason to look harder
    statistics = [watch.evidence.statistics(episode) for episode in lies]
    served = watch._served_statistics(lies)
    for place, one in enumerate(statistics):
        watch.evidence.corroboration.add("another", one, served[place : place + 1])
    agreed = watch_reading(watch)
    assert (agreed.corroborating_tenants, agreed.state, agreed.alarms) == (2, "suspect", {})
    assert agreed.interval_s < 60.0
    watch._save()
    watch.close()
    again = begun(toy_server.address, folder)  # and that outlives a restart
    assert watch_reading(again).corroborating_tenants == 2
    again._reports()
    assert watch_reading(again).probes["reported"] == 40
    again.close()


def test_one_reporter_moves_no_gauge_of_the_others(toy_server, folder):
    watch = begun(toy_server.address, folder)
    [calm] = watch.rig.play([watch.rig.plan(0)])
    corroboration, statistics = watch.evidence.corroboration, watch.evidence.statistics(calm)
    served = watch._served_statistics([calm])
    for name in ("lab", "shop"):
        corroboration.add(name, statistics, served)
    before = corroboration.policy_shift()
    far = replace(calm, observation={"observation": calm.observation["observation"] + np.float32(50)})
    strange = watch._served_statistics([far])
    for _ in range(30):
        corroboration.add("crank", statistics, strange)
    watch.close()
    assert corroboration.policy_shift() <= max(before, 0.1)
    assert corroboration.reporters["crank"].served.reading().log10_evidence["policy_shift"] > 3


def test_the_wrong_environment_is_refused_before_a_real_step(toy_server, tmp_path):
    watch = watch_of(toy_server.address, tmp_path, rig=RigConfig(env_id="CartPole-v1"))
    watch.step()
    reading = watch_reading(watch)
    watch.close()
    assert watch.rig.steps == 0
    assert (reading.failures, reading.state, reading.state_at(0.0)) == ({"other": 1}, "calibrating", "unknown")


def test_other_probes_begin_anew_and_counters_stay(toy_server, folder):
    watch = begun(toy_server.address, folder)
    probes(watch, 2)
    watch.close()
    other = watch_of(toy_server.address, folder, rig=RigConfig(env_id=MODULE_ID, seed=7))
    assert (other.kept.reality, other.kept.dataset, other.kept.probes) == (None, None, {"probe": 2})


def test_the_front_page_is_measured_in_a_process_of_its_own_and_outlives_a_restart(toy_server, folder):
    small = {"episodes": 4, "windows": 24, "copies": 2, "horizon": 20, "lanes": 32, "max_episode_steps": 60}
    small["seed"] = 0  # else the time's: of 38 seeds 14 had too few windows that last for 20 steps
    watch = begun(toy_server.address, folder, fidelity_every_s=3600.0, fidelity=small)
    assert fidelity_reading(watch) is None
    watch._fidelity()
    reading, at = fidelity_reading(watch)
    watch.close()
    assert reading.trust_horizon_steps == 20
    shown = {name for name, value in reading.scores.items()}
    assert {"reward_error_ratio", "out_of_support_ratio", "exploitation_gap_ratio", "policy_rank_spearman"} <= shown
    assert reading.rank_units >= 8
    assert watch.kept.real_steps["fidelity"] > 0
    again = watch_of(toy_server.address, folder, fidelity_every_s=3600.0)
    assert fidelity_reading(again) == (reading, at)
    assert again._due["fidelity"] == at + 3600.0  # a restart measures nothing again
    poor = watch_of(toy_server.address, folder, fidelity_every_s=3600.0, pace=PaceConfig(steps_per_hour=20.0))
    assert poor._due["fidelity"] == at + 3600.0 * watch.kept.real_steps["fidelity"] / 10.0
    assert poor.pace.config.steps_per_hour == 10.0
    assert json.loads((folder / "toy" / "fidelity.json").read_text())["world"].startswith("toy@")
