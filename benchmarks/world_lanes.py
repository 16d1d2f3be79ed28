"""Real data in memory, and the report: what the benchmarks of worlds stand on."""

from __future__ import annotations

from collections.abc import Iterable

from simservice.data.collect import RealStepCounter
from simservice.data.environments import close, make_environment, max_episode_steps
from simservice.data.episodes import Dataset, fingerprint
from simservice.proving.record import Behaviour
from simservice.proving.record import record as played
from simservice.types import Episode


def record(env_id: str, steps: int, seed: int, behaviour: Behaviour) -> list[Episode]:
    """Exactly `steps` real steps."""
    return played(env_id, steps, seed, behaviour, RealStepCounter())


def as_dataset(env_id: str, episodes: Iterable[Episode]) -> Dataset:
    """The episodes as training takes them."""
    env, episodes = make_environment(env_id), tuple(episodes)
    close(env)
    return Dataset(
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=env_id,
        max_episode_steps=max_episode_steps(env),
        hash=fingerprint(episodes),
        real_steps=sum(len(episode) for episode in episodes),
    )


class Report:
    """Prints checks as they are made and remembers whether all passed."""

    def __init__(self) -> None:
        self.passed = True

    def check(self, what: str, figure: float, bar: str, met: bool) -> None:
        """One line: what was measured, the figure, what was asked, and whether it is met."""
        self.passed &= bool(met)
        print(f"  {'ok  ' if met else 'FAIL'} {what}: {figure:.4g} (asked: {bar})", flush=True)
