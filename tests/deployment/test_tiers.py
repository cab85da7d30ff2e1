"""What a tier shows of an answer, in bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gateway.deployment.deployment import Deployment
from gateway.deployment.tiers import bits_by_tier, tier_named
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.disclosure import Full, Label, Rounded, Top
from gateway.protocol.targets import NO_FORM, Classes, Target
from tests.support.deployments import CONFIGS

NAMES = tuple("abcdefghij")


def policy(**fields: Any) -> Policy:
    tiers = {"partner": {"top": 3}, "public": "label", "trusted": "full", "exact": {"rounded": 6}}
    whole = Deployment.read(CONFIGS / "letters").policy.model_dump(by_alias=True)
    return Policy.model_validate(whole | {"disclosure": tiers} | fields)


def contract(*shapes: tuple[int | None, ...], dtype: Any = np.float32, target: Target = NO_FORM) -> Contract:
    outputs = tuple(TensorSpec(f"o{i}", np.dtype(dtype), shape) for i, shape in enumerate(shapes))
    inputs = (TensorSpec("x", np.dtype(np.float32), (None, 2)),)
    return Contract("letters", inputs, outputs, 8, "1", target=target)


@pytest.mark.parametrize(
    ("tier", "bits"),
    [
        ("public", math.log2(10)),
        ("anonymous", math.log2(math.comb(109, 9))),
        ("a tier that the policy does not name", math.log2(math.comb(109, 9))),
        ("partner", math.log2(120) + 72),
        ("trusted", 216),
    ],
)
def test_what_each_tier_shows_of_ten_classes(tier: str, bits: float) -> None:
    bits_of = bits_by_tier(policy(), contract((None, 10)))
    assert bits_of(tier) == pytest.approx(bits) == bits_of(tier)


def test_a_single_score_is_shown_as_it_is_by_all_tiers_but_rounded_ones() -> None:
    bits_of = bits_by_tier(policy(), contract((None, 1)))
    assert [bits_of(tier) for tier in ("public", "partner", "trusted")] == [24, 24, 24]
    assert bits_of("anonymous") == pytest.approx(math.log2(101))
    assert bits_by_tier(policy(), contract((None,)))("trusted") == 24


def test_every_exposed_output_counts_and_a_label_follows_from_the_scores() -> None:
    assert bits_by_tier(policy(), contract((None, 10), (None, 3)))("trusted") == 216 + 48
    assert bits_by_tier(policy(), contract((None, 4, 10)))("trusted") == 4 * 216
    labels = contract((None,), dtype=np.int64, target=Classes(NAMES))
    assert bits_by_tier(policy(), labels)("trusted") == pytest.approx(math.log2(10))


def test_numbers_and_opaque_tensors_cost_24_bits_a_value_whatever_the_tier() -> None:
    for task, more in (("regression", {}), ("opaque", {"answered_error": None})):
        bits_of = bits_by_tier(policy(task=task, **more), contract((None,), (None, 2, 3), (None, None)))
        assert bits_of("public") == bits_of("trusted") == 24 * (1 + 6 + 1)


def test_a_tier_is_what_the_policy_says() -> None:
    tiers = [tier_named(policy(), name) for name in ("partner", "public", "trusted", "exact", "none")]
    assert tiers == [Top(3), Label(), Full(), Rounded(6), Rounded(2)]
    assert tier_named(policy(task="regression"), "public") == Full()
