"""Rows A2 and A2b: a recurrent state-space world of vectors, of pictures, and of both."""

from __future__ import annotations

from simservice.proving.agent import AGENTS
from simservice.proving.measures_latent import both_figures, grounded_figures, latent_figures
from simservice.proving.measures_pictures import catch_figures
from simservice.proving.recipe import Bar, Recipe

CATCH = {"depth": 16, "batch_size": 32, "segment_length": 7, "updates": 4_000}
PIXELS = {
    "depth": 32,
    "batch_size": 32,
    "segment_length": 12,
    "updates": 12_000,  # 18 minutes of one core, 3 on an H100: no row asks for less
    "evaluate_every": 2_000,
    "picture_weight": 10.0,
    "keep_last": True,
}
# A turn that several latents tell is drawn by each for itself: telling it must cost more than it helps, see worlds.md.
FLIP = CATCH | {"updates": 2_000, "keep_last": True, "representation_weight": 1.0, "uniform_share": 0.001}

RECIPES = (
    Recipe(
        name="rssm-cartpole",
        row="A2",
        title="CartPole in a recurrent state-space world",
        env_id="CartPole-v1",
        behaviour="mixed",
        real_steps=8_000,
        family="rssm",
        agent=AGENTS["CartPole-v1"],
        oracle_return=475.0,
        best_return=500.0,
        measure=grounded_figures,
        thresholded=True,
        bars=(
            Bar(figure="real_return", least=450),
            Bar(figure="error_10_of_persistence", most=0.4),
            Bar(figure="error_25_of_persistence", most=0.75),
            Bar(figure="grounding_ratio", most=1.3),
            Bar(figure="train_s", most=300),
        ),
    ),
    Recipe(
        name="rssm-catch",
        row="A2b",
        title="Catch from pictures in a recurrent state-space world",
        env_id="simservice/Catch-v0",
        real_steps=5_600,
        family="rssm",
        overrides=CATCH,
        agent=AGENTS["simservice/Catch-v0"],
        oracle_return=0.9,
        best_return=1.0,
        measure=catch_figures,
        bars=(Bar(figure="real_return", least=0.9),),
    ),
    Recipe(
        name="rssm-cartpole-pixels",
        row="A2b",
        title="CartPole from pictures in a recurrent state-space world",
        env_id="simservice/CartPolePixels-v0",
        env_kwargs={"size": 32},
        behaviour="mixed",
        real_steps=8_000,
        family="rssm",
        overrides=PIXELS,
        measure=latent_figures,
        bars=(
            Bar(figure="angle_correlation_10", least=0.9),
            Bar(figure="probe_position", least=0.9),
            Bar(figure="probe_angle", least=0.9),
        ),
    ),
    Recipe(
        name="rssm-dict",
        row="A2b",
        title="CartPole from pictures and vectors in one recurrent state-space world",
        env_id="simservice/CartPolePixels-v0",
        env_kwargs={"size": 32, "dict": True},
        behaviour="mixed",
        real_steps=8_000,
        family="rssm",
        overrides=PIXELS | {"variables": 48, "deter": 256},
        measure=both_figures,
        bars=(
            Bar(figure="angle_correlation_10", least=0.9),
            Bar(figure="picture_of_single", most=1.2),
            Bar(figure="vector_of_single", most=1.2),
        ),
    ),
    Recipe(
        name="rssm-cartpole-random",
        row="A7c",
        title="What a recurrent state-space world of random play knows of CartPole",
        env_id="CartPole-v1",
        real_steps=3_000,
        family="rssm",
    ),
    Recipe(
        name="rssm-flipball",
        row="A7b",
        title="The luck of a ball in a recurrent state-space world",
        env_id="simservice/FlipBall-v0",
        real_steps=3_000,
        family="rssm",
        overrides=FLIP,
    ),
)
