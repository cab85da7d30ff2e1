"""Confidence: one minus the largest probability, in float64, or an error."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from guards.confidence import Confidence, uncertainty
from tests.support.guard_world import FakeAnswered


def test_is_one_minus_the_largest_probability() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0]], np.float32)
    score = asyncio.run(Confidence().score(FakeAnswered({"probabilities": p}, 3)))
    assert score.dtype == np.float64
    assert score.tolist() == pytest.approx([0.3, 0.4, 0.0], abs=1e-7)
    assert score[2] == 0.0


def test_subtracts_in_float64() -> None:
    p = np.array([[0.1, 0.05]], np.float32)
    assert uncertainty(p)[0] == 1.0 - float(p[0, 0]) != float(np.float32(1) - p[0, 0])


def test_nan_is_never_sure() -> None:
    assert np.isnan(uncertainty(np.array([[np.nan, 0.9]]))).all()


def test_reads_the_configured_output() -> None:
    outputs = {"probabilities": np.array([[0.9, 0.1]]), "calibrated": np.array([[0.6, 0.4]])}
    score = asyncio.run(Confidence("calibrated").score(FakeAnswered(outputs, 1)))
    assert score.tolist() == pytest.approx([0.4])


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (3, 0)])
def test_another_rank_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"confidence: probabilities have shape \[3.*\], expected \[n, k\]"):
        uncertainty(np.zeros(shape))


def test_an_absent_output_or_another_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"confidence: the model gives \['logits'\], not 'probabilities'"):
        asyncio.run(Confidence().score(FakeAnswered({"logits": np.zeros((1, 2))}, 1)))
    with pytest.raises(ValueError, match="2 rows of 'probabilities' for a batch of 3"):
        asyncio.run(Confidence().score(FakeAnswered({"probabilities": np.zeros((2, 2))}, 3)))
