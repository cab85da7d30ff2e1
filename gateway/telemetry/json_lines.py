"""The audit log: a file of JSON lines, one a row or an act; many refused rows of a caller are counted in one.

Where some are missing, a line states how many.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from gateway.core.record import AdminAct, AuditRecord, RequestRecord
from gateway.telemetry.line_file import KEEP_BYTES, LineFile
from gateway.telemetry.refusal_counts import RefusalCounts
from gateway.telemetry.serialize import PassCache, serialize_act, serialize_rows


class JsonLinesSink:
    """Appends to one file. A gap is a line `{"gap": RECORDS, "t": UNIX_SECONDS}`, before what follows it.

    Refused rows beyond the first few of a caller are lines `{"refused_rows": N, ...}` (`refusal_counts.py`).
    """

    def __init__(self, path: Path, *, keep_bytes: int = KEEP_BYTES, siblings: str = "") -> None:
        """The file, and its folder, are made by the first flush. siblings: as in `LineFile`."""
        self.file = LineFile(path, keep_bytes, siblings)
        self._refused = RefusalCounts()
        self._lines: list[bytes] = []
        self._cache: PassCache = {}

    def accept(self, records: Sequence[AuditRecord], /) -> None:
        """Serialises the records. Raises TypeError where a text is no Unicode."""
        lines: list[bytes] = []
        counted: list[tuple[RequestRecord, Sequence[int]]] = []
        for record in records:
            if isinstance(record, AdminAct):
                lines.append(serialize_act(record))
                continue
            rows = self._refused.rows_in_full(record)
            lines += serialize_rows(record, rows, self._cache)
            if len(rows) < len(record.decisions):
                counted.append((record, rows))
        for request, rows in counted:
            self._refused.add(request, rows)
        self._lines += lines

    def flush(self, missed: int, /) -> None:
        """Appends the lines. Raises OSError."""
        lines, self._lines = self._lines, []
        self._cache.clear()
        lines += self._refused.take_lines()
        if missed:
            lines.insert(0, orjson.dumps({"gap": missed, "t": time.time()}))
        if lines:
            self.file.append(lines)
