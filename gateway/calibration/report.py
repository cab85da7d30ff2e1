"""A certificate, and the plan of a calibration, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from gateway.calibration.rows_needed import rows_for_budget, rows_for_error
from gateway.deployment.certificate import Certificate
from gateway.deployment.promises import InForce, in_force, percent
from gateway.policy.observation import observed_at, utc_now
from gateway.policy.schema import Policy

BUDGETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
CAPTION = (
    "For answers, rows: if none is wrong and all are accepted. Half of it wrong: half of what is promised "
    "is; nine calibrations in ten pass. Where a check rejects half, twice as many. Fitting a guard takes "
    "about 250."
)
ERRORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)


def certificate_table(certificate: Certificate, policy: Policy) -> Table:
    """The promises of the certificate, one a row, with what holds of all of them and what is not promised.

    Those that the policy withdraws are shown as what was certified; the caption says that none is in force.
    """
    holds = in_force(policy, certificate, observed_at(policy.guards, utc_now()))
    table = Table(
        title=escape(f"{certificate.deployment}: what is promised, for {certificate.population}"),
        caption="\n".join(_caption(holds)),
        caption_justify="left",
    )
    for column in ("promise", "at most", "confidence", "from", "cut"):
        table.add_column(column)
    for one in holds.certified:
        cut = "" if one.cut is None else f"{one.cut:.4g}"
        what = escape(one.what)
        table.add_row(what, one.at_most, percent(one.confidence), escape(one.evidence), cut)
    return table


def _caption(holds: InForce) -> Iterator[str]:
    yield escape(holds.confidence)
    if holds.not_promised:
        yield "Not promised:"
        yield from (escape(f"- {one}") for one in holds.not_promised)


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
    errors = {check.selective_error for rung in policy.rungs for check in rung.checks}
    errors |= set() if policy.answered_error is None else {policy.answered_error}
    wrong = "true values outside the interval" if policy.task == "regression" else "answers wrong"
    shares = () if policy.task == "opaque" else sorted({*ERRORS, *errors})

    def planned(what: str, share: float, rows: int, half: int | None, asked: bool) -> PlannedPromise:
        return PlannedPromise(what, share, rows, half, asked, None if samples is None else samples >= rows)

    return [
        planned("good rows stopped", a, rows_for_budget(a, delta), None, a in budgets)
        for a in sorted({*BUDGETS, *budgets})
    ] + [
        planned(wrong, r, rows_for_error(r, delta, 0.0), rows_for_error(r, delta, r / 2), r in errors)
        for r in shares
    ]


def plan_table(policy: Policy, samples: int | None) -> Table:
    """The plan for the terminal."""
    has = "" if samples is None else f"; the file has {samples}"
    table = Table(
        title=f"{policy.name}: independent rows that a calibration file needs{has}",
        caption="Fitting a guard takes about 250 rows." if policy.task == "opaque" else CAPTION,
        caption_justify="left",
    )
    for column in ("promise", "at most", "rows", "rows, half of it wrong", ""):
        table.add_column(column, justify="right" if column.startswith("rows") else "left")
    for one in plan_rows(policy, samples):
        notes = ["in the policy"] * one.asked + ["too few rows"] * (one.enough is False)
        half = "" if one.rows_half_wrong is None else f"{one.rows_half_wrong}"
        table.add_row(one.promise, percent(one.at_most), f"{one.rows}", half, ", ".join(notes))
    return table
