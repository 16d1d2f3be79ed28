"""Rows A3 and A3b: a tokenizer and a transformer, "train your own", on Catch and on CartPole in pictures."""

from __future__ import annotations

from simservice.proving.agent import AGENTS
from simservice.proving.measures_pictures import cartpole_figures, catch_figures
from simservice.proving.recipe import Bar, Recipe

RECIPES = (
    Recipe(
        name="tokens-catch",
        row="A3",
        title="Catch from pictures in a world of tokens",
        env_id="simservice/Catch-v0",
        real_steps=2_800,
        family="tokens",
        agent=AGENTS["simservice/Catch-v0"],
        oracle_return=0.9,
        best_return=1.0,
        measure=catch_figures,
        bars=(
            Bar(figure="real_return", least=0.9),
            Bar(figure="real_return", least=0.7, across="min"),
            Bar(figure="frame_accuracy", least=0.98),
            Bar(figure="open_loop_exact", least=0.95),
            Bar(figure="reward_accuracy", least=0.98),
            Bar(figure="end_accuracy", least=0.98),
            Bar(figure="imagined_steps", most=30_000, across="max"),
            Bar(figure="train_s", most=360),
            Bar(figure="minutes", most=20, across="max"),
        ),
    ),
    Recipe(
        name="tokens-cartpole-pixels",
        row="A3b",
        title="CartPole from 64-pixel pictures in a world of tokens",
        env_id="simservice/CartPolePixels-v0",
        env_kwargs={"size": 64},
        behaviour="mixed",
        real_steps=8_000,
        family="tokens",
        measure=cartpole_figures,
        bars=(
            Bar(figure="object_psnr_0", least=30),
            Bar(figure="angle_error_10_of_persistence", most=0.5),
        ),
    ),
    Recipe(
        name="tokens-flipball",
        row="A7b",
        title="The luck of a ball in a world of tokens",
        env_id="simservice/FlipBall-v0",
        real_steps=3_000,
        family="tokens",
    ),
)
