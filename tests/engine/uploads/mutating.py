"""Inspects thousands of damaged files, one after another, in this process; says what became of each kind.

python mutating.py SEED COUNT prints one JSON object. It dies where a library does.
"""

from __future__ import annotations

import json
import random
import resource
import sys
from collections import Counter

import numpy as np
import policy_files as files
from gymnasium import spaces
from mutations import mutated

from simservice.engine.uploads.inspection import inspect
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.shelf import requirements_of
from simservice.errors import InvalidPolicy, PolicyLimitExceeded

LIMITS = PolicyLimits(inspecting_burst_s=1e6, most_rows=16)


def main(seed: int, count: int) -> None:
    """Each file is damaged in one to three places."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    rng = random.Random(seed)
    world = requirements_of("categorical", spaces.Box(-np.inf, np.inf, (4,), np.float32), spaces.Discrete(3))
    sound = [files.mlp((4, 5, 3)), files.large("Tile", elements=4), files.huge_loop(), files.external_data()]
    seen: Counter[str] = Counter()
    for number in range(count):
        file = mutated(rng, sound[0] if number % 3 else rng.choice(sound))
        try:
            inspect(file, world, LIMITS)
            seen["taken"] += 1
        except (InvalidPolicy, PolicyLimitExceeded) as error:
            seen[type(error).__name__] += 1
        except Exception as error:  # what the test is after
            seen[f"{type(error).__name__}: {error}"[:200]] += 1
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
