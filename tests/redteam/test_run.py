"""Every query is counted, the first alarm noted, and a run ends at its success or a limit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gateway.core.rows import F8
from gateway.redteam.answers import Answer
from gateway.redteam.campaign import carry_out
from gateway.redteam.records import RunRecord
from gateway.redteam.run import Limits, Run
from gateway.redteam.space import Within
from tests.support.attacked import Scripted, picture_space

SPACE = picture_space()
START = np.full(64, 0.5)
RIGHT, WRONG = Answer("served", "ok", 0), Answer("served", "ok", 1)
DEFERRED = Answer("deferred", "abstained")
BUSY = Answer("refused", "unavailable", retry_after_s=0.01)
TOO_FAST = Answer("refused", "rate_limited", retry_after_s=0.01)


def record(*answers: Answer, step: float = 0.0, queries: int = 20, seconds: float = 60, obey: bool = True,
           rows: int = 1) -> RunRecord:  # fmt: skip
    """Of an attack that sends one row again and again; the last answer stays."""
    model = Scripted(lambda n, row: answers[min(n, len(answers)) - 1], rows)
    run = Run(model, SPACE, Within("l2", 1.0), Limits(queries, time.monotonic() + seconds, obey), START)

    def attack(run: Run, rng: np.random.Generator, others: F8) -> None:
        while True:
            run.ask_all(np.repeat(START[None] + step, rows, axis=0))

    found = carry_out(attack, run, np.random.default_rng(0), np.empty((0, 64)), 7, 0)
    assert found.queries == len(model.rows) == sum(found.outcomes.values())
    return found


def test_a_run_ends_with_the_query_that_succeeds() -> None:
    found = record(RIGHT, RIGHT, RIGHT, WRONG)
    assert (found.ended, found.queries, found.by, found.row) == ("success", 4, "served", 7)
    assert found.first_alarm is None


def test_an_answer_of_a_fallback_is_a_success_too() -> None:
    found = record(RIGHT, Answer("degraded", "abstained", 1))
    assert (found.ended, found.by, found.first_alarm) == ("success", "degraded", 2)


def test_a_wrong_answer_beyond_the_radius_is_no_success_but_the_nearest_is_kept() -> None:
    found = record(RIGHT, WRONG, step=0.25)
    assert (found.ended, found.queries) == ("queries", 20)
    assert found.nearest == pytest.approx(2.0)


def test_a_refusal_is_a_query_without_an_answer_and_the_first_one_is_the_alarm() -> None:
    found = record(RIGHT, RIGHT, DEFERRED)
    assert (found.ended, found.first_alarm, found.nearest) == ("queries", 3, None)
    assert found.outcomes == {"served": 2, "deferred": 18} and found.reasons == {"abstained": 18}


def test_a_failure_of_the_gateway_is_no_alarm() -> None:
    assert record(RIGHT, BUSY).first_alarm is None


def test_a_row_that_is_not_served_rightly_to_begin_with_is_unfit() -> None:
    for first in (WRONG, DEFERRED, Answer("degraded", "abstained", 0)):
        assert (record(first).ended, record(first).queries) == ("unfit", 1)


def test_retry_after_is_waited_for_and_the_row_sent_once_more() -> None:
    found = record(RIGHT, TOO_FAST, RIGHT, RIGHT, TOO_FAST, WRONG)
    assert (found.ended, found.queries, found.first_alarm) == ("success", 6, 2)
    assert found.waited_s == pytest.approx(0.02)


def test_where_waiting_does_not_help_the_run_waits_no_more() -> None:
    found = record(RIGHT, TOO_FAST)
    assert (found.ended, found.queries) == ("queries", 20)
    assert found.waited_s == pytest.approx(0.01)


def test_an_attacker_may_ignore_retry_after() -> None:
    assert record(RIGHT, TOO_FAST, obey=False).waited_s == 0


def test_a_run_ends_in_time() -> None:
    found = record(RIGHT, Answer("refused", "rate_limited", retry_after_s=4.0), seconds=0.1)
    assert (found.ended, found.counted) == ("time", False)
    assert found.seconds < 2


def test_several_rows_of_a_request_are_several_queries() -> None:
    found = record(RIGHT, *[RIGHT] * 5, DEFERRED, WRONG, rows=4, queries=11)
    assert (found.ended, found.queries, found.first_alarm) == ("success", 9, 7)


def test_ctrl_c_ends_a_run_and_keeps_it() -> None:
    def stop(n: int, row: F8) -> Answer:
        if n == 3:
            raise KeyboardInterrupt
        return RIGHT

    run = Run(Scripted(stop), SPACE, Within("l2", 1.0), Limits(9, time.monotonic() + 9), START)

    def attack(run: Run, rng: np.random.Generator, others: F8) -> None:
        run.ask_all(np.tile(START, (9, 1)))

    found = carry_out(attack, run, np.random.default_rng(0), np.empty((0, 64)), 0, None)
    assert (found.ended, found.queries, found.counted) == ("interrupted", 2, False)
