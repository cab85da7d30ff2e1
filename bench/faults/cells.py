"""The table of stage x fault, with the ends that each may have.

Every good row is one that the primary serves, and that the fallback answers where the primary fails. Every
outlier is one that the guards defer in both cases. So what a fault does to each follows from the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bench.faults.cell import ANY, LIMITED, REFUSED, SAFE, UNANSWERED, WITHHELD, Cell
from bench.faults.proxy import MODES

WATCHED_S: Final = 3.0
"""Within how long a model that answers its known rows wrongly is found out."""


FAILURES: Final = (
    "raise",
    "exit",
    "cancel itself",
    "hang",
    "slow",
    "NaN",
    "minus infinity",
    "wrong dtype",
    "wrong shape",
    "missing rows",
    "nothing",
)
"""Of guards and checks: `on_error` applies to each."""
CHARGE_FAILURES: Final = tuple(one for one in FAILURES if one not in ("cancel itself", "hang", "slow"))
MODEL_FAILURES: Final = (
    "raise",
    "exit",
    "cancel itself",
    "hang",
    "hang in its thread",
    "slow",
    "NaN",
    "infinity",
    "NaN logits",
    "wrong dtype",
    "texts",
    "wrong shape",
    "missing rows",
    "nothing",
    "missing output",
    "logits for probabilities",
)
WRONG_ANSWERS: Final = ("stuck", "rows mixed up")
STORE_FAILURES: Final = (
    "raise",
    "exit",
    "hang",
    "hang in its thread",
    "slow",
    "missing rows",
    "nothing",
    "wrong dtype",
    "disk full",
    "read-only",
    "locked",
)
AUDIT_FAULTS: Final = ("raise", "disk full", "read-only", "slow", "hang", "queue full")
ANSWER_FAULTS: Final = (
    "hang",
    "500",
    "503",
    "404",
    "no JSON",
    "empty",
    "wrong ids",
    "NaN",
    "wrong dtype",
    "wrong shape",
    "missing rows",
    "texts",
    "missing output",
    "no outputs",
)
FILE_FAULTS: Final = (
    "policy garbage",
    "policy deleted",
    "policy edited",
    "certificate edited",
    "guards deleted",
    "guards garbage",
    "model deleted",
    "model garbage",
    "model truncated",
    "model replaced",
    "nothing changed",
)
"""Each is put in place while rows are served, and the policy is then reloaded."""
UNNOTICED: Final = "a guard that reports too little is not found out"
PRIMARY_FAILS: Final = (("primary", "raise"),)


def _blocking(stage: str, beside: tuple[tuple[str, str], ...] = ()) -> Cell:
    """A stage that holds the event loop twice; after that its rows end as usual."""
    good = SAFE if beside else ANY
    return Cell(stage, "block the loop", good, mostly="", beside=beside, blocks=True)


def _judges(
    stage: str, good: frozenset[str], mostly: str, alarm: str, beside: tuple[tuple[str, str], ...] = ()
) -> Iterator[Cell]:
    """A guard or check. good, mostly: where it fails; alarm: how a row ends that it finds suspicious."""
    yield from (Cell(stage, fault, good, mostly=mostly, beside=beside) for fault in FAILURES)
    yield _blocking(stage, beside)
    blind = ANY if stage == "ood" else WITHHELD
    usual = "degraded" if beside else "served"
    yield Cell(stage, "stuck low", ANY, blind, usual, beside, remark=UNNOTICED)
    yield Cell(stage, "stuck high", SAFE, mostly=alarm, beside=beside)


def _guards() -> Iterator[Cell]:
    yield from (Cell("rate", fault) for fault in CHARGE_FAILURES)
    yield _blocking("rate")
    yield Cell("rate", "stuck low")
    limited = frozenset({"refused rate_limited"})
    yield Cell("rate", "stuck high", limited, limited, "refused rate_limited")
    yield Cell("rate", "caller over its limit", LIMITED, WITHHELD | limited, "refused rate_limited")
    yield from (Cell("queries", fault) for fault in (*FAILURES, "stuck low", "stuck high"))
    yield _blocking("queries")
    yield from _judges("ood", WITHHELD, "deferred", "deferred")
    yield from _judges("noise", WITHHELD, "deferred", "deferred")
    yield from _judges("perturbation", SAFE, "degraded", "deferred")
    yield from _judges("confidence", SAFE, "degraded", "degraded")
    yield from _judges("small_confidence", WITHHELD, UNANSWERED, UNANSWERED, PRIMARY_FAILS)


def _models() -> Iterator[Cell]:
    rungs: Sequence[tuple[str, frozenset[str], str, tuple[tuple[str, str], ...]]] = (
        ("primary", SAFE, "degraded", ()),
        ("small", WITHHELD, UNANSWERED, PRIMARY_FAILS),
    )
    for rung, good, mostly, beside in rungs:
        for fault in MODEL_FAILURES:
            yield Cell(rung, fault, good, mostly=mostly, beside=beside)
        yield _blocking(rung, beside)
        for fault in WRONG_ANSWERS:
            yield Cell(rung, fault, good, mostly=mostly, beside=beside, settle_s=WATCHED_S)


def _stores() -> Iterator[Cell]:
    for fault in STORE_FAILURES:
        yield Cell("review", fault, outliers=REFUSED)
    yield Cell("review", "deleted", outliers=REFUSED, restarts=True)
    yield _blocking("review")
    yield Cell("review", "queue full")
    for fault in AUDIT_FAULTS:
        yield Cell("audit", fault)
    yield _blocking("audit")
    yield Cell("audit", "deleted")
    yield Cell("audit", "a folder in its place")


def _telemetry() -> Iterator[Cell]:
    yield Cell("telemetry", "raise")
    yield _blocking("telemetry")
    for mode in MODES[1:]:
        yield Cell("exporter", mode, world="exporter")


def _upstreams() -> Iterator[Cell]:
    for fault in (*MODES[1:], *ANSWER_FAULTS, "kill -9", "stopped"):
        yield Cell("upstream", fault, SAFE, mostly="degraded", world="upstream")
    yield Cell("upstream", "stuck", mostly="", world="upstream", remark="found out within a minute")


def _processes() -> Iterator[Cell]:
    yield Cell("process", "clock stepped forward")
    yield Cell("process", "clock stepped back")
    yield Cell("process", "descriptors exhausted", mostly="", unconnected=True)
    yield Cell("process", "stopped for 1 s", mostly="", blocks=True)
    yield Cell("process", "SIGTERM", restarts=True)
    yield Cell("process", "SIGINT", mostly="", restarts=True, kills=True)
    yield Cell("process", "kill -9", mostly="", restarts=True, kills=True)


CELLS: Final[tuple[Cell, ...]] = (
    *_guards(),
    *_models(),
    *_stores(),
    *(Cell("files", fault) for fault in FILE_FAULTS),
    *_processes(),
    *_telemetry(),
    *_upstreams(),
)
