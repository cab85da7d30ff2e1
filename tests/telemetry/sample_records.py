"""Finished requests of every outcome and every kind of finding, always the same.

`recorded/audit.jsonl` and `recorded/metrics.txt` hold what the gateway wrote of them before it had sinks.
"""

from __future__ import annotations

import math

import numpy as np

from gateway.core.assessment import Assessment, Findings, Trail
from gateway.core.decision import (
    Decision,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Verdict,
)
from gateway.core.record import RequestRecord

ALLOW, DEGRADE, DEFER, REFUSE = Verdict.ALLOW, Verdict.DEGRADE, Verdict.DEFER, Verdict.REFUSE
OUTPUT = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
NAN = math.nan

TRAIL: Trail = [
    (
        np.arange(4),
        Assessment("rate", np.array([0.1, 1 / 3, NAN, 0.5]), np.zeros(4, np.int8), True, True, 0.000_012_4),
    ),
    (
        np.arange(4),
        Assessment(
            "ood",
            np.array([5.5, math.inf, 0.0, 1e-9]),
            np.array([DEFER, REFUSE, ALLOW, ALLOW], np.int8),
            False,
            True,
            0.002,
            {},
            frozenset({0, 3}),
        ),
    ),
    (
        np.arange(4),
        Assessment("watched", np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4, np.int8), True, False, 0.0004),
    ),
    (
        np.array([2, 3]),
        Assessment(
            "primary",
            np.array([NAN, 0.75]),
            np.array([DEGRADE, ALLOW], np.int8),
            False,
            True,
            0.1,
            {0: "primary: no answer in 0.100 s \udcff"},
        ),
    ),
]
"""One pass of four rows: the last two reach the primary, which fails for one of them."""

OUTCOMES: tuple[Outcome, ...] = (
    Deferred("p.0", Reason.ABSTAINED),
    Refused(Reason.RATE_LIMITED, 1.5),
    Degraded(OUTPUT, "small", Reason.UNAVAILABLE),
    Served(OUTPUT, "primary"),
)
PLAIN_FINDINGS = (
    Finding("rate", 0.25, ALLOW, True, 0.000_012_4),
    Finding("ood", 5.4321, DEFER, True, 0.002, "input_only"),
    Finding("watched", None, REFUSE, False, 0.1, "full", "watched: no answer in 0.100 s"),
    Finding("infinite", math.inf, REFUSE, True, 0.0),
)


def sample_records() -> list[RequestRecord]:
    """Six requests: one of four rows, four whose rows shared that pass, and one that no pass judged."""
    rows = tuple(
        Decision(f"p.{row}", outcome, Findings(TRAIL, row), "letters@1#0")
        for row, outcome in enumerate(OUTCOMES)
    )
    whole = RequestRecord(
        "p", "anonymous@127.0.0.1", "letters@1#0", "enforce", 1_700_000_000.25, 0.01234567, rows
    )
    alone = [
        RequestRecord(f"a{row}", "ada", "letters@1#0", "observe", 1_700_000_001.0 + row, 0.3, (decision,))
        for row, decision in enumerate(rows)
    ]
    plain = Decision("q", Refused(Reason.DEADLINE), PLAIN_FINDINGS, "")
    return [whole, *alone, RequestRecord("q", 'é\u2028\n"', "", "enforce", 1_700_000_009.0, 2.6, (plain,))]
