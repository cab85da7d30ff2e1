"""A thief that keeps to Retry-After uses the keys that need not wait, and its waits are counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from gateway.core.rows import F8
from gateway.redteam.answers import Answer
from gateway.redteam.keyring import PATIENCE, Keyring
from gateway.redteam.run import Limits, Over, Tally
from guards.gcra import Limit

ROW = np.zeros(4)
RIGHT = Answer("served", "ok", 0)


@dataclass
class Budgeted:
    """Answers `burst` rows at once and `per_s` a second, as a budget does, with its wait in a refusal."""

    limit: Limit
    rows_a_request: int = 1
    tat: float = field(default=0.0)

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        now, each = time.monotonic(), 1 / self.limit.per_s
        tat = max(self.tat, now) + each
        wait = tat - now - self.limit.burst * each
        if wait > 1e-9:
            return [Answer("refused", "rate_limited", retry_after_s=wait)]
        self.tat = tat
        return [RIGHT]


def keyring(
    *models: Budgeted, seconds: float = 20, queries: int = 1000, obey: bool = True
) -> tuple[Keyring, Tally]:
    tally = Tally()
    return Keyring(models, Limits(queries, time.monotonic() + seconds, obey), tally), tally


def test_a_key_that_has_to_wait_is_left_for_one_that_has_not() -> None:
    keys, tally = keyring(Budgeted(Limit(0.01, 3)), Budgeted(Limit(0.01, 5)))
    assert all(keys.ask(ROW) is RIGHT for _ in range(8))
    assert tally.waited_s == 0 and tally.queries == 9  # one row was sent once more
    assert tally.outcomes["refused"] == 1


def test_where_all_keys_have_to_wait_it_waits_for_the_first_and_the_pace_is_that_of_all() -> None:
    keys, tally = keyring(*(Budgeted(Limit(10, 2)) for _ in range(2)))
    begun_s = time.monotonic()
    assert all(keys.ask(ROW) is RIGHT for _ in range(24))
    took_s = time.monotonic() - begun_s
    assert took_s == pytest.approx(1.0, abs=0.4) and 0.5 < tally.waited_s <= took_s
    assert keys.pace() == pytest.approx(20, rel=0.3)


def test_a_wait_longer_than_the_time_left_ends_it_at_once() -> None:
    keys, _ = keyring(Budgeted(Limit(0.001, 2)), seconds=5)
    begun_s = time.monotonic()
    with pytest.raises(Over) as over:
        for _ in range(3):
            keys.ask(ROW)
    assert over.value.why == "time" and time.monotonic() - begun_s < 1
    pace = keys.pace()
    assert pace is not None and pace == pytest.approx(0.001, rel=0.1)


def test_a_thief_that_does_not_keep_to_it_never_waits() -> None:
    keys, tally = keyring(Budgeted(Limit(0.001, 2)), obey=False)
    assert [keys.ask(ROW).outcome for _ in range(4)] == ["served", "served", "refused", "refused"]
    assert tally.waited_s == 0


def test_waits_that_do_not_help_are_given_up() -> None:
    class Full(Budgeted):
        def ask(self, rows: F8, /) -> Sequence[Answer]:
            return [Answer("refused", "rate_limited", retry_after_s=0.01)]

    keys, tally = keyring(Full(Limit(1, 1)))
    assert {keys.ask(ROW).outcome for _ in range(10)} == {"refused"}
    assert tally.waited_s == pytest.approx(PATIENCE * 0.01, rel=0.5)
    assert keys.pace() is not None


def test_without_a_refusal_there_is_no_pace() -> None:
    keys, _ = keyring(Budgeted(Limit(100, 100)))
    keys.ask(ROW)
    assert keys.pace() is None
