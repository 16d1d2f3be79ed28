"""Everything an evaluation looks at: real play of a suite of policies, and the same in the served world.

Plays and pairs; knows no metric's number and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simservice.data.collect import RealStepCounter, collect_episodes
from simservice.data.policies import Policy, epsilon_mixture, random_policy, sticky_policy
from simservice.fidelity.exploitation import optimise_inside
from simservice.fidelity.pixels import picture
from simservice.fidelity.support import SupportDistance
from simservice.fidelity.traces import Traces
from simservice.monitor.evaluation.linear_policies import LinearPolicies, imagined_returns, side_by_side
from simservice.monitor.evaluation.pairing import average, judged, one_copy, with_doubt, with_ends
from simservice.monitor.imagine import DreamPlayer, Played
from simservice.monitor.reality import (
    EPSILON,
    ProbeConfig,
    Reality,
    Window,
    cut_windows,
    play,
    real_traces,
    single_steps,
)
from simservice.types import Array, Episode

Pair = tuple[Traces, Traces]
"""Real and imagined."""

Tell = Callable[[str], None]

Maker = Callable[[int], Policy]
"""A policy from a seed."""

RUNS, RUN_CANDIDATES = 8, 16
"""Optimisation runs inside the world, each with luck of its own and each stopped earlier than the next: independent
policies of all qualities, of the kind that agents of this world become. With fewer than eight no ranking is believed.
Policies drawn blindly run away to where no agent stays, and judge worlds by that."""

STEP_COPIES = 32  # of single steps: enough to see the spread that the world predicts
FEW_COPIES, MANY_NUMBERS = 8, 64  # of observations with more numbers than that: the copies must fit into memory
PAIRS, PAIR_STEPS = 64, 10  # starts that two ways of acting are tried from
SHOWN_WINDOWS, SHOWN_FRAMES = 3, 64
MOST_KNOWN = 2048


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Policies by name, from a seed; and the training run of those that share one."""

    makers: Mapping[str, Maker]
    runs: Mapping[str, str]
    small: LinearPolicies
    first: Sequence[Episode]  # of random play, which the small policies' features were fitted to


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was played. Pairs are (real, imagined)."""

    recorded: Mapping[str, Sequence[Episode]]  # real, by policy
    windows: Pair  # many steps, the mean of the copies; with successes
    copies: Traces  # the same windows as one copy of each lived through them
    lower: Array  # (N, H + 1, D) 5 % of the copies
    upper: Array
    steps: Pair  # single steps, with deviation, probability of an end and uncertainty
    effects: Pair | None  # pairs of windows of one start
    support: Pair | None  # single real steps and the suite's imagined ones, each with uncertainty
    support_reference: str  # in words: which real steps count as known
    frames: Pair | None  # single steps of pictures
    strips: Pair | None  # a few windows of pictures
    returns: tuple[Mapping[str, Array], Mapping[str, Array]]
    runs: Mapping[str, str]
    success_bar: float


def make_suite(
    player: DreamPlayer,
    reality: Reality,
    config: ProbeConfig,
    policies: Mapping[str, Policy],
    counter: RealStepCounter,
) -> Suite:
    """Random play, held actions, small policies on their way, and those given: pure and with 30 % random actions."""
    spaces = reality.observation_space, reality.action_space
    first = play(config, reality, "random", random_policy(*spaces, config.seed), counter)
    small = LinearPolicies.fitted(*spaces, first)
    makers: dict[str, Maker] = {
        "random": lambda seed: random_policy(*spaces, seed),
        "sticky": lambda seed: sticky_policy(*spaces, seed),
    }
    runs: dict[str, str] = {}
    for number, parameters in enumerate(_on_their_way(player, small, reality, config)):
        makers[f"run-{number + 1}"] = _always(small.policy(parameters))
    for name, given in policies.items():
        mixed = f"{name}-epsilon{EPSILON:g}"
        makers[name], makers[mixed] = _always(given), _mixed(given, reality)
        runs[mixed] = name
    return Suite(makers=makers, runs=runs, small=small, first=first)


def _on_their_way(player: DreamPlayer, small: LinearPolicies, reality: Reality, config: ProbeConfig) -> Iterator[Array]:
    """(parameters,) of each run: the first is as drawn, the last went through half as many generations as there are
    runs. Costs no real step."""
    for run in range(RUNS):
        luck = 1000 * config.seed + 10 * run
        generation = iter(range(RUNS))

        def score(tried: Array, luck: int = luck, generation: Iterator[int] = generation) -> Array:
            return imagined_returns(player, small, tried, reality, luck + next(generation))

        if run < 2:
            yield small.draw(luck)
        else:
            yield optimise_inside(score, small.parameters, generations=run // 2, candidates=RUN_CANDIDATES, seed=luck)


def _always(policy: Policy) -> Maker:
    return lambda _: policy


def _mixed(policy: Policy, reality: Reality) -> Maker:
    return lambda seed: epsilon_mixture(policy, reality.observation_space, reality.action_space, EPSILON, seed)


def gather(
    player: DreamPlayer,
    reality: Reality,
    suite: Suite,
    config: ProbeConfig,
    training: Sequence[Episode],
    counter: RealStepCounter,
    tell: Tell,
) -> Evidence:
    """Plays the suite in both; `training`: the episodes the world was learned from, none where they are not at hand."""
    recorded: dict[str, Sequence[Episode]] = {"random": suite.first}
    for name, make in suite.makers.items():
        if name not in recorded:
            tell(f"{config.episodes} real episodes of {name}")
            recorded[name] = play(config, reality, name, make(config.seed), counter)
    episodes = [episode for played in recorded.values() for episode in played]
    tell("the same actions in the world")
    windows = cut_windows(episodes, config.windows, config.horizon, config.seed)
    real = real_traces(episodes, windows, config.horizon, reality.action_space)
    dreamt = player.replay(episodes, windows, config.horizon, config.copies, config.seed)
    truth, dream, bar = judged(real, replace(average(real, dreamt), action=real.action), dreamt)
    lower, upper = np.quantile(dreamt.observation, [0.05, 0.95], axis=1)
    tell("single steps")
    steps = _single_steps(player, episodes, reality, config)
    tell("the suite in the world")
    imagined, closed_loop = _play_suite(player, reality, suite, config)
    support, reference = _support(player, (truth, dream), steps, closed_loop, training, reality, config)
    truths = {name: np.array([one.undiscounted_return for one in played]) for name, played in recorded.items()}
    frames, strips = _pictures(player, episodes, windows, config)
    return Evidence(
        recorded=recorded,
        windows=(truth, dream),
        copies=one_copy(real, dreamt),
        lower=lower,
        upper=upper,
        steps=steps,
        effects=_effects(player, reality, config, counter),
        support=support,
        support_reference=reference,
        frames=frames,
        strips=strips,
        returns=(truths, imagined),
        runs=suite.runs,
        success_bar=bar,
    )


def _single_steps(player: DreamPlayer, episodes: list[Episode], reality: Reality, config: ProbeConfig) -> Pair:
    windows = single_steps(episodes, config.seed)
    real = real_traces(episodes, windows, 1, reality.action_space)
    copies = STEP_COPIES if real.observation.shape[2] <= MANY_NUMBERS else FEW_COPIES
    dreamt = player.replay(episodes, windows, 1, copies, config.seed + 1)
    return real, with_doubt(with_ends(average(real, dreamt), dreamt), dreamt)


def _play_suite(
    player: DreamPlayer, reality: Reality, suite: Suite, config: ProbeConfig
) -> tuple[dict[str, Array], list[Played]]:
    """Returns by policy, and all that was played. As many policies side by side as there are lanes for."""
    spaces = reality.observation_space, reality.action_space
    names, each = list(suite.makers), min(config.episodes, player.lanes)
    at_once = max(1, player.lanes // each)
    returns: dict[str, list[Array]] = {name: [] for name in names}
    closed_loop = []
    for turn in range(-(-config.episodes // each)):
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            used = len(group) * each
            acting = [(suite.makers[name](config.seed + 1 + turn), each) for name in group]
            if used < player.lanes:  # a session steps all of its lanes; these are not counted
                acting.append((suite.makers["random"](config.seed), player.lanes - used))
            played = player.episodes(side_by_side(acting, *spaces), reality.limit, config.seed + 7 * turn)
            for place, name in enumerate(group):
                returns[name].append(played.returns[place * each : (place + 1) * each])
            closed_loop.append(Played(*(array[:used] for array in vars(played).values())))
    return {name: np.concatenate(parts)[: config.episodes] for name, parts in returns.items()}, closed_loop


def _effects(player: DreamPlayer, reality: Reality, config: ProbeConfig, counter: RealStepCounter) -> Pair | None:
    """Two ways of acting from each of some starts; None where a seed does not give the same start twice."""
    episodes: list[Episode] = []
    for turn in (0, 1):
        episodes += collect_episodes(
            config.env_id,
            episodes=PAIRS,
            seed=config.seed + 17,  # the same starts, other actions
            policy=sticky_policy(reality.observation_space, reality.action_space, 2 * config.seed + turn),
            policy_name="sticky",
            max_steps=PAIR_STEPS,
            env_kwargs=config.env_kwargs,
            attributes=config.attributes,
            budget=counter,
        )
    windows = [Window(number, 0) for number in range(len(episodes))]
    real = real_traces(episodes, windows, PAIR_STEPS, reality.action_space)
    real = replace(real, pair=np.tile(np.arange(PAIRS), 2), unit=np.tile(np.arange(PAIRS), 2))
    same = np.all(real.observation[:PAIRS, 0] == real.observation[PAIRS:, 0], axis=1)
    if not same.any():
        return None
    kept = np.flatnonzero(np.tile(same, 2))
    dreamt = player.replay([episodes[i] for i in kept], [Window(i, 0) for i in range(len(kept))], PAIR_STEPS,
                           config.copies, config.seed + 2)  # fmt: skip
    return real[kept], average(real[kept], dreamt)


def _support(
    player: DreamPlayer,
    windows: Pair,
    steps: Pair,
    closed_loop: list[Played],
    training: Sequence[Episode],
    reality: Reality,
    config: ProbeConfig,
) -> tuple[Pair | None, str]:
    """Real steps that count as known, and imagined ones, each with how little the world knows of it."""
    stated = all(np.isfinite(played.uncertainty[played.valid]).all() for played in closed_loop)
    if not stated:
        return _distance_support(windows, training, reality, config)
    imagined = [_bare(played.uncertainty, played.valid) for played in closed_loop]
    suite = _joined(imagined)
    if not training:
        own = steps[1].uncertainty
        assert own is not None
        return (_bare(own, steps[0].valid, steps[0].unit), suite), "real steps of this evaluation"
    picked = _thinned(training)
    dreamt = player.replay(list(training), picked, 1, 1, config.seed + 3)
    unit = np.array([window.episode for window in picked])
    return (_bare(dreamt.uncertainty[:, 0], dreamt.valid[:, 0], unit), suite), "the steps it was learned from"


def _distance_support(
    windows: Pair, training: Sequence[Episode], reality: Reality, config: ProbeConfig
) -> tuple[Pair | None, str]:
    """For worlds that state no uncertainty: the distance to the nearest known steps."""
    real, imagined = windows
    known = real_traces(training, _thinned(training), 1, reality.action_space) if training else real
    assert known.action is not None
    distance = SupportDistance.fitted(known.observation[:, :-1][known.valid], known.action[known.valid], config.seed)
    reference = "the steps it was learned from" if training else "real steps of this evaluation"
    pair = replace(real, uncertainty=distance.of(real)), replace(imagined, uncertainty=distance.of(imagined))
    return pair, f"distance to {reference}"


def _bare(uncertainty: Array, valid: Array, unit: Array | None = None) -> Traces:
    """Traces of which nothing but the uncertainty is known."""
    lanes, steps = valid.shape
    never = np.zeros((lanes, steps), dtype=bool)
    return Traces(
        observation=np.zeros((lanes, steps + 1, 1)),
        reward=np.zeros((lanes, steps)),
        terminated=never,
        truncated=never,
        valid=valid,
        unit=np.arange(lanes) if unit is None else unit,
        uncertainty=np.where(valid, uncertainty, 0.0),
    )


def _joined(parts: list[Traces]) -> Traces:
    """All windows, padded to the longest."""
    steps = max(part.horizon for part in parts)

    def padded(array: Array) -> Array:
        return np.pad(array, [(0, 0), (0, steps - array.shape[1])])

    assert all(part.uncertainty is not None for part in parts)
    doubt = [padded(part.uncertainty) for part in parts if part.uncertainty is not None]
    return _bare(np.concatenate(doubt), np.concatenate([padded(part.valid) for part in parts]))


def _thinned(episodes: Sequence[Episode]) -> list[Window]:
    """At most MOST_KNOWN of their steps, evenly spread."""
    every = [Window(number, step) for number, episode in enumerate(episodes) for step in range(len(episode))]
    return every[:: -(-len(every) // MOST_KNOWN)]


def _pictures(
    player: DreamPlayer, episodes: list[Episode], windows: list[Window], config: ProbeConfig
) -> tuple[Pair | None, Pair | None]:
    """Some next frames, and some windows to look at; None where the world has no pictures."""
    if picture(episodes[0].observation, lead=1) is None:
        return None, None
    pairs = []
    shown = sorted(windows, key=lambda window: -len(episodes[window.episode]))[:SHOWN_WINDOWS]
    for picked, steps in ((single_steps(episodes, config.seed)[:SHOWN_FRAMES], 1), (shown, config.horizon)):
        real = real_traces(episodes, picked, steps, frames=True)
        dreamt = player.replay(episodes, picked, steps, 1, config.seed + 4, keep_frames=True)
        assert dreamt.frames is not None
        pairs.append((real, replace(average(real, dreamt), frames=dreamt.frames[:, 0])))
    return pairs[0], pairs[1]
