"""What every family of worlds promises, tried on all that are registered."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from world_fitting import (
    CART_POLE,
    OF_PICTURES,
    UPDATES_TO_KNOW_PHYSICS,
    actions,
    begin,
    drawn,
    environments,
    episodes,
    fitted,
    rows,
    run,
    same,
    spec,
)

from simservice.data.collect import collect
from simservice.types import Provenance, leaves_of
from simservice.worlds import registry
from simservice.worlds.checkpoint import load, save
from simservice.worlds.codec import torch_dtype

FAMILIES = [name for name in registry.names() if name != "toy"]  # the toy has a space of its own and no data
CASES = [(family, env_id) for family in FAMILIES for env_id in environments(family)]


@pytest.fixture(scope="module")
def worlds():
    """Every family fitted to every environment, made when first asked for."""
    made = {}

    def get(family, env_id):
        if (family, env_id) not in made:
            made[family, env_id] = fitted(family, env_id, episodes(env_id))
        return made[family, env_id]

    return get


def case(family, env_id):
    """A name that may be a folder's."""
    return f"{family}-{env_id.rpartition('/')[2]}"


@pytest.fixture(params=CASES, ids=[case(family, env_id) for family, env_id in CASES])
def world(request, worlds):
    return worlds(*request.param)


def copied(values):
    return {name: value.clone() for name, value in values.items()}


def storages(values):
    return {value.untyped_storage().data_ptr() for value in values.values()}


def calls(world, lanes=16):
    """Each pure function with arguments for it: (name, function, argument dicts)."""
    seeds = torch.arange(lanes)
    state = begin(world, seeds)
    acted = actions(world, lanes)
    yield "init", world.init, [drawn(world, "init", seeds, 0)]
    yield "step", lambda *a: world.step(*a), [state, acted, drawn(world, "step", seeds, 1)]
    yield "emit", world.emit, [state]
    if "context" in world.spec.capabilities:
        first = {"is_first": torch.ones(lanes, dtype=torch.bool)}
        frame = world.emit(state)

        def observe(state, frame, acted, first, draws):
            return world.observe(state, frame, acted, first["is_first"], draws)

        yield "observe", observe, [state, frame, acted, first, drawn(world, "observe", seeds, 0)]


def flat(result):
    """The tensors of a call's result by name."""
    if isinstance(result, tuple):
        state, out = result
        fields = {f"out.{k}": v for k, v in out._asdict().items() if k != "aux"}
        return {**state, **fields, **{f"aux.{k}": v for k, v in out.aux.items()}}
    return result


# ---- pure functions of rows ------------------------------------------------------------------------------------------


def test_calls_leave_their_arguments_alone_and_give_the_same_twice(world):
    for name, function, arguments in calls(world):
        kept = [copied(argument) for argument in arguments]
        first, second = flat(function(*arguments)), flat(function(*arguments))
        assert same(first, second), name
        assert all(same(a, b) for a, b in zip(arguments, kept, strict=True)), name


def test_results_share_no_storage_with_arguments_or_weights(world):
    weights = {**dict(world.named_buffers()), **dict(world.named_parameters())}
    for name, function, arguments in calls(world):
        given = set().union(*(storages(argument) for argument in (*arguments, weights)))
        assert not storages(flat(function(*arguments))) & given - {0}, name


def test_states_have_the_layout_of_slots_and_observations_the_spaces(world):
    lanes = 16
    for name, function, arguments in calls(world, lanes):
        result = function(*arguments)
        if name == "emit":
            seen = leaves_of(world.spec.observation_space, "observation")
            expected = {leaf.path: ((lanes, *leaf.shape), torch_dtype(leaf.dtype)) for leaf in seen}
        else:
            result = result[0] if isinstance(result, tuple) else result
            expected = {key: ((lanes, *slot.shape), slot.dtype) for key, slot in world.slots.items()}
        assert {key: (tuple(value.shape), value.dtype) for key, value in result.items()} == expected, name
    zeros = world.allocate(3)
    assert {k: v.shape for k, v in zeros.items()} == {k: (3, *slot.shape) for k, slot in world.slots.items()}


def test_starts_lie_in_the_observation_space(world):
    seen = world.emit(begin(world, torch.arange(64)))
    for leaf in leaves_of(world.spec.observation_space, "observation"):
        assert all(leaf.space.contains(row) for row in seen[leaf.path].numpy())


