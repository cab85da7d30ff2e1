"""How much a caller of a tier may see, and how many bits that tells at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, assert_never

from gateway.policy.schema import Policy, RoundedTier, TopTier
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.disclosure import Full, Label, Rounded, Tier, Top
from gateway.protocol.targets import Classes
from guards.price import FLOAT_BITS, label_bits, rounded_bits, top_bits, vector_bits

ANONYMOUS: Final = "anonymous"
"""The tier of callers without a key."""
TRUSTED: Final = "trusted"
"""The tier of keys that are not charged to what all others share."""


def tier_named(policy: Policy, name: str) -> Tier:
    """How much a caller of this tier may see; two digits where the policy does not name the tier.

    Tiers are of the scores of classes. A regressor's number and its interval are the answer itself, and a
    rounded interval would not keep its promise; of opaque tensors nothing is known.
    """
    if policy.task != "classification":
        return Full()
    match policy.disclosure.get(name):
        case "full":
            return Full()
        case "label":
            return Label()
        case RoundedTier(rounded=digits):
            return Rounded(digits)
        case TopTier(top=k):
            return Top(k)
        case None:
            return Rounded(2)


def bits_by_tier(policy: Policy, contract: Contract) -> Callable[[str], float]:
    """What an answer may tell a caller, by the name of its tier. Computed once for each tier.

    Of classes: what the tier shows of each exposed output of scores; of others, 24 bits a value. An axis
    without a fixed size counts as one: the policy's `prices.base` is there for more.
    """
    known: dict[str, float] = {}

    def bits_of(name: str) -> float:
        if name not in known:
            known[name] = _bits(policy, contract, tier_named(policy, name))
        return known[name]

    return bits_of


def _bits(policy: Policy, contract: Contract, tier: Tier) -> float:
    outputs, target = contract.outputs, contract.target
    if policy.task != "classification":
        return float(sum(FLOAT_BITS * math.prod(_sizes(one)) for one in outputs))
    scores = [_sizes(one) for one in outputs if one.dtype.kind == "f"]
    if not scores:
        return label_bits(len(target.names) if isinstance(target, Classes) else 2)
    return math.fsum(math.prod(sizes[:-1]) * _bits_of_scores(sizes[-1], tier) for sizes in scores)


def _sizes(output: TensorSpec) -> list[int]:
    """Of one row; a single number is one axis of size one."""
    return [size or 1 for size in output.shape[1:]] or [1]


def _bits_of_scores(width: int, tier: Tier) -> float:
    """A single score is the probability of one of two classes, which no tier but `Rounded` makes coarser."""
    classes = max(2, width)
    match tier:
        case Full():
            return vector_bits(classes)
        case Rounded(digits):
            return rounded_bits(classes, digits) if digits else label_bits(classes)
        case Top() | Label() if width == 1:
            return vector_bits(classes)
        case Top(k):
            return top_bits(classes, min(k, classes))
        case Label():
            return label_bits(classes)
        case _:
            assert_never(tier)
