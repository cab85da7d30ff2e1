"""Suspects: keys of one attacker become one, evidence stays valid at any merge, memory stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.sequence import Bets
from guards.suspects import HALF_LIFE_ROWS, MOST_MEMBERS, OVERLAPS, OVERLAPS_IN_RANGE, Suspects

BETS = Bets(0.05, 0.01)


def test_keys_of_one_range_are_merged_sooner_than_others() -> None:
    suspects = Suspects(BETS)
    for who, where in ((1, "192.0.2"), (2, "192.0.2"), (3, "198.51.100"), (4, ""), (5, "")):
        suspects.observe(who, where, [False])
    near = [suspects.overlap(1, 2) for _ in range(OVERLAPS_IN_RANGE)]
    far = [suspects.overlap(3, 1) for _ in range(OVERLAPS)]
    unknown = [suspects.overlap(4, 5) for _ in range(OVERLAPS_IN_RANGE)]
    assert near == [False, True] and far == [False] * 7 + [True] and not any(unknown)
    assert suspects.members(2) == frozenset({1, 2, 3})
    assert suspects.members(4) == frozenset({4})


def test_a_search_spread_over_many_keys_alarms() -> None:
    """One query a key: each repeats nearly the one before."""
    suspects = Suspects(BETS)
    alarm = 0
    for key in range(200):
        evidence = suspects.observe(key, "203.0.113", [key > 0])
        if BETS.alarms(evidence):
            alarm = key
            break
        suspects.overlap(key, key - 1)
    assert 3 <= alarm < 20
    alone = Suspects(BETS)
    assert not any(BETS.alarms(alone.observe(key, "", [key > 0])) for key in range(200))


def test_at_most_a_share_of_alpha_of_honest_principals_is_ever_alarmed_whoever_is_merged() -> None:
    """The worst merges: each principal with evidence is merged with the one that has most, after each row."""
    bets, rng, alarmed, seen = Bets(0.1, 0.1), np.random.default_rng(0), 0, 0
    for _ in range(60):
        suspects = Suspects(bets)
        ever: set[int] = set()
        for _ in range(60):
            for who in range(20):
                evidence = suspects.observe(who, "a", [bool(rng.random() < 0.1)])
                if bets.alarms(evidence):
                    ever |= suspects.members(who)
            first, second = sorted(range(20), key=lambda who: -suspects.evidence(who).value)[:2]
            for _ in range(OVERLAPS_IN_RANGE):
                suspects.overlap(first, second)
        alarmed, seen = alarmed + len(ever), seen + 20
    assert alarmed / seen <= 0.1


def test_a_merged_suspect_starts_from_the_mean() -> None:
    suspects = Suspects(BETS)
    one = suspects.observe(1, "a", [True, True]).value
    two = suspects.observe(2, "a", [False]).value
    for _ in range(OVERLAPS_IN_RANGE):
        suspects.overlap(1, 2)
    assert suspects.evidence(1) == suspects.evidence(2)
    assert suspects.evidence(1).value == pytest.approx((one + two) / 2)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=200))
def test_members_are_a_partition_of_the_known_and_memory_is_bounded(pairs: list[tuple[int, int]]) -> None:
    suspects = Suspects(BETS, most=8)
    for one, other in pairs:
        suspects.observe(one, "a", [one == other])
        suspects.overlap(one, other)
        known = set(suspects._of)
        assert len(known) <= 8 and set(suspects._ranges) == known and len(suspects._counts) <= 8
        assert len(suspects._hosts) <= 8
        groups = {suspects.members(who) for who in known}
        assert set().union(*groups) == known and sum(map(len, groups)) == len(known)


def test_a_suspect_takes_no_more_members_than_allowed() -> None:
    suspects = Suspects(BETS)
    for who in range(MOST_MEMBERS + 5):
        suspects.observe(who, "a", [False])
        for _ in range(OVERLAPS_IN_RANGE):
            suspects.overlap(who, 0)
    assert len(suspects.members(0)) == MOST_MEMBERS
    assert suspects.members(MOST_MEMBERS + 1) == frozenset({MOST_MEMBERS + 1})


def test_a_principal_that_is_forgotten_begins_anew_and_is_not_merged() -> None:
    suspects = Suspects(BETS, most=2)
    suspects.observe(1, "a", [True] * 3)
    for who in (2, 3):
        suspects.observe(who, "a", [False])
    assert suspects.evidence(1) == BETS.new()
    assert not any(suspects.overlap(1, 2) for _ in range(OVERLAPS))
    assert not suspects.overlap(9, 9)
    with pytest.raises(ValueError, match="1 principals"):
        Suspects(BETS, most=1)


def test_rows_between_the_hits_do_not_end_an_alarm_at_once() -> None:
    """An attacker that sends nine unrelated rows with each near one."""
    suspects = Suspects(BETS)
    suspects.observe(1, "", [True] * 12)
    peak = suspects.standing(1)
    assert peak == suspects.evidence(1).value >= 1 / BETS.alpha
    suspects.observe(1, "", [False] * 60)
    assert suspects.evidence(1).value < peak / 100
    assert suspects.standing(1) > peak / 2
    suspects.observe(1, "", [False] * 10 * HALF_LIFE_ROWS)
    assert suspects.standing(1) <= peak / 2**10


def test_a_standing_reaches_nothing_that_the_evidence_has_not_reached() -> None:
    suspects, largest = Suspects(BETS), 0.0
    rng = np.random.default_rng(0)
    for _ in range(2000):
        suspects.observe(1, "", [bool(rng.random() < 0.2)])
        largest = max(largest, suspects.evidence(1).value)
        assert suspects.standing(1) <= max(largest, 1.0)
    assert suspects.standing(99) == 1.0, "of one that is not known"


def test_a_merge_begins_with_the_pooled_evidence() -> None:
    """Else the alarm of one honest principal would be that of all that it is merged with."""
    suspects = Suspects(BETS)
    suspects.observe(1, "", [True] * 12)
    suspects.observe(2, "", [False] * 12)
    for _ in range(8):
        suspects.overlap(1, 2)
    assert suspects.members(1) == {1, 2}
    assert suspects.standing(1) == suspects.standing(2) == suspects.evidence(1).value
