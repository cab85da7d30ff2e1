"""One JSON line a row, with everything needed to explain it; off the request path, bounded, never silent.

The request path only appends to a bounded buffer. A task drains it to the log file and to telemetry. When
the buffer is full the record is counted as a gap, and the next line that is written says so: an audit log
with a hole says where the hole is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import orjson
from cachetools import FIFOCache

from gateway.decision import Decision, Deferred, Degraded, Finding, Outcome, Refused, Served

DRAIN_EVERY_S = 0.1
ROTATE_BYTES = 64 * 2**20
log = logging.getLogger(__name__)


class Record(NamedTuple):
    """One request as it ended. `id` is what the caller got; `received_s` is wall time (Unix seconds)."""

    id: str
    principal: str
    policy: str
    mode: str
    received_s: float
    elapsed_s: float
    decisions: tuple[Decision, ...]


class Audit:
    """Takes records at once, keeps the latest for `GET /decisions/{id}`, writes all of them soon after."""

    def __init__(
        self,
        path: Path,
        sinks: Sequence[Callable[[Sequence[Record]], None]] = (),
        *,
        buffer: int = 20_000,
        keep: int = 10_000,
    ) -> None:
        self._path = path
        self._sinks = sinks
        self._size = buffer
        self._buffer: deque[Record] = deque()
        self._kept: FIFOCache[str, Record] = FIFOCache(keep)
        self._gap = 0
        self._torn = False
        self._rotated = 0
        self.lost = 0

    def take(self, record: Record) -> None:
        """Never blocks and never raises. Cost: two appends."""
        self._kept[record.id] = record
        if len(self._buffer) >= self._size:
            self._gap += 1
            self.lost += 1
            return
        self._buffer.append(record)

    def find(self, record_id: str) -> Record | None:
        """One of the latest records, by the id the caller got."""
        found: Record | None = self._kept.get(record_id)
        return found

    async def run(self) -> None:
        """Drains until cancelled, then drains what is left."""
        try:
            while True:
                await asyncio.sleep(DRAIN_EVERY_S)
                self.drain()
        finally:
            self.drain()

    def drain(self) -> None:
        """Writes what is buffered. A disk that refuses becomes a gap, not an error of the request."""
        records = list(self._buffer)
        self._buffer.clear()
        if not records:
            return
        gap, self._gap = self._gap, 0
        lines = [orjson.dumps({"gap": gap, "t": time.time()})] if gap else []
        lines += [line for record in records for line in explain(record)]
        try:
            self._append(b"\n".join(lines) + b"\n")
        except OSError:
            self._gap += gap + len(records)
            self.lost += len(records)
            self._torn = True
        for sink in self._sinks:
            try:
                sink(records)
            except Exception:
                log.exception("a sink of the audit log failed; the log goes on")

    def _append(self, text: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_size > ROTATE_BYTES:
            self._rotated += 1
            self._path.replace(self._path.with_suffix(f".{self._rotated}.jsonl"))
            self._torn = False
        with self._path.open("ab+") as file:
            if self._torn and file.tell():
                file.seek(-1, 2)
                text = (
                    text if file.read(1) == b"\n" else b"\n" + text
                )  # end the line that a full disk cut short
            file.write(text)
        self._torn = False


def explain(record: Record) -> Iterable[bytes]:
    """The record as JSON lines, one a row."""
    for row, decision in enumerate(record.decisions):
        yield orjson.dumps(
            {
                "id": decision.id,
                "request": record.id,
                "row": row,
                "t": record.received_s,
                "elapsed_ms": round(record.elapsed_s * 1e3, 3),
                "principal": record.principal,
                "policy": record.policy,
                "mode": record.mode,
                **_ended(decision.outcome),
                "findings": [_finding(f) for f in decision.findings],
            }
        )


def _ended(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Served(by=by):
            return {"outcome": "served", "by": by, "reason": "ok"}
        case Degraded(by=by, reason=reason):
            return {"outcome": "degraded", "by": by, "reason": reason}
        case Deferred(ticket, reason):
            return {"outcome": "deferred", "ticket": ticket, "reason": reason}
        case Refused(reason, retry_after_s):
            return {"outcome": "refused", "reason": reason, "retry_after_s": retry_after_s}
        case _:
            assert_never(outcome)


def _finding(finding: Finding) -> dict[str, Any]:
    told: dict[str, Any] = {
        "stage": finding.stage,
        "verdict": finding.verdict.name.lower(),
        "us": round(finding.elapsed_s * 1e6),
    }
    if finding.score is not None:
        told["score"] = finding.score
    if finding.form != "full":
        told["form"] = finding.form
    if not finding.enforced:
        told["enforced"] = False
    if finding.error is not None:
        told["error"] = finding.error.encode("utf-8", "replace").decode()
    return told
