"""Requests wait by priority, and of one priority in turns over their callers."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fair_queue import PRIORITY_LEVELS, FairQueue

CALLERS = st.sampled_from("abc")
PRIORITIES = st.integers(1, PRIORITY_LEVELS + 2)


def emptied(queue: FairQueue[tuple[str, int]]) -> list[tuple[str, int]]:
    items = []
    while (item := queue.first()) is not None:
        queue.pop()
        items.append(item)
    return items


def test_a_callers_one_request_waits_behind_one_of_each_other_caller() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for i in range(100):
        queue.put(("greedy", i), "greedy", 1)
    queue.put(("polite", 0), "polite", 1)
    assert emptied(queue)[:3] == [("greedy", 0), ("polite", 0), ("greedy", 1)]


@given(st.lists(st.tuples(CALLERS, PRIORITIES), max_size=40))
def test_higher_priorities_come_first_and_each_caller_keeps_its_order(puts: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    level = {}
    for i, (caller, priority) in enumerate(puts):
        queue.put((caller, i), caller, priority)
        level[caller, i] = min(priority, PRIORITY_LEVELS)
    items = emptied(queue)
    assert sorted(items) == sorted(level)
    assert [level[item] for item in items] == sorted(level.values())
    for of in {(caller, level[caller, i]) for caller, i in items}:
        own = [i for caller, i in items if (caller, level[caller, i]) == of]
        assert own == sorted(own)


@given(st.lists(CALLERS, max_size=40))
def test_no_caller_has_two_turns_while_another_waits_for_its_first(callers: list[str]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for i, caller in enumerate(callers):
        queue.put((caller, i), caller, 1)
    turns = [caller for caller, _ in emptied(queue)]
    waiting = {caller: callers.count(caller) for caller in callers}
    for caller, run in groupby(turns):
        taken = len(list(run))
        waiting[caller] -= taken
        assert taken == 1 or not any(waiting[other] for other in waiting if other != caller)
