"""The results as tables for a terminal, the same lines that the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from gateway.redteam.alarms import BEFORE
from gateway.redteam.figures import (
    FIDELITY,
    Success,
    Wait,
    cost_ratio,
    first_alarm_median,
    harmed,
    queries_median,
    rows_ratio,
    rows_to_fidelity,
    wait_to_fidelity,
)
from gateway.redteam.records import Evasion, Extraction, Harm, Membership, Results

NONE = "–"
COLUMNS = (
    "attack", "success", "without gateway", "queries", "without", "cost ratio",
    "alarm in replies", "alarm on record", "honest not served",
)  # fmt: skip
EXTRACTION_COLUMNS = (
    "rows from", "keys", "tier seen", "rows sent", "answered", "fidelity", f"rows to {FIDELITY:.0%}",
    "without gateway", "waited", f"wait to {FIDELITY:.0%}",
)  # fmt: skip
MEMBERSHIP_COLUMNS = (
    "tier seen", "score", "members", "others", "TPR at 0.1 % FPR", "without gateway", "AUC", "AUC without",
)  # fmt: skip
NOTE = (
    "Success: of rows that were moved, the share of runs with a wrong answer, by any rung, with its 95 "
    "% interval; of extraction, the stolen model's agreement with the bare one; of membership, the "
    "training rows found at 0.1 % false positives. Queries: the median of runs that succeeded; rows "
    "sent for a fidelity of 90 %; all. Cost ratio: queries a success, failed runs included, over the "
    "same without the gateway. Alarm: the first query not served for a reason of budgets or abstention, "
    "the median of runs; and that at which a key first was a suspect by the gateway's own record, of "
    "all runs together. Honest not served: of another caller's good rows, before the attacks and during "
    "this one."
)
EXTRACTION_NOTE = (
    "Fidelity: agreement of the stolen model with the bare one on held-out rows, in the end. Wait: of a "
    "thief that keeps to Retry-After; beyond what was sent, at the pace at which rows were answered, "
    "until as many are as are needed without the gateway."
)
MEMBERSHIP_NOTE = (
    "TPR: training rows found where at most 1 other in 1,000 is taken for one, none of fewer. AUC: 0.5 "
    "is a guess."
)


@dataclass(frozen=True, slots=True)
class Lines:
    """One table: its columns and, a line each, the texts of its cells."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def tables(results: Results) -> Iterator[Lines]:
    """One of all attacks, and one more of each kind that has figures of its own."""
    before, read = results.before, results.reads_alarms
    rows = [
        *(evasion_line(one, before, read=read) for one in results.evasions),
        *(extraction_line(one, before, read=read) for one in results.extractions),
        *(membership_line(one, before, read=read) for one in results.memberships),
    ]
    if rows:
        yield Lines("What an attacker pays", COLUMNS, rows, NOTE)
    if results.extractions:
        rows = [theft_line(one) for one in results.extractions]
        yield Lines("The model stolen", EXTRACTION_COLUMNS, rows, EXTRACTION_NOTE)
    if results.memberships:
        rows = [test_line(one) for one in results.memberships]
        yield Lines("Training rows found", MEMBERSHIP_COLUMNS, rows, MEMBERSHIP_NOTE)


def evasion_line(one: Evasion, before: Harm | None, *, read: bool) -> tuple[str, ...]:
    """The cells of one attack by rows that are moved. read: whether the record of alarms is."""
    return (
        f"{one.attack}, {one.within}",
        success_text(Success.of(one.runs)),
        NONE if one.bare is None else success_text(Success.of(one.bare), interval=False),
        count(queries_median(one.runs)),
        NONE if one.bare is None else count(queries_median(one.bare)),
        ratio(cost_ratio(one)),
        alarm(first_alarm_median(one.runs), bool(one.runs)),
        recorded(one.recorded_alarm, read),
        harm(before, one.during),
    )


def extraction_line(one: Extraction, before: Harm | None, *, read: bool) -> tuple[str, ...]:
    """The cells of one theft beside the other attacks."""
    last, bare = one.curve[-1:], one.bare[-1:]
    return (
        f"extraction, {one.queries_from}, {keys(one.keys)}",
        percent(last[0].fidelity if last else None),
        percent(bare[0].fidelity if bare else None),
        count(rows_to_fidelity(one.curve)),
        count(rows_to_fidelity(one.bare)),
        ratio(rows_ratio(one.curve, one.bare)),
        alarm(one.first_alarm, bool(one.curve)),
        recorded(one.recorded_alarm, read),
        harm(before, one.during),
    )


def membership_line(one: Membership, before: Harm | None, *, read: bool) -> tuple[str, ...]:
    """The cells of one test beside the other attacks."""
    return (
        f"membership, {one.score}, {one.tier}",
        percent(one.tpr),
        percent(one.bare_tpr),
        count(one.queries),
        NONE,
        NONE,
        alarm(one.first_alarm, bool(one.queries)),
        recorded(one.recorded_alarm, read),
        harm(before, one.during),
    )


def theft_line(one: Extraction) -> tuple[str, ...]:
    """The cells of one theft by itself."""
    last = one.curve[-1:]
    return (
        one.queries_from,
        str(one.keys),
        one.tier,
        count(last[0].rows if last else None),
        count(last[0].answered if last else None),
        percent(last[0].fidelity if last else None),
        count(rows_to_fidelity(one.curve)),
        count(rows_to_fidelity(one.bare)),
        span(one.waited_s),
        wait(wait_to_fidelity(one)),
    )


def test_line(one: Membership) -> tuple[str, ...]:
    """The cells of one test by itself."""
    return (
        one.tier,
        one.score,
        count(one.members),
        count(one.others),
        percent(one.tpr),
        percent(one.bare_tpr),
        NONE if one.auc is None else f"{one.auc:.3f}",
        NONE if one.bare_auc is None else f"{one.bare_auc:.3f}",
    )


def keys(n: int) -> str:
    return f"{n} key{'s' * (n != 1)}"


def recorded(at: int | None, read: bool) -> str:
    """`not read`; `before` where a key was a suspect before the attack; `none`."""
    if not read:
        return "not read"
    return "none" if at is None else "before" if at == BEFORE else count(at)


def span(seconds: float) -> str:
    """`12 s`, `4 min`, `2.1 h`, `3.5 d`; `never` for ever."""
    if seconds == float("inf"):
        return "never"
    for unit, one in (("d", 86_400), ("h", 3_600)):
        if seconds >= 2 * one:
            return f"{seconds / one:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def wait(found: Wait | None) -> str:
    """`> 25 min` for a lower bound."""
    return NONE if found is None else f"{'> ' * found.at_least}{span(found.seconds)}"


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
