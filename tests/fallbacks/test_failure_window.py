"""The window of recent calls: its shares against a plain count, and what one caller can and cannot do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.failure_window import CallEnd, Excess, FailureWindow, WindowLimits

ANSWERED, SLOW, FAILED = CallEnd
LIMITS = WindowLimits(calls=10, window_s=60.0, least_calls=4, failed_share=0.5, late_share=0.75)


def after(*calls: tuple[CallEnd, str], limits: WindowLimits = LIMITS) -> Excess:
    """What is found after these calls, each with the letters of its callers, a second apart."""
    window = FailureWindow(limits)
    for now_s, (end, callers) in enumerate(calls):
        window.add(float(now_s), end, tuple(callers))
    return window.excess(float(len(calls) - 1))


def test_a_model_that_fails_every_second_call_exceeds_the_share_of_failures() -> None:
    every_second = [call for caller in "abcde" for call in ((ANSWERED, "x"), (FAILED, caller))]
    assert after(*every_second) is Excess.OF_ONE_CALLER, "without any one of them it is just below a half"
    assert after(*every_second, (FAILED, "f")) is Excess.OF_ALL
    assert after(*[(ANSWERED, "x"), (ANSWERED, "x"), (FAILED, "y")] * 3, (FAILED, "z")) is Excess.NONE


def test_fewer_calls_than_the_least_are_not_judged() -> None:
    assert after((FAILED, ""), (FAILED, ""), (FAILED, "")) is Excess.NONE
    assert after((FAILED, ""), (FAILED, ""), (FAILED, ""), (FAILED, "")) is Excess.OF_ALL


def test_slow_answers_count_with_failures_against_the_share_of_late_calls_alone() -> None:
    three = [(SLOW, ""), (SLOW, ""), (FAILED, "")]
    assert after(*three, (ANSWERED, ""), (SLOW, "")) is Excess.OF_ALL
    assert after(*[(SLOW, "")] * 2, *[(ANSWERED, "")] * 2, (SLOW, "")) is Excess.NONE


def test_failures_that_one_caller_had_a_part_in_are_of_one_caller() -> None:
    assert after(*[(FAILED, "eb")] * 3, *[(FAILED, "ec")] * 3, (FAILED, "e")) is Excess.OF_ONE_CALLER


def test_a_chance_failure_of_another_caller_does_not_make_it_the_model() -> None:
    assert after(*[(FAILED, "e")] * 6, *[(ANSWERED, "b")] * 3, (FAILED, "b")) is Excess.OF_ONE_CALLER


def test_calls_leave_the_window_by_number_and_by_age() -> None:
    assert after(*[(FAILED, "")] * 4, *[(ANSWERED, "")] * 9, (FAILED, "")) is Excess.NONE
    assert after(*[(ANSWERED, "")] * 20, *[(FAILED, "")] * 6) is Excess.OF_ALL
    window = FailureWindow(LIMITS)
    for _ in range(9):
        window.add(0.0, FAILED)
    assert window.excess(59.9) is Excess.OF_ALL
    assert window.excess(60.0) is Excess.NONE, "though no call has ended since"
    window.add(60.0, FAILED)
    assert window.excess(60.0) is Excess.NONE, "the others are as old as the window is long"


def test_clear_forgets_every_call() -> None:
    window = FailureWindow(LIMITS)
    for _ in range(9):
        window.add(0.0, FAILED, ("a",))
    assert window.excess(0.0) is Excess.OF_ONE_CALLER
    window.clear()
    assert window.excess(0.0) is Excess.NONE
    window.add(0.0, FAILED)
    assert window.excess(0.0) is Excess.NONE


def test_the_known_rows_are_asked_once_for_every_least_number_of_calls() -> None:
    window, asked = FailureWindow(LIMITS), []
    for i in range(12):
        window.add(0.0, FAILED, ("e",))
        asked += [i] * (window.excess(0.0) is Excess.OF_ONE_CALLER and window.asks_known_rows())
    assert asked == [3, 7, 11]


CALLS = st.lists(
    st.tuples(st.sampled_from(CallEnd), st.sets(st.sampled_from("abc")), st.sampled_from((0.0, 5.0, 25.0))),
    max_size=60,
)


def expected(calls: list[tuple[float, CallEnd, set[str]]], limits: WindowLimits) -> Excess:
    """The same of all calls so far, by counting them again for each caller that might be left out."""
    now_s = calls[-1][0]
    recent = [call for call in calls[-limits.calls :] if call[0] > now_s - limits.window_s]
    worst = Excess.NONE
    for ends, share in (({FAILED}, limits.failed_share), ({FAILED, SLOW}, limits.late_share)):

        def reached(without: str, ends: set[CallEnd] = ends, share: float = share) -> bool:
            kept = [call for call in recent if not (call[1] in ends and without in call[2])]
            bad = sum(call[1] in ends for call in kept)
            return len(kept) >= limits.least_calls and bad >= share * len(kept)

        if reached(""):
            worst = max(worst, Excess.OF_ALL if all(map(reached, "abc")) else Excess.OF_ONE_CALLER)
    return worst


@given(CALLS)
def test_any_history_agrees_with_counting_all_of_it_again(
    calls: list[tuple[CallEnd, set[str], float]],
) -> None:
    window, so_far, now_s = FailureWindow(LIMITS), [], 0.0
    for end, callers, later_s in calls:
        now_s += later_s
        so_far.append((now_s, end, callers))
        window.add(now_s, end, tuple(callers))
        assert window.excess(now_s) is expected(so_far, LIMITS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_calls": 0},
        {"calls": 5, "least_calls": 6},
        {"window_s": 0.0},
        {"window_s": math.nan},
        {"slow_s": 0.0},
        {"failed_share": 0.0},
        {"failed_share": 1.1},
        {"late_share": math.nan},
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|above 0"):
        WindowLimits(**wrong)


def test_calls_that_are_too_old_by_now_are_not_judged_though_none_has_ended_since() -> None:
    """A known row is in no window, and when it ends the window may have moved on."""
    limits = WindowLimits(calls=8, window_s=40.0, least_calls=3, failed_share=0.6, late_share=0.75)
    window = FailureWindow(limits)
    for now_s, end in ((1.0, ANSWERED), (2.0, FAILED), (12.0, SLOW), (32.0, SLOW)):
        window.add(now_s, end, ("ada",))
    assert window.excess(32.0) is Excess.OF_ONE_CALLER
    assert window.excess(42.0) is Excess.NONE
