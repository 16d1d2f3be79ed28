"""A summary and its details as a run of the demo leaves them, small and made up, for tests of what is drawn of them."""

import math


def summary(**changes):
    """Every key of summary.json."""
    played = {
        "kept": False,
        "world": "cartpole@0123456789ab",
        "check_steps": 500,
        "real_return_interval": [180.0, 220.0],
        "imagined_steps": 67_104,
        "imagined_steps_per_s": 2_800.0,
        "seconds": 41.5,
    }
    return {
        "real_return_mean": 498.2,
        "real_return_interval": [495.1, 500.0],
        "real_return_min": 421.0,
        "real_episodes": 100,
        "solved": True,
        "solved_at": 475.0,
        "real_steps": 2_500,
        "real_steps_budget": 3_000,
        "measurement_steps": {"scores": 112_345, "probes": 22_456},
        "counted": "everything that anything was learned or decided from",
        "baseline_return_mean": 41.3,
        "baseline_return_interval": [36.0, 47.0],
        "baseline_real_steps": 4_100,
        "baseline_small_batches_return_mean": 301.7,
        "baseline_small_batches_return_interval": [280.0, 322.0],
        "baseline_small_batches_real_steps": 2_561,
        "trust_horizon_steps": 61,
        "trust_horizon_steps_changed": 17,
        "return_gap": 0.02,
        "return_gap_changed": 0.31,
        "changed": {"gravity": 12.0},
        "imagined_steps": 108_000,
        "imagined_steps_per_s": 2_812.0,
        "imagined_steps_per_sampling_s": 6_200.0,
        "rounds": [
            {"round": 1, **played, "real_steps_trained": 1_000, "dream_return_mean": 480.0,
             "check_returns": [102.0, 217.0, 144.0], "real_return_mean": 201.0},
            {"round": 2, **played, "kept": True, "real_steps_trained": 1_500, "dream_return_mean": 500.0,
             "check_returns": [500.0, 500.0], "real_return_mean": 498.2},
        ],
        "kept_round": 2,
        "world": "cartpole@0123456789ab",
        "family": "ensemble",
        "env_id": "CartPole-v1",
        "seed": 0,
        "dataset_id": "demo/cartpole/steps-v2",
        "dataset_hash": "5f" * 32,
        "stages": [["real steps", 1.2], ["training worlds", 30.0], ["serving", 14.0], ["learning in the dream", 70.0],
                   ["baseline", 8.0], ["scoring in reality", 6.0], ["probing fidelity", 12.0]],
        "elapsed_s": 141.0,
        "ended": "2026-01-02 03:04:05 UTC",
        "versions": {"simservice": "0.1.0", "torch": "2.13.0", "ray": "2.60.0"},
        "machine": "2 CPU cores, x86_64, Python 3.11.7",
        **changes,
    }  # fmt: skip


def details(steps=100):
    """Every key of details.json."""
    leads = list(range(1, steps + 1))

    def curve(name, growth):
        error = [0.01 * math.exp(growth * lead) for lead in leads]
        return {
            "name": name,
            "lead": leads,
            "error": [*error[:-5], *[None] * 5],
            "lower": [*(0.9 * value for value in error[:-5]), *[None] * 5],
            "upper": [*(1.15 * value for value in error[:-5]), *[None] * 5],
            "alive": [1.0] * steps,
        }

    def trace(name, scale):
        real = [scale * math.sin(step / 9) for step in range(steps + 1)]
        return {
            "name": name,
            "real": real,
            "imagined": [value + scale * 0.002 * step for step, value in enumerate(real)],
            "lower": [value - scale * 0.001 * step for step, value in enumerate(real)],
            "upper": [value + scale * 0.005 * step for step, value in enumerate(real)],
            "changed": [value * (1 + step / 30) if step < 40 else None for step, value in enumerate(real)],
        }

    learning = [500 * (1 - math.exp(-step / 15_000)) for step in range(2_000, 66_000, 2_000)]
    return {
        "tau": 0.3,
        "curves": [curve("reality as it was", 0.04), curve("reality with gravity 12", 0.11)],
        "traces": [trace("cart position", 1.2), trace("cart speed", 0.6), trace("pole angle", 0.1), trace("turn", 0.4)],
        "learning": [
            {"steps": list(range(2_000, 66_000, 2_000)), "return": [None, *learning[1:]]},
            {"steps": list(range(2_000, 42_000, 2_000)), "return": [490.0] * 20},
        ],
        "baseline": {"real_steps": [2_049, 4_100], "return": [22.0, 33.0]},
        "baseline_small_batches": {"real_steps": [256, 1_024, 2_561], "return": [None, 24.0, 90.0]},
        "return_limit": 500.0,
        "lanes": 64,
        "probes": {},
    }
