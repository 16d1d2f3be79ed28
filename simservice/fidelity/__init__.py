"""How far a dream is from the real thing: metrics over traces of both. Knows numpy and scipy, no world and no wire.

Importing the room registers its metrics (see metric.py).
"""

from simservice.fidelity import (
    densities,
    distances,
    effects,
    exploitation,
    outcomes,
    pixels,
    ranking,
    signals,
    states,
    support,
)

__all__ = [
    "densities",
    "distances",
    "effects",
    "exploitation",
    "outcomes",
    "pixels",
    "ranking",
    "signals",
    "states",
    "support",
]
