"""What caution a world can keep; what it cannot is refused with the field's name."""

import pytest
from toy import toy_spec

from simservice.errors import InvalidInput
from simservice.sessions.caution import check_caution
from simservice.types import TRUSTING, Caution

ABLE = toy_spec(trust_horizon_steps=9)
SURE = toy_spec(trust_horizon_steps=9, capabilities=frozenset({"reward"}))


@pytest.mark.parametrize(
    "caution",
    [TRUSTING, Caution(truncate_at_trust_horizon=True, max_uncertainty=0.1, uncertainty_penalty=2.0)],
)
def test_a_world_with_uncertainty_and_trust_horizon_keeps_any(caution):
    check_caution(caution, ABLE)


def test_no_caution_asks_nothing_of_a_world():
    check_caution(TRUSTING, toy_spec(capabilities=frozenset()))


@pytest.mark.parametrize(
    ("caution", "spec", "problem"),
    [
        (Caution(truncate_at_trust_horizon=True), toy_spec(), "truncate_at_trust_horizon: world toy@0+ has no trust"),
        (
            Caution(truncate_at_trust_horizon=True),
            toy_spec(trust_horizon_steps=0),
            "truncate_at_trust_horizon: world toy@0+ cannot be trusted for a single step",
        ),
        (Caution(max_uncertainty=0.5), SURE, "max_uncertainty: world toy@0+ says no uncertainty"),
        (Caution(uncertainty_penalty=0.5), SURE, "uncertainty_penalty: world toy@0+ says no uncertainty"),
        (Caution(max_uncertainty=0.0), ABLE, "max_uncertainty: 0.0 is not above 0"),
        (Caution(max_uncertainty=float("nan")), ABLE, "max_uncertainty: nan is not above 0"),
        (Caution(uncertainty_penalty=-1.0), ABLE, "uncertainty_penalty: -1.0 is no finite number"),
        (Caution(uncertainty_penalty=float("inf")), ABLE, "uncertainty_penalty: inf is no finite number"),
    ],
)
def test_what_a_world_cannot_keep_is_refused(caution, spec, problem):
    with pytest.raises(InvalidInput, match=problem):
        check_caution(caution, spec)
