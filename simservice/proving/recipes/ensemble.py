"""Rows A1 and A1b: agents that learn CartPole and Pendulum in an ensemble world of 3,000 real steps or fewer."""

from __future__ import annotations

from simservice.proving.agent import AGENTS
from simservice.proving.measures import vector_figures
from simservice.proving.recipe import Bar, Recipe
from simservice.worlds.world import World


def forget(world: World) -> None:
    """Takes the closed-form fit away, so that scales, bounds and starts are all that it has of the data."""
    for name in ("trend", "trend_bias"):
        world.get_buffer(name).zero_()


RECIPES = (
    Recipe(
        name="ensemble-cartpole",
        row="A1",
        title="CartPole in an ensemble of Gaussian networks",
        env_id="CartPole-v1",
        behaviour="mixed",
        real_steps=2_500,
        family="ensemble",
        agent=AGENTS["CartPole-v1"],
        oracle_return=475.0,
        best_return=500.0,
        measure=vector_figures,
        untrain=forget,
        bars=(
            Bar(figure="real_return", least=475),
            Bar(figure="real_return", least=400, across="min"),
            Bar(figure="gap", most=0.2, across="max"),
            Bar(figure="error_10_of_persistence", most=0.05, across="max"),
            Bar(figure="error_50_of_persistence", most=0.5),
            Bar(figure="error_10_of_linear", most=1.0, across="max"),
            Bar(figure="end_precision", least=0.75),
            Bar(figure="end_recall", least=0.75),
            Bar(figure="minutes", most=3.0, across="max"),
        ),
    ),
    Recipe(
        name="ensemble-pendulum",
        row="A1b",
        title="Pendulum in an ensemble, its reward learned",
        env_id="Pendulum-v1",
        behaviour="random",
        real_steps=3_000,
        family="ensemble",
        agent=AGENTS["Pendulum-v1"],
        oracle_return=-200.0,
        best_return=0.0,
        measure=vector_figures,
        untrain=forget,
        bars=(
            Bar(figure="real_return", least=-200),
            Bar(figure="gap", most=0.3, across="max"),
            Bar(figure="reward_r2", least=0.98, across="min"),
        ),
    ),
    Recipe(
        name="ensemble-cartpole-random",
        row="A7c",
        title="What an ensemble of random play knows of CartPole, and what it knows not to know",
        env_id="CartPole-v1",
        real_steps=3_000,
        family="ensemble",
    ),
)