def test_a_step_says_reward_end_and_uncertainty_in_their_ranges(world):
    seeds = torch.arange(64)
    _, trace = run(world, begin(world, seeds), seeds, [actions(world, 64, t) for t in range(20)])
    for out in trace:
        assert out["reward"].shape == (64,) and out["reward"].dtype in (torch.float32, torch.float64)
        assert out["reward"].isfinite().all()
        probability = out["termination_probability"]
        assert probability.shape == (64,) and probability.dtype == torch.float32
        assert (probability >= 0).all() and (probability <= 1).all()
        assert out["terminated"].shape == (64,) and out["terminated"].dtype == torch.bool
        assert not out["terminated"][probability == 0].any() and out["terminated"][probability == 1].all()
        uncertainty = out["uncertainty"]
        assert uncertainty.shape == (64,) and uncertainty.dtype == torch.float32
        if "uncertainty" in world.spec.capabilities:
            assert (uncertainty >= 0).all() and uncertainty.isfinite().all()
        else:
            assert uncertainty.isnan().all()


def test_three_hundred_steps_stay_finite(world):
    seeds = torch.arange(16)
    _, trace = run(world, begin(world, seeds), seeds, [actions(world, 16, t) for t in range(300)])
    for out in trace:
        assert all(value.isfinite().all() for name, value in out.items() if name != "uncertainty")


def test_a_context_replaces_what_was_before(world):
    if "context" not in world.spec.capabilities:
        pytest.skip(f"{world.family} takes no context here")
    seeds = torch.arange(16)
    frame = recorded(world) if world.family in OF_PICTURES else world.emit(begin(world, seeds))
    acted, first = actions(world, 16), torch.ones(16, dtype=torch.bool)
    draws = drawn(world, "observe", seeds, 0)
    fresh = world.observe(world.allocate(16), frame, acted, first, draws)
    used = world.observe(begin(world, seeds + 99), frame, actions(world, 16, 5), first, draws)
    assert same(fresh, used)
    for path, seen in world.emit(fresh).items():
        missed = seen.double() - frame[path].double()
        if world.family in OF_PICTURES:  # they show what they make of a frame; some pixels are lost, the frame is not
            others = seen.double() - frame[path].double().roll(8, 0)
            assert (missed.square().flatten(1).mean(1) < others.square().flatten(1).mean(1)).all()
        else:
            assert (missed.abs() <= 0.1 * frame[path].double().std(0) + 1e-6).all()


