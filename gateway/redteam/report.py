"""The results as files: one HTML page that loads nothing, and JSON beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from gateway.calibration.page.templates import templates_of
from gateway.core.errors import ArtifactError, Problem
from gateway.redteam.figures import (
    Success,
    cost_ratio,
    first_alarm_median,
    queries_median,
    rows_ratio,
    rows_to_fidelity,
    wait_to_fidelity,
)
from gateway.redteam.plots import evasion_plots, extraction_plots
from gateway.redteam.records import Evasion, Extraction, Results
from gateway.redteam.table import tables

FOLDER = Path(__file__).parent
TEMPLATE, HTML, JSON = "redteam.html", ".html", ".json"
LIMITS = (
    "A defence is as strong as the best attack on it. These are published ones; an attacker with more "
    "queries, keys, time or knowledge of the guards pays less than is shown here.",
    "Attacks know nothing but replies. One that knows the model, or a similar one, needs fewer queries.",
    "Without --lattice only the adaptive attack keeps values as real rows have them: whole numbers whole, "
    "pixels in 8 bits. None keeps columns consistent with each other; one that does may alarm later.",
    "Runs with the same key follow each other: a guard that remembers a caller knows the earlier ones.",
)

_templates = templates_of(FOLDER)


def as_json(results: Results) -> bytes:
    """Every run, and what all say together."""
    document: dict[str, Any] = asdict(results)
    for shown, one in zip(document["evasions"], results.evasions, strict=True):
        shown["figures"] = _evasion_figures(one)
    for shown, theft in zip(document["extractions"], results.extractions, strict=True):
        shown["figures"] = _extraction_figures(theft)
    return orjson.dumps(
        document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    )


def render(results: Results) -> str:
    """The whole page. Cost: 50 ms."""
    return _templates.get_template(TEMPLATE).render(
        results=results,
        tables=list(tables(results)),
        evasion_plots=evasion_plots(results.evasions),
        extraction_plots=extraction_plots(results.extractions),
        limits=LIMITS,
    )


def paths_of(report: Path) -> tuple[Path, Path]:
    """The page and the JSON file beside it. Raises ArtifactError where they cannot be written."""
    page = report if report.suffix == HTML else report.with_name(report.name + HTML)
    if not page.parent.is_dir():
        raise ArtifactError([Problem("--report", "there is no such folder", str(page.parent))])
    if page.is_dir():
        raise ArtifactError([Problem("--report", "is a folder; name a file", str(page))])
    return page, page.with_suffix(JSON)


def write(results: Results, paths: tuple[Path, Path]) -> None:
    """Both files. Raises OSError."""
    page, data = paths
    data.write_bytes(as_json(results))
    page.write_text(render(results), "utf-8")


def _evasion_figures(one: Evasion) -> dict[str, Any]:
    ratio = cost_ratio(one)
    return {
        "success": asdict(Success.of(one.runs)),
        "bare_success": None if one.bare is None else asdict(Success.of(one.bare)),
        "queries_median": queries_median(one.runs),
        "bare_queries_median": None if one.bare is None else queries_median(one.bare),
        "cost_ratio": None if ratio is None else asdict(ratio),
        "first_alarm_median": first_alarm_median(one.runs),
    }


def _extraction_figures(one: Extraction) -> dict[str, Any]:
    ratio, wait = rows_ratio(one.curve, one.bare), wait_to_fidelity(one)
    return {
        "rows_to_fidelity": rows_to_fidelity(one.curve),
        "bare_rows_to_fidelity": rows_to_fidelity(one.bare),
        "wait_to_fidelity": None if wait is None else asdict(wait),
        "cost_ratio": None if ratio is None else asdict(ratio),
    }
