"""What principals have spent: the top of them, and no more memory for more of them."""

from __future__ import annotations

from guards.spending import MOST_PRINCIPALS, Spending


def test_those_that_spent_most_come_first_with_the_rows_that_were_refused() -> None:
    spending = Spending()
    for name, units in (("ada", 5.0), ("bob", 9.0), ("ada", 7.0), ("eve", 0.5), ("ada", -2.0)):
        spending.add(name, units)
    spending.refuse("eve", 3)
    spending.refuse("eve", 1)
    spending.refuse("mallory", 2)
    assert [(one.principal, one.units, one.refused) for one in spending.top(4)] == [
        ("ada", 10.0, 0),
        ("bob", 9.0, 0),
        ("eve", 0.5, 4),
        ("mallory", 0.0, 2),
    ]
    assert spending.total == 19.5
    assert [one.principal for one in spending.top(1)] == ["ada"]


def test_of_very_many_principals_those_that_spent_most_are_kept_and_all_are_in_the_total() -> None:
    spending = Spending()
    spending.add("thief", 1000.0)
    for i in range(3 * MOST_PRINCIPALS):
        spending.add(f"caller {i}", 1.0)
        spending.refuse(f"caller {i}", 1)
    assert len(spending.top(10**6)) <= 2 * MOST_PRINCIPALS
    assert spending.top(1)[0].principal == "thief"
    assert spending.total == 1000 + 3 * MOST_PRINCIPALS
