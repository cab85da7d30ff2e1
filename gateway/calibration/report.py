"""A certificate, and the plan of a calibration, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from gateway.calibration.rows_needed import rows_for_budget, rows_for_error
from gateway.deployment.certificate import Certificate
from gateway.deployment.promises import confidence_sentence, promises
from gateway.policy.schema import Policy

BUDGETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
ERRORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)


def certificate_table(certificate: Certificate) -> Table:
    """The promises of the certificate, one a row, with what holds of all of them and what is not promised."""
    table = Table(
        title=f"{certificate.deployment}: what is promised, for {certificate.population}",
        caption="\n".join(_caption(certificate)),
        caption_justify="left",
    )
    for column in ("promise", "at most", "confidence", "from", "cut"):
        table.add_column(column)
    for one in promises(certificate):
        table.add_row(
            one.what,
            f"{100 * one.at_most:.3g} %",
            f"{100 * one.confidence:.3g} %",
            one.evidence,
            f"{one.cut:.4g}",
        )
    return table


def _caption(certificate: Certificate) -> Iterator[str]:
    yield confidence_sentence(certificate)
    if certificate.not_promised:
        yield "Not promised:"
        yield from (escape(f"- {one}") for one in certificate.not_promised)


@dataclass(frozen=True, slots=True)
class PlannedPromise:
    """One promise and the independent rows that it takes in the whole file.

    rows: if no answer is wrong; rows_half_wrong: if half of what is promised is, None for false alarms.
    asked: the policy asks for it; enough: whether the file has `rows`, None without a file.
    """

    promise: str
    at_most: float
    rows: int
    rows_half_wrong: int | None
    asked: bool
    enough: bool | None


def plan_rows(policy: Policy, samples: int | None) -> list[PlannedPromise]:
    """Which promise takes how many rows. samples: the independent rows of a file, None without one."""
    delta = policy.delta
    budgets = {policy.false_alarm_budget} if any(guard.certified for guard in policy.guards) else set()
    errors = {check.selective_error for rung in policy.rungs for check in rung.checks} | {
        policy.answered_error
    }

    def planned(what: str, share: float, rows: int, half: int | None, asked: bool) -> PlannedPromise:
        return PlannedPromise(what, share, rows, half, asked, None if samples is None else samples >= rows)

    return [
        planned("good rows stopped", a, rows_for_budget(a, delta), None, a in budgets)
        for a in sorted({*BUDGETS, *budgets})
    ] + [
        planned(
            "answers wrong", r, rows_for_error(r, delta, 0.0), rows_for_error(r, delta, r / 2), r in errors
        )
        for r in sorted({*ERRORS, *errors})
    ]


def plan_table(policy: Policy, samples: int | None) -> Table:
    """The plan for the terminal."""
    has = "" if samples is None else f"; the file has {samples}"
    table = Table(
        title=f"{policy.name}: independent rows that a calibration file needs{has}",
        caption="For answers, rows: if none is wrong and all are accepted. Half of it wrong: half "
        "of what is promised is; nine calibrations in ten pass. Where a check rejects half, twice as many.",
        caption_justify="left",
    )
    for column in ("promise", "at most", "rows", "rows, half of it wrong", ""):
        table.add_column(column, justify="right" if column.startswith("rows") else "left")
    for one in plan_rows(policy, samples):
        notes = ["in the policy"] * one.asked + ["too few rows"] * (one.enough is False)
        half = "" if one.rows_half_wrong is None else f"{one.rows_half_wrong}"
        table.add_row(one.promise, f"{100 * one.at_most:.3g} %", f"{one.rows}", half, ", ".join(notes))
    return table
