"""How many rows may be under way: against a model of the limit, and its answers to what is measured."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core import row_limit
from gateway.core.batch_size import BatchSize
from gateway.core.row_limit import (
    FIRST_ROWS,
    LEAST_RETRY_S,
    LEAST_ROWS,
    LONGEST_RETRY_S,
    PRIORITY_SHARES,
    RowLimit,
)

DEADLINE_S = 1.0
CALLERS, PRIORITIES, ROWS = st.sampled_from("abcd"), st.integers(1, 4), st.integers(1, 60)


def fresh() -> RowLimit:
    return RowLimit(DEADLINE_S, BatchSize(128))


class Admission(RuleBasedStateMachine):
    """Rows come and go; batches take more or less time."""

    def __init__(self) -> None:
        super().__init__()
        self.limit, self.held = fresh(), list[tuple[str, int, int]]()

    @rule(caller=CALLERS, rows=ROWS, priority=PRIORITIES)
    def comes(self, caller: str, rows: int, priority: int) -> None:
        room = self.limit.has_room(caller, rows, DEADLINE_S, priority)
        if room:
            assert self.limit.has_room(caller, rows, DEADLINE_S, max(1, priority - 1)) or priority == 1
            self.limit.take(caller, rows, priority)
            self.held.append((caller, rows, priority))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.held))
        self.held.remove(one)
        self.limit.release(*one)

    @rule(waited_s=st.floats(0, 2), deciding_s=st.floats(0.001, 1))
    def learns(self, waited_s: float, deciding_s: float) -> None:
        self.limit.observe(16, waited_s, deciding_s, deciding_s / 2)

    @invariant()
    def counts_what_is_under_way(self) -> None:
        by_priority = Counter[int]()
        for _, rows, priority in self.held:
            by_priority[priority] += rows
        for priority in range(1, len(PRIORITY_SHARES) + 1):
            assert self.limit.ahead(priority) == sum(by_priority[p] for p in range(1, priority + 1))
        assert LEAST_ROWS <= self.limit.rows <= row_limit.MOST_ROWS

    @invariant()
    def takes_what_finds_nothing_before_it(self) -> None:
        if not self.held:
            assert self.limit.has_room("caller", 1024, 0.0)


TestAdmission = Admission.TestCase


def filled(limit: RowLimit, caller: str, priority: int = 1) -> None:
    for _ in range(3 * FIRST_ROWS):
        if not limit.has_room(caller, 1, DEADLINE_S, priority):
            return
        limit.take(caller, 1, priority)
    raise AssertionError("there is no limit")


def test_a_greedy_caller_takes_its_share_and_a_polite_one_gets_in() -> None:
    limit = fresh()
    filled(limit, "greedy")
    assert not limit.has_room("greedy", 1, DEADLINE_S)
    filled(limit, "polite")
    assert limit.under_way <= 2 * FIRST_ROWS
    limit.release("greedy", 100, 1)
    assert not limit.has_room("greedy", 1, DEADLINE_S), "the limit is still reached, and it has its half"
    limit.release("greedy", 100, 1)
    assert limit.has_room("greedy", 1, DEADLINE_S)


def test_lower_priorities_take_no_room_from_higher_ones() -> None:
    limit = fresh()
    filled(limit, "mass", priority=4)
    assert limit.under_way == int(FIRST_ROWS * PRIORITY_SHARES[3])
    for priority in (3, 2, 1):
        assert limit.has_room("mass", int(FIRST_ROWS * PRIORITY_SHARES[priority - 1]), DEADLINE_S, priority)
    filled(limit, "mass", priority=1)
    assert not limit.has_room("other", FIRST_ROWS, DEADLINE_S, 4)


def test_it_shrinks_while_rows_wait_and_grows_while_they_do_not() -> None:
    limit = fresh()
    limit.take("a", FIRST_ROWS, 1)
    for _ in range(30):
        limit.observe(16, 0.8, 0.05, 0.02)
    small = limit.rows
    assert small < FIRST_ROWS / 2
    for _ in range(100):
        limit.observe(16, 0.0, 0.02, 0.01)
    assert limit.rows > small


def test_it_does_not_grow_where_nothing_shows_that_more_would_fit() -> None:
    limit = fresh()
    limit.take("a", 1, 1)
    for _ in range(100):
        limit.observe(1, 0.0, 0.001, 0.001)
    assert limit.rows == FIRST_ROWS


def test_rows_that_could_not_be_answered_in_time_find_no_room() -> None:
    limit = fresh()
    for _ in range(50):
        limit.observe(16, 0.05, 0.1, 0.1)  # 16 rows in a tenth of a second
    limit.take("a", 64, 1)
    assert limit.has_room("a", 1, left_s=0.5)
    assert not limit.has_room("a", 1, left_s=0.3)
    assert limit.rows == pytest.approx(96, abs=2), "what three fifths of the deadline are enough for"


def test_a_refusal_tells_how_long_all_that_was_refused_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(row_limit, "now_s", lambda: now[0])
    limit = fresh()
    for _ in range(50):
        limit.observe(16, 0.0, 0.1, 0.1)
    assert limit.refuse(1) == LEAST_RETRY_S
    assert limit.refuse(799) == pytest.approx(5.0, rel=0.05), "800 rows at 160 a second"
    assert limit.refuse(100_000) == LONGEST_RETRY_S
    now[0] += 60.0
    assert limit.refuse(1) == LEAST_RETRY_S
