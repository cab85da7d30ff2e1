"""The results as tables for a terminal, the same lines that the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from gateway.redteam.figures import (
    FIDELITY,
    Success,
    cost_ratio,
    first_alarm_median,
    harmed,
    queries_median,
    rows_ratio,
    rows_to_fidelity,
)
from gateway.redteam.records import Evasion, Extraction, Harm, Membership, Results

NONE = "–"
EVASION_COLUMNS = (
    "attack", "within", "success", "bare success", "queries, median", "bare queries", "cost ratio",
    "first alarm, median", "honest not served",
)  # fmt: skip
EXTRACTION_COLUMNS = (
    "rows from", "keys", "tier seen", "rows", "answered", "fidelity",
    "bare fidelity", f"rows to {FIDELITY:.0%}", "bare rows",
    "cost ratio", "first alarm", "honest not served",
)  # fmt: skip
MEMBERSHIP_COLUMNS = (
    "score", "members", "others", "queries", "TPR at 0.1 % FPR", "bare TPR", "AUC", "bare AUC",
    "first alarm", "honest not served",
)  # fmt: skip
EVASION_NOTE = (
    "Success: answered, by any rung, with another class, of the runs that time did not cut short; 95 % "
    "interval. Queries: of the runs that succeeded. Cost ratio: queries a success, failed runs included, "
    "over the same without it. First alarm: the first query not served for a reason of budgets or abstention."
)
HARM_NOTE = "Honest not served: of another caller's good rows, before the attacks and during this one."


@dataclass(frozen=True, slots=True)
class Lines:
    """One table: its columns and, a line each, the texts of its cells."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def tables(results: Results) -> Iterator[Lines]:
    """Of the kinds of attack that were carried out."""
    before = results.before
    if results.evasions:
        rows = [evasion_line(one, before) for one in results.evasions]
        yield Lines(
            "Rows moved until the answer is wrong", EVASION_COLUMNS, rows, f"{EVASION_NOTE} {HARM_NOTE}"
        )
    if results.extractions:
        rows = [extraction_line(one, before) for one in results.extractions]
        note = "Fidelity: agreement of the stolen model with the bare one on held-out rows, in the end."
        yield Lines("The model stolen", EXTRACTION_COLUMNS, rows, f"{note} {HARM_NOTE}")
    if results.memberships:
        rows = [membership_line(one, before) for one in results.memberships]
        note = "TPR: training rows found where at most 1 other in 1,000 is taken for one, none of fewer."
        yield Lines("Training rows found", MEMBERSHIP_COLUMNS, rows, f"{note} {HARM_NOTE}")


def evasion_line(one: Evasion, before: Harm | None) -> tuple[str, ...]:
    """The cells of one attack."""
    return (
        one.attack,
        one.within,
        success_text(Success.of(one.runs)),
        NONE if one.bare is None else success_text(Success.of(one.bare), interval=False),
        count(queries_median(one.runs)),
        NONE if one.bare is None else count(queries_median(one.bare)),
        ratio(cost_ratio(one)),
        alarm(first_alarm_median(one.runs), bool(one.runs)),
        harm(before, one.during),
    )


def extraction_line(one: Extraction, before: Harm | None) -> tuple[str, ...]:
    """The cells of one theft."""
    last, bare = one.curve[-1:], one.bare[-1:]
    return (
        one.queries_from,
        str(one.keys),
        one.tier,
        count(last[0].rows if last else None),
        count(last[0].answered if last else None),
        percent(last[0].fidelity if last else None),
        percent(bare[0].fidelity if bare else None),
        count(rows_to_fidelity(one.curve)),
        count(rows_to_fidelity(one.bare)),
        ratio(rows_ratio(one.curve, one.bare)),
        alarm(one.first_alarm, bool(one.curve)),
        harm(before, one.during),
    )


def membership_line(one: Membership, before: Harm | None) -> tuple[str, ...]:
    """The cells of one test."""
    return (
        one.score,
        count(one.members),
        count(one.others),
        count(one.queries),
        percent(one.tpr),
        percent(one.bare_tpr),
        NONE if one.auc is None else f"{one.auc:.3f}",
        NONE if one.bare_auc is None else f"{one.bare_auc:.3f}",
        alarm(one.first_alarm, bool(one.queries)),
        harm(before, one.during),
    )


def success_text(success: Success, *, interval: bool = True) -> str:
    """`12 % (5 to 24 %) of 50`."""
    if success.share is None:
        return "no whole run"
    shown = f"{success.share:.0%}" + f" ({100 * success.low:.0f} to {success.high:.0%})" * interval
    return f"{shown} of {success.n}" if interval else shown


def percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.1%}"


def count(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


def ratio(found: object | None) -> str:
    return NONE if found is None else str(found)


def alarm(at: float | None, asked: bool) -> str:
    """`none` where queries were sent and none raised one."""
    return count(at) if at is not None else "none" if asked else NONE


def harm(before: Harm | None, during: Harm | None) -> str:
    """`2.0% → 2.5% of 80`."""
    if before is None or during is None:
        return NONE
    return f"{percent(harmed(before))} → {percent(harmed(during))} of {during.rows}"


def rich_table(lines: Lines) -> Table:
    """For the terminal."""
    table = Table(title=lines.title, title_justify="left", caption=lines.note, caption_justify="left")
    for i, name in enumerate(lines.columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in lines.rows:
        table.add_row(*map(escape, row))
    return table
