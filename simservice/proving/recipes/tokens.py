"""Rows A3 and A3b: a tokenizer and a transformer, "train your own", on Catch and on CartPole in pictures."""

from __future__ import annotations

from simservice.proving.agent import AGENTS
from simservice.proving.measures_pictures import catch_figures
from simservice.proving.measures_tokens import cartpole_token_figures
from simservice.proving.recipe import Bar, Recipe

TOKENIZER = {"tokenizer_updates": 1000}
SMALL = {"width": 64, "learning_rate": 2e-3, "warm_up": 100}
CATCH = {**TOKENIZER, **SMALL, "window": 2, "segment": 2, "batch": 48, "updates": 1600, "evaluate_every": 800}
CATCH_BARS = (
    Bar(figure="real_return", least=0.9),
    Bar(figure="real_return", least=0.7, across="min"),
    Bar(figure="frame_accuracy", least=0.98),
    Bar(figure="open_loop_exact", least=0.95),
    Bar(figure="reward_accuracy", least=0.98),
    Bar(figure="end_accuracy", least=0.98),
    Bar(figure="imagined_steps", most=30_000, across="max"),
    Bar(figure="train_s", most=360),
    Bar(figure="minutes", most=20, across="max"),
)

# Nothing in CartPole is luck: the likeliest codes, for what is drawn beside them is noise that dreams go on from.
CART_POLE = {
    "temperature": 0.1,
    **{"codes": 1024, "tokenizer_hidden": 256, "tokenizer_updates": 1500},
    **{"window": 16, "segment": 16, "batch": 3, "width": 64, "decoder_layers": 1, "decoding": "parallel"},
    **{"updates": 3000, "learning_rate": 5e-3, "evaluate_every": 3000},
}

# A frame of FlipBall says all there is to know, and its last weights count: open loop says little of luck.
FLIP_BALL = {**TOKENIZER, **SMALL, "window": 1, "segment": 1, "batch": 64, "updates": 1000, "evaluate_every": 1000}

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
        overrides=CATCH,
        bars=CATCH_BARS,
    ),
    Recipe(
        name="tokens-catch-parallel",
        row="A3",
        title="Catch from pictures in a world of tokens that are drawn all at once",
        env_id="simservice/Catch-v0",
        real_steps=2_800,
        family="tokens",
        agent=AGENTS["simservice/Catch-v0"],
        oracle_return=0.9,
        best_return=1.0,
        measure=catch_figures,
        overrides={**CATCH, "decoding": "parallel"},
        bars=CATCH_BARS,
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
        measure=cartpole_token_figures,
        overrides=CART_POLE,
        bars=(
            Bar(figure="object_psnr_0", least=30),
            Bar(figure="active_codes", least=32),
            Bar(figure="angle_error_10_of_persistence", most=0.5),
            Bar(figure="wrap_around", most=1.5),
        ),
    ),
    Recipe(
        name="tokens-flipball",
        row="A7b",
        title="The luck of a ball in a world of tokens",
        env_id="simservice/FlipBall-v0",
        real_steps=24_000,
        family="tokens",
        overrides=FLIP_BALL,
    ),
)
