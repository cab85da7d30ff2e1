"""What a person may answer, from the certificate and the policy."""

from __future__ import annotations

from typing import assert_never

from gateway.deployment.certificate import CertifiedTarget, ClassNames, NoTarget, NumberRange
from gateway.policy.schema import Policy
from gateway.protocol.targets import Classes, NoForm, Number, Target


def target_of(policy: Policy, certified: CertifiedTarget) -> Target:
    """The certified target, classes by the names of the policy where it has some."""
    match certified:
        case ClassNames(names=names, values=values):
            shown = tuple(policy.labels or names)
            numbers = tuple(value for value in values if isinstance(value, int))
            texts = tuple(value.encode() for value in values if isinstance(value, str))
            return Classes(shown, numbers or texts)
        case NumberRange(low=low, high=high):
            return Number(low, high)
        case NoTarget():
            return NoForm()
        case _:
            assert_never(certified)
