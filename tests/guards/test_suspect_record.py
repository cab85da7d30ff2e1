"""The record of suspects: names and rows, the row of the first alarm, bounded memory."""

from __future__ import annotations

from guards.sequence import Bets
from guards.suspect_record import SuspectRecord
from guards.suspects import OVERLAPS, Suspects


def test_a_principal_has_its_name_its_rows_and_the_row_of_its_first_alarm() -> None:
    record = SuspectRecord()
    for rows, has_alarmed in ((5, False), (3, True), (4, True)):
        record.add(7, "eve", rows, has_alarmed=has_alarmed)
    (eve,) = record.of([7, 8])
    assert (eve.name, eve.rows, eve.alarm_row) == ("eve", 12, 8)


def test_those_that_alarmed_first_come_first_and_then_those_with_most_rows() -> None:
    record = SuspectRecord()
    record.add(1, "ada", 50, has_alarmed=False)
    record.add(2, "bob", 60, has_alarmed=False)
    record.add(3, "mallory", 1, has_alarmed=False)
    record.add(4, "eve", 900, has_alarmed=True)
    record.add(3, "mallory", 1, has_alarmed=True)
    assert [one.name for one in record.of([1, 2, 3, 4])] == ["eve", "mallory", "bob", "ada"]


def test_principals_beyond_the_most_are_forgotten_those_seen_least_recently_first() -> None:
    record = SuspectRecord(most=2)
    for who in (1, 2, 1, 3):
        record.add(who, f"caller{who}", 1, has_alarmed=False)
    assert {one.name for one in record.of([1, 2, 3])} == {"caller1", "caller3"}


def test_each_suspect_is_listed_once_the_one_with_most_evidence_first() -> None:
    suspects = Suspects(Bets(0.05, 0.01))
    for who, hits in ((1, [False] * 5), (2, [True] * 5), (3, [True] * 9)):
        suspects.observe(who, "", hits)
    for _ in range(OVERLAPS):
        suspects.overlap(1, 2)
    listed = suspects.listed()
    assert [one.members for one in listed] == [{3}, {1, 2}]
    assert [one.standing for one in listed] == [suspects.standing(3), suspects.standing(1)]
