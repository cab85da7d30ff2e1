"""The audit log: a file of JSON lines, one a row or an act; where some are missing, a line says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from gateway.core.record import AuditRecord
from gateway.telemetry.line_file import LineFile
from gateway.telemetry.serialize import PassCache, serialize_records


class JsonLinesSink:
    """Appends to one file. A gap is a line `{"gap": RECORDS, "t": UNIX_SECONDS}`, before what follows it."""

    def __init__(self, path: Path) -> None:
        """The file, and its folder, are made by the first flush."""
        self._file = LineFile(path)
        self._lines: list[bytes] = []
        self._cache: PassCache = {}

    def accept(self, records: Sequence[AuditRecord], /) -> None:
        """Serialises the records. Raises TypeError where a text is no Unicode."""
        lines = list(serialize_records(records, self._cache))
        self._lines += lines

    def flush(self, missed: int, /) -> None:
        """Appends the lines. Raises OSError."""
        lines, self._lines = self._lines, []
        self._cache.clear()
        if missed:
            lines.insert(0, orjson.dumps({"gap": missed, "t": time.time()}))
        if lines:
            self._file.append(lines)
