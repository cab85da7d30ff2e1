"""What the measurement of side channels calls told apart."""

from __future__ import annotations

import numpy as np
import pytest

from bench.side_channels import CHANNELS, PAIRS, Told, grouped, told
from gateway.core.rows import F8
from tests.support.served import CONFIGS

RNG = np.random.default_rng(0)
Seen = tuple[F8, F8, F8]


def seen(clock_s: float, spent_s: float, length: float, rows: int = 50) -> Seen:
    """Observations of rows around these values, three times each."""
    noise = RNG.normal(0, 1, (3, rows, 3))
    return clock_s + 1e-3 * noise[0], spent_s + 1e-3 * noise[1], np.full((rows, 3), length)


def areas(first: Seen, second: Seen) -> dict[str, Told]:
    pair, (one, other) = next(iter(PAIRS.items()))
    nothing: Seen = (np.empty((0, 3)),) * 3
    rest = {name: nothing for names in PAIRS.values() for name in names}
    found = list(told(rest | {one: first, other: second}, grid_ms=10))
    assert {line.pair for line in found} == {pair}, "a pair without rows has no line"
    return {line.channel: line for line in found}


def test_groups_that_take_different_times_are_told_apart() -> None:
    found = areas(seen(0.020, 0.010, 300), seen(0.010, 0.010, 300))
    assert found["own clock, once"].area > 0.99
    assert found["own clock, least of all"].too_much
    assert not found["statistics, least of all"].too_much
    assert found["size of the reply"].area == 0.5


def test_a_channel_that_is_smaller_for_the_first_group_tells_as_much() -> None:
    found = areas(seen(0.010, 0.010, 300), seen(0.010, 0.020, 301))
    assert found["statistics, least of all"].area > 0.99
    assert found["size of the reply"].area == 1.0


def test_every_channel_is_measured() -> None:
    assert tuple(areas(seen(1, 1, 1), seen(1, 1, 1))) == CHANNELS


@pytest.mark.parametrize("name", ["fashion"])
def test_the_ready_deployment_has_rows_of_every_group(name: str) -> None:
    groups = grouped(CONFIGS / name, 2)
    assert {group: len(rows) for group, rows in groups.items()} == {
        group: 2 for names in PAIRS.values() for group in names
    }
