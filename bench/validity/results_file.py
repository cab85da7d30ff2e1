"""The figures of the grid as JSON: what was run where, and one line for each promise and each policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import orjson

from bench.machine import machine
from bench.validity.summary import Answered, Broken, Refused, Summary


def as_json(summary: Summary) -> bytes:
    """`machine`, and `promises`, `refused` and `answered` as `rows` under the names of their `columns`."""
    parts = (
        b'"machine": ' + orjson.dumps(machine()),
        b'"promises": ' + _table(Broken, summary.promises),
        b'"refused": ' + _table(Refused, summary.refused),
        b'"answered": ' + _table(Answered, summary.answered),
    )
    return b"{\n" + b",\n".join(parts) + b"\n}\n"


def _table(kind: type[Broken | Refused | Answered], found: Sequence[Broken | Refused | Answered]) -> bytes:
    columns = [field.name for field in fields(kind)]
    rows = [orjson.dumps([_rounded(getattr(one, column)) for column in columns]) for one in found]
    return b'{"columns": %s,\n"rows": [\n%s\n]}' % (orjson.dumps(columns), b",\n".join(rows))


def _rounded(value: object) -> object:
    return round(value, 5) if isinstance(value, float) else value
