"""The validity grid as tables, and its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bench.validity.summary import CONFIDENCE, TOGETHER, Broken, Refused, Summary


@contextmanager
def progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time that is left."""
    columns = (
        TextColumn("re-splits"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def validity_tables(summary: Summary) -> Iterator[Table]:
    """By promise, by population and rows, by shape, and every promise that is broken beyond its margin."""
    yield _by_promise(summary.promises)
    yield _by_cell(summary)
    yield _by_shape(summary)
    broken = [one for one in summary.promises if one.is_broken]
    if broken:
        yield _each(broken)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _by_promise(promises: Sequence[Broken]) -> Table:
    title = "Promises: share broken of all calibrations, and the true share over the promised one"
    table = _table(
        title,
        "promise",
        "cells",
        "may break",
        "broken",
        "worst cell",
        "of printed",
        "beyond margin",
        "by chance",
        "realised",
    )
    for name in dict.fromkeys(one.promise for one in promises):
        these = [one for one in promises if one.promise == name]
        beyond = sum(one.is_broken for one in these)
        table.add_row(
            name,
            str(len(these)),
            _level(these),
            *_shares(these),
            _of_printed(these),
            str(beyond),
            _by_chance(these),
            _realised(these),
        )
    return table


def _by_cell(summary: Summary) -> Table:
    title = "Populations: every policy and budget together"
    table = _table(
        title,
        "calibration rows",
        "re-splits",
        *(f"refused: {reason}" for reason in _reasons(summary)),
        "broken",
        "worst cell",
        "beyond margin",
        "realised",
    )
    for data, rows in dict.fromkeys((one.data, one.rows) for one in summary.refused):
        refused = [one for one in summary.refused if (one.data, one.rows) == (data, rows)]
        these = [
            one
            for one in summary.promises
            if (one.data, one.rows) == (data, rows) and one.promise != TOGETHER
        ]
        why = [_refused(refused, reason) for reason in _reasons(summary)]
        beyond = sum(one.is_broken for one in these)
        table.add_row(
            f"{data} {rows:,}", str(refused[0].resplits), *why, *_shares(these), str(beyond), _realised(these)
        )
    return table


def _by_shape(summary: Summary) -> Table:
    """A line a policy, over every population and number of rows."""
    title = "Policies: refused, rows answered by a model where certified, broken of any promise"
    table = _table(title, "policy", "budget", "refused", "rows answered", "broken", "worst cell", "realised")
    for shape, budget in dict.fromkeys((one.shape, one.budget) for one in summary.refused):
        answered = [one for one in summary.answered if (one.shape, one.budget) == (shape, budget)]
        certified = sum(one.certified for one in answered)
        runs = sum(one.resplits for one in summary.refused if (one.shape, one.budget) == (shape, budget))
        share = sum(one.answered * one.certified for one in answered) / max(1, certified)
        these = [
            one
            for one in summary.promises
            if (one.shape, one.budget) == (shape, budget) and one.promise != TOGETHER
        ]
        shares = f"{1 - certified / runs:.0%}", f"{share:.0%}" if certified else "-"
        table.add_row(shape, f"{budget:.1%}", *shares, *_shares(these), _realised(these))
    return table


def _each(promises: Sequence[Broken]) -> Table:
    title = f"Broken: the lower limit at {CONFIDENCE:.0%} is above the level"
    table = _table(
        title, "promise", "data", "rows", "budget", "shape", "broken", "of", "lower limit", "level"
    )
    for one in promises:
        limits = f"{one.lower:.1%}", f"{one.level:.0%}"
        counts = str(one.broken), str(one.resplits)
        table.add_row(
            one.promise, one.data, f"{one.rows:,}", f"{one.budget:.1%}", one.shape, *counts, *limits
        )
    return table


def _shares(promises: Sequence[Broken]) -> tuple[str, str]:
    """Over all calibrations, and of the promise that is broken most often."""
    runs = sum(one.resplits for one in promises)
    if not runs:
        return "-", "-"
    worst = max(one.broken / one.resplits for one in promises)
    return f"{sum(one.broken for one in promises) / runs:.2%}", f"{worst:.1%}"


def _of_printed(promises: Sequence[Broken]) -> str:
    """The share broken of the calibrations that print it."""
    printed = sum(one.printed for one in promises)
    return f"{sum(one.broken for one in promises) / printed:.2%}" if printed else "-"


def _by_chance(promises: Sequence[Broken]) -> str:
    """How many would be beyond the margin if every one were broken exactly as often as it may be."""
    return f"<= {len(promises) * (1 - CONFIDENCE):.1f}"


def _level(promises: Sequence[Broken]) -> str:
    levels = sorted({one.level for one in promises})
    return f"{levels[0]:.0%}" if len(levels) == 1 else f"{levels[0]:.0%} to {levels[-1]:.0%}"


def _realised(promises: Sequence[Broken]) -> str:
    known = [(one.realised, one.printed) for one in promises if one.realised is not None]
    printed = sum(weight for _, weight in known)
    return f"{sum(share * weight for share, weight in known) / printed:.0%}" if printed else "-"


def _reasons(summary: Summary) -> list[str]:
    """What refused a calibration."""
    return sorted({reason for one in summary.refused for reason in one.refused})


def _refused(refused: Sequence[Refused], reason: str) -> str:
    runs = sum(one.resplits for one in refused)
    return f"{sum(one.refused.get(reason, 0) for one in refused) / runs:.0%}"
