"""Says whether a world can keep a session as cautious as it asks to be."""

from __future__ import annotations

import math

from simservice.errors import InvalidInput
from simservice.types import Caution, WorldSpec


def check_caution(caution: Caution, spec: WorldSpec) -> None:
    """Raises InvalidInput, with the field's name, for what this world does not know or what cannot be meant."""
    if caution.truncate_at_trust_horizon and not spec.trust_horizon_steps:
        found = "has no trust horizon" if spec.trust_horizon_steps is None else "cannot be trusted for a single step"
        raise InvalidInput(
            "truncate_at_trust_horizon",
            f"world {spec.full_name} {found}; train it on more data, or leave this out",
        )
    limit, penalty = caution.max_uncertainty, caution.uncertainty_penalty
    if limit is not None and not limit > 0:
        raise InvalidInput("max_uncertainty", f"{limit} is not above 0; leave it out for no threshold")
    if not (math.isfinite(penalty) and penalty >= 0):
        raise InvalidInput("uncertainty_penalty", f"{penalty} is no finite number of 0 or more")
    if "uncertainty" not in spec.capabilities:
        for name, asked in (("max_uncertainty", limit is not None), ("uncertainty_penalty", penalty > 0)):
            if asked:
                raise InvalidInput(
                    name, f"world {spec.full_name} says no uncertainty (family {spec.family}); leave this out"
                )
