"""Rows A4, A4b and A7b: a world that denoises its next frame, on Catch, on a point that obeys, on a ball of chance."""

from __future__ import annotations

from dataclasses import replace

from simservice.proving.agent import AGENTS
from simservice.proving.measures_pictures import action_figures, catch_figures
from simservice.proving.recipe import Bar, Recipe

_CATCH = Recipe(
    name="diffusion-catch",
    row="A4",
    title="Catch from pictures in a diffusion world",
    env_id="simservice/Catch-v0",
    real_steps=2_800,
    family="diffusion",
    agent=AGENTS["simservice/Catch-v0"],
    oracle_return=0.95,
    best_return=1.0,
    measure=catch_figures,
    bars=(
        Bar(figure="real_return", least=0.95),
        Bar(figure="mse_of_persistence", most=0.1),
        Bar(figure="open_loop_exact", least=0.98),
        Bar(figure="reward_accuracy", least=0.98),
        Bar(figure="end_accuracy", least=0.98),
        Bar(figure="imagined_steps", most=30_000, across="max"),
        Bar(figure="train_s", most=300),
        Bar(figure="minutes", most=20, across="max"),
    ),
)

RECIPES = (
    _CATCH,
    replace(
        _CATCH,
        name="diffusion-catch-fast",
        title="Catch from pictures in a diffusion world of one Euler step",
        overrides={"steps": 1, "share_at_max": 1.0},
    ),
    Recipe(
        name="diffusion-pointmass",
        row="A4b",
        title="A point that obeys a continuous action, in a diffusion world",
        env_id="simservice/PointMass-v0",
        real_steps=3_000,
        family="diffusion",
        measure=action_figures,
        bars=(Bar(figure="action_ratio", least=1.5, across="min"),),
    ),
    Recipe(
        name="diffusion-flipball",
        row="A7b",
        title="The luck of a ball in a diffusion world",
        env_id="simservice/FlipBall-v0",
        real_steps=3_000,
        family="diffusion",
        overrides={"steps": 5, "updates": 3000},
    ),
)
