"""A quality report as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table

from bench.deployment_under_test import BASELINE, INPUT_ONLY, JOINT
from bench.measured_shares import MeasuredShare, PromiseVerdict
from bench.report import FamilyFigures, QualityReport
from bench.resplits import Resplit

VERDICT_COLOURS = {
    PromiseVerdict.HOLDS: "green",
    PromiseVerdict.CONSISTENT: "yellow",
    PromiseVerdict.BROKEN: "bold red",
    PromiseVerdict.NONE: "",
}


def quality_tables(report: QualityReport) -> Iterator[Table]:
    """Every table of a report."""
    about = f"{report.policy}, {report.rows} good rows of {report.data}"
    yield _share_table(f"{about}: everything works", report.healthy)
    yield _share_table("the same rows while the primary is broken", report.broken)
    if report.families:
        yield _families(report)
        yield _scores("AUROC against the good rows", report, [f.auroc for f in report.families])
        title = f"share caught at {report.budget:.1%} false alarms, each score with a threshold of its own"
        yield _scores(title, report, [f.tpr for f in report.families])
    if report.resplits:
        yield _resplits(report, report.resplits)


def _table(title: str, first: str, *others: str, caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _share_table(title: str, claims: Sequence[MeasuredShare]) -> Table:
    table = _table(title, "share of rows", "rows", "of", "measured", "95 % interval", "promised", "verdict")
    for one in claims:
        promised = "" if one.promised is None else f"<= {one.promised:.1%}"
        colour = VERDICT_COLOURS[one.verdict]
        verdict = f"[{colour}]{one.verdict}[/]" if colour else str(one.verdict)
        measured, low, high = (f"{share:.2%}" if one.n else "-" for share in (one.share, one.low, one.high))
        table.add_row(one.what, str(one.events), str(one.n), measured, f"{low} .. {high}", promised, verdict)
    return table


def _families(report: QualityReport) -> Table:
    table = _table(
        "outcomes of outliers, and of harmless change",
        "family", "from", "rows", "diverted", "stopped", "wrongly\nanswered",
        "diverted,\nbroken", "stopped,\nbroken",
        caption="diverted: no model answered. stopped: by the guards. broken: while the primary is gone.",
    )  # fmt: skip
    for family in _in_sections(table, report.families):
        wrong = "" if family.wrong is None else f"{family.wrong:.1%}"
        shares = [f"{share:.1%}" for share in (family.diverted, family.stopped)]
        input_only = [f"{share:.1%}" for share in (family.diverted_broken, family.stopped_broken)]
        table.add_row(family.name, family.origin, str(family.n), *shares, wrong, *input_only)
    return table


def _scores(title: str, report: QualityReport, figures: Sequence[Mapping[str, float]]) -> Table:
    same = {JOINT} if len(report.guards) == 1 else set()
    names = [name for name in figures[0] if name not in same]
    caption = (
        f"{BASELINE}: how unsure the primary is, for comparison. {INPUT_ONLY}: while the primary is gone."
    )
    table = _table(title, "family", *names, caption=caption)
    by_name = {(f.origin, f.name): of for f, of in zip(report.families, figures, strict=True)}
    for family in _in_sections(table, report.families):
        of = by_name[family.origin, family.name]
        best = max(of.values())
        table.add_row(family.name, *(_figure(of[name], bold=of[name] == best) for name in names))
    outliers = [of for f, of in zip(report.families, figures, strict=True) if f.origin != "harmless"]
    if outliers:
        table.add_section()
        means = [float(np.mean([of[name] for of in outliers])) for name in names]
        table.add_row("mean of the outliers", *map(_figure, means))
    return table


def _in_sections(table: Table, families: Sequence[FamilyFigures]) -> Iterator[FamilyFigures]:
    """The families, with a line wherever they come from elsewhere."""
    for before, family in zip([None, *families], families, strict=False):
        if before is not None and before.origin != family.origin:
            table.add_section()
        yield family


def _figure(share: float, bold: bool = False) -> str:
    return f"[bold]{100 * share:.1f}[/]" if bold else f"{100 * share:.1f}"


def _resplits(report: QualityReport, resplits: Sequence[Resplit]) -> Table:
    table = _table(
        f"false alarms when the cut is drawn again, {resplits[0].splits} times; budget {report.budget:.1%}",
        "risk, where the alarms are counted", "cut from", "counted in", "mean", "expected",
        "over budget", "expected", "true rate over",
        caption="expected: exact for exchangeable rows without ties. The certificate bounds the true rate:\n"
        f"over the budget with probability at most {report.delta:g}. A finite count is over more often.",
    )  # fmt: skip
    for one in resplits:
        shares = (one.mean, one.expected_mean, one.exceed, one.expected_exceed, one.true_exceed)
        table.add_row(one.what, str(one.n), str(one.m), *(f"{share:.2%}" for share in shares))
    return table
