"""How far a dream is from the real thing: metrics over traces of both. Knows numpy and scipy, no world and no wire.

Importing the room registers its metrics (see metric.py).
"""

from simservice.fidelity import outcomes, states, support

__all__ = ["outcomes", "states", "support"]