def recorded(world):
    """Sixteen different frames of the data that the world was fitted to."""
    env_id = next(env_id for family, env_id in CASES if spec(family, env_id).name == world.spec.name)
    frames = np.concatenate([episode.observation["observation"] for episode in episodes(env_id)])
    return {"observation": torch.from_numpy(np.unique(frames, axis=0)[:: len(np.unique(frames, axis=0)) // 16][:16])}


def test_caches_are_made_again_as_they_were(world):
    caches = {name for name, slot in world.slots.items() if slot.role == "kv"}
    if not caches:
        pytest.skip(f"{world.family} keeps no caches")
    seeds = torch.arange(16)
    state = begin(world, seeds)
    for steps in (0, 1, 9):  # fewer than any memory holds, and more
        state, _ = run(world, state, seeds, [actions(world, 16, t) for t in range(steps)])
        kept = {name: torch.zeros_like(value) if name in caches else value for name, value in state.items()}
        assert same(world.rebuild(kept), state), steps
    untouched = world.allocate(16)
    assert same(world.rebuild(untouched), untouched)


# ---- a lane's luck is its own ----------------------------------------------------------------------------------------


def trace_of_lane(world, seed, position, companions, bucket):
    """What one lane lives through at a position among `companions` (their first seed) in a batch of `bucket`."""
    seeds = torch.arange(companions, companions + bucket)
    seeds[position] = seed
    own = [actions(world, 1, 1000 + t)["action"] for t in range(12)]
    acts = [actions(world, bucket, companions + t) for t in range(12)]
    for act, mine in zip(acts, own, strict=True):
        act["action"][position] = mine[0]
    state, trace = run(world, begin(world, seeds), seeds, acts)
    return [rows(out, position) for out in [*trace, state]]


@pytest.mark.parametrize("bucket", [16, 64])
def test_a_lane_does_not_feel_its_companions_or_its_place(world, bucket):
    alone = trace_of_lane(world, 7, 0, 100, bucket)
    for position, companions in ((0, 500), (1, 100), (bucket // 2 - 1, 900), (bucket - 1, 300)):
        beside = trace_of_lane(world, 7, position, companions, bucket)
        assert all(same(a, b) for a, b in zip(alone, beside, strict=True)), (position, companions)


def test_batches_of_other_sizes_agree_up_to_rounding(world):
    small, large = trace_of_lane(world, 7, 3, 100, 16), trace_of_lane(world, 7, 40, 200, 64)
    for a, b in zip(small, large, strict=True):
        for name in a:
            assert torch.allclose(a[name].double(), b[name].double(), rtol=1e-4, atol=1e-5, equal_nan=True), name


def test_forks_with_the_same_luck_agree_and_leave_the_parent_alone(world):
    seeds = torch.arange(16)
    parent, _ = run(world, begin(world, seeds), seeds, [actions(world, 16, t) for t in range(3)])
    kept = copied(parent)
    children = rows(parent, torch.full((16,), 5))
    luck = torch.full((16,), 77)
    acts = [{"action": actions(world, 1, t)["action"].repeat_interleave(16, 0)} for t in range(10)]
    state, _ = run(world, children, luck, acts)
    assert all(same(rows(state, 0), rows(state, lane)) for lane in range(16))
    assert same(parent, kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_forks_with_other_luck_part_where_the_world_is_stochastic(family, worlds):
    world = worlds(family, environments(family)[0])
    if not world.draws["step"]:
        pytest.skip(f"a step of {family} draws nothing")
    starts = begin(world, torch.arange(16))
    acts = [actions(world, 16, t) for t in range(60)]
    one, other = (run(world, starts, torch.arange(16) + luck, acts)[1] for luck in (100, 200))
    assert not all(same(a, b) for a, b in zip(one, other, strict=True))


# ---- rows and worlds as bytes ----------------------------------------------------------------------------------------

IN_A_NEW_PROCESS = """
import json, sys
from pathlib import Path
import gymnasium
from safetensors.torch import load_file, save_file

sealed = json.loads(sys.argv[2])
from simservice.worlds.checkpoint import load
sys.path.insert(0, sys.argv[3])
from world_fitting import run, same

def no_reality(*args, **kwargs):
    raise AssertionError("a learned world asked for the real environment")

make = gymnasium.make
for folder in sorted(Path(sys.argv[1]).iterdir()):
    gymnasium.make = no_reality if sealed[folder.name] else make
    world = load(folder / "world").world
    given = load_file(folder / "given.safetensors")
    state = {name[6:]: value for name, value in given.items() if name.startswith("state.")}
    acts = [{"action": act} for act in given["actions"]]
    state, trace = run(world, state, given["seeds"], acts, first_step=9)
    flat = {f"{t}.{name}": value.contiguous() for t, out in enumerate([*trace, state]) for name, value in out.items()}
    save_file(flat, folder / "found.safetensors")
"""


@pytest.fixture(scope="module")
def continued(worlds, tmp_path_factory):
    """What a new process, which knows only the folder and the rows, makes of every world; and what this one makes."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    root = tmp_path_factory.mktemp("worlds")
    expected, sealed = {}, {}
    for family, env_id in CASES:
        folder = root / case(family, env_id)
        folder.mkdir()
        world = worlds(family, env_id)
        save(world, folder / "world", provenance=Provenance(env_id=env_id))
        seeds = torch.arange(16) + 50
        state, _ = run(world, begin(world, seeds), seeds, [actions(world, 16, t) for t in range(8)])
        acts = [actions(world, 16, 80 + t) for t in range(8)]
        given = {f"state.{name}": value.contiguous() for name, value in state.items()}
        stacked = torch.stack([act["action"] for act in acts])
        save_file({**given, "seeds": seeds, "actions": stacked}, folder / "given.safetensors")
        state, trace = run(world, state, seeds, acts, first_step=9)
        expected[folder.name] = {f"{t}.{k}": v for t, out in enumerate([*trace, state]) for k, v in out.items()}
        sealed[folder.name] = family != "oracle"
    command = [sys.executable, "-c", IN_A_NEW_PROCESS, str(root), json.dumps(sealed), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return {name: (expected[name], load_file(root / name / "found.safetensors")) for name in expected}


@pytest.mark.parametrize("name", [case(family, env_id) for family, env_id in CASES])
def test_rows_go_on_in_a_new_process_as_here(name, continued):
    """Also: no learned world can reach the real environment, for gymnasium.make fails in that process."""
    expected, found = continued[name]
    assert same(expected, found)


def test_a_saved_world_comes_back_with_its_contract(world, tmp_path):
    version = save(world, tmp_path / "w", provenance=Provenance(real_steps=600))
    loaded = load(tmp_path / "w")
    assert loaded.world.spec == replace(world.spec, version=version)
    assert loaded.world.config == world.config and loaded.provenance.real_steps == 600
    seeds = torch.arange(16)
    assert same(begin(loaded.world, seeds), begin(world, seeds))
    assert save(loaded.world, tmp_path / "again", provenance=Provenance()) == version


# ---- compiled once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "env_id"), CASES)
def test_step_and_emit_are_traced_once_for_each_batch_size(family, env_id, worlds):
    """One graph a size without breaks: no shape or branch depends on values, so a device can replay it."""
    if family == "oracle":
        pytest.skip("the oracle steps real environments in Python; it runs on the CPU alone")
    world = worlds(family, env_id)
    graphs = []

    def counting(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    def tick(state, action, draws):
        state, out = world.step(state, action, draws)
        return state, out, world.emit(state)

    torch._dynamo.reset()
    traced = torch.compile(tick, backend=counting, fullgraph=True, dynamic=False)
    for lanes, expected in ((16, 1), (64, 2), (16, 2)):
        for attempt in range(3):
            seeds = torch.arange(lanes) + 1000 * attempt
            state, acted, draws = begin(world, seeds), actions(world, lanes, attempt), drawn(world, "step", seeds, 1)
            found, plain = traced(state, acted, draws), tick(state, acted, draws)
            assert same(found[2], plain[2]), "tracing changed the observation"
            assert len(graphs) == expected, (lanes, attempt)
    torch._dynamo.reset()


# ---- what worlds learn from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_time_limits_in_the_data_do_not_change_what_terminates(family):
    env_id = environments(family)[0]
    data = [episode for episode in episodes(env_id) if episode.terminated]
    cut = [
        replace(
            episode,
            observation={path: value[:6] for path, value in episode.observation.items()},
            action={path: value[:5] for path, value in episode.action.items()},
            reward=episode.reward[:5],
            terminated=False,
            truncated=False,
        )
        for episode in data[::2]
    ]
    unlimited = fitted(family, env_id, [*data, *cut])
    limited = fitted(family, env_id, [*data, *(replace(episode, truncated=True) for episode in cut)])
    seeds = torch.arange(64)
    acts = [{"action": torch.ones(64, dtype=torch.int64)} for _ in range(12)]
    traces = [run(world, begin(world, seeds), seeds, acts)[1] for world in (unlimited, limited)]
    for a, b in zip(*traces, strict=True):
        assert torch.equal(a["termination_probability"], b["termination_probability"])


LEARNED = [f for f in FAMILIES if f not in {"persistence", "oracle", *OF_PICTURES}]  # those have tests of their own


@pytest.mark.parametrize("family", LEARNED)
def test_predictions_follow_the_pushes_of_the_data(family):
    """Persistence predicts no physics, and the oracle's are real; all others must have learned theirs."""
    physics = {"usual": {}, "reversed": {"force_mag": -10.0}}
    learned = {
        name: fitted(family, CART_POLE, sticky(800, 1, **attributes), UPDATES_TO_KNOW_PHYSICS.get(family, 60))
        for name, attributes in physics.items()
    }
    for name, attributes in physics.items():
        errors = {kind: error_ahead(world, sticky(400, 2, **attributes), 8) for kind, world in learned.items()}
        other = "reversed" if name == "usual" else "usual"
        assert errors[name] < 0.5 * errors[other], errors


def sticky(steps, seed, **attributes):
    """Episodes in which pushes add up."""
    return collect(CART_POLE, steps=steps, seed=seed, policy="sticky", attributes=attributes, num_envs=3)


@pytest.mark.parametrize("family", [family for family in LEARNED if family not in UPDATES_TO_KNOW_PHYSICS])
def test_predictions_follow_the_gravity_of_the_data(family):
    """A single step of twice the gravity differs by 2 % of a state's spread: for families that tell that quickly."""
    usual, heavy = (episodes(CART_POLE, 800, 1, gravity) for gravity in (9.8, 19.6))
    learned = {name: fitted(family, CART_POLE, data, 60) for name, data in (("usual", usual), ("heavy", heavy))}
    for name, gravity in (("usual", 9.8), ("heavy", 19.6)):
        errors = {kind: error_ahead(world, episodes(CART_POLE, 400, 2, gravity), 1) for kind, world in learned.items()}
        other = "heavy" if name == "usual" else "usual"
        assert errors[name] < 0.25 * errors[other], errors


def error_ahead(world, data, steps):
    """Root mean squared error of the observation so many steps ahead, each element on its own scale."""
    starts = [(episode, first) for episode in data for first in range(len(episode) - steps + 1)]

    def at(kind, offset):
        rows = [getattr(episode, kind)[kind][first + offset] for episode, first in starts]
        return torch.from_numpy(np.stack(rows))

    lanes = len(starts)
    seeds = torch.arange(lanes)
    first = torch.ones(lanes, dtype=torch.bool)
    frame, nothing = {"observation": at("observation", 0)}, {"action": at("action", 0)}
    state = world.observe(world.allocate(lanes), frame, nothing, first, drawn(world, "observe", seeds, 0))
    for offset in range(steps):
        state, _ = world.step(state, {"action": at("action", offset)}, drawn(world, "step", seeds, offset))
    after = at("observation", steps).numpy()
    error = (world.emit(state)["observation"].numpy() - after) / after.std(0)
    return float(np.sqrt(np.mean(error**2)))
