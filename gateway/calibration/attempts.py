"""Counts the calibrations that have used the same rows: `var/calibrations.jsonl` in a deployment's folder.

A promise at a confidence of 95 % may fail on one file of rows in twenty. Policies, models or seeds tried on
the same rows until one passes find that one, and its promise is worth less than the certificate says. So
every attempt is recorded before a label certifies anything, passed or not, and the certificate says how many
there were, and what their failures add up to.

A line holds when, a digest of what was calibrated on what, how many distinct rows there were, and the
smallest 256 of their 64-bit hashes (`row_hashes.py`): a bottom-k sketch (Cohen and Kaplan, 2007), from which
the overlap of two files follows. It holds no row, but a row that can be guessed can be looked for; only the
owner can read the file.

Two files overlap if they share more than 5 % of the smaller one's distinct rows: a random half and the whole
file, two random halves, a file and its shuffle all do. What this may not see: a file of less than one
hundredth of the other's rows (fewer than 2.6 of its hashes are expected among the other's smallest 256), rows
changed in a single byte, and attempts in a copy of the folder without `var`. New rows of a coarse table look
like the old ones and are counted as the same, which says too many attempts, not too few.

The file is only appended to, one line in one write, under the lock of the folder. From 1,000 lines on, the
oldest are dropped and a warning is logged: counts then leave them out. A last line without its end, left by a
crash before any label was used, is ignored and removed; any other invalid line makes the file invalid.
"""

from __future__ import annotations

import base64
import errno
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from gateway.calibration.row_hashes import Hashes
from gateway.core.errors import ArtifactError, Problem
from gateway.policy.fields import Strict
from gateway.private_files import append_line, write_lock, write_private_file

ATTEMPTS_FILE = "calibrations.jsonl"
SKETCH_HASHES = 256
SHARED_ROWS = 0.05
"""Files that share more than this share of the smaller one's distinct rows overlap."""
MOST_LINES, KEPT_LINES = 1_000, 900
log = logging.getLogger(__name__)


class Attempt(Strict):
    """One line of the file.

    time_s: Unix time; what: a digest; delta: of each of its promises; rows: distinct ones; hashes: base64 of
    the sketch, as `<u8`.
    """

    time_s: float
    what: str
    delta: Annotated[float, Field(gt=0, lt=1)]
    rows: Annotated[int, Field(ge=1)]
    hashes: Annotated[str, Field(min_length=8)]

    @classmethod
    def of(cls, rows: Hashes, what: str, delta: float, now_s: float) -> Attempt:
        """An attempt on rows with these hashes, in any order, repeated or not."""
        distinct = np.unique(rows)
        encoded = base64.b64encode(distinct[:SKETCH_HASHES].astype("<u8").tobytes()).decode()
        return cls(time_s=now_s, what=what, delta=delta, rows=len(distinct), hashes=encoded)

    @property
    def sketch(self) -> Hashes:
        """uint64[k]: ascending. Raises ValueError if the field is no such array."""
        held = np.frombuffer(base64.b64decode(self.hashes, validate=True), "<u8").astype(np.uint64)
        if len(held) != min(self.rows, SKETCH_HASHES) or (held[1:] <= held[:-1]).any():
            raise ValueError("hashes: no ascending hashes of as many rows")
        return held


@dataclass(frozen=True, slots=True)
class Attempts:
    """How many attempts have used the same rows, and the sum of what each may fail with."""

    count: int
    delta: float


def record_attempt(var: Path, rows: NDArray[np.uint64], what: str, delta: float, now_s: float) -> Attempts:
    """The different attempts, this one included, that have used rows that overlap with these; records it.

    Args:    var: a folder, made if missing; rows: `row_hashes` of the file, at least one; delta: of each
             promise; what: a digest of policy, models and data. An attempt on file with the same `what` has
             the same result: it counts once, and no line is added.
    Raises:  ArtifactError naming the file, and the line if one is invalid; nothing is recorded then, and the
             labels must not be used.
    Cost:    O(n log n); 0.2 s with a full file.
    """
    path = var / ATTEMPTS_FILE
    attempt = Attempt.of(rows, what, delta, now_s)
    try:
        with write_lock(var):
            content = path.read_bytes() if path.exists() else b""
            before = list(_parse(content, path))
            if all(other.what != what for other, _ in before):
                _append(path, content, orjson.dumps(attempt.model_dump()))
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
        what_failed = f"attempts at calibration cannot be recorded: {why}"
        raise ArtifactError([Problem("", what_failed, str(path))]) from error
    mine = attempt.sketch
    overlapping = {
        other.what: other.delta
        for other, sketch in before
        if overlap(mine, attempt.rows, sketch, other.rows) > SHARED_ROWS
    }
    deltas = overlapping | {what: delta}
    return Attempts(len(deltas), math.fsum(deltas.values()))


def overlap(one: Hashes, one_rows: int, other: Hashes, other_rows: int) -> float:
    """The share of the smaller file's distinct rows that the other holds too, estimated from sketches.

    Of the smaller file's hashes up to the largest that both sketches would hold, the share that both do hold.
    Exact where both files have at most 256 distinct rows.
    """
    smaller = one if one_rows <= other_rows else other
    cut_short = [s[-1] for s, rows in ((one, one_rows), (other, other_rows)) if rows > len(s)]
    known = min(cut_short, default=np.uint64(2**64 - 1))
    common = np.intersect1d(one, other)
    return float((common <= known).sum()) / max(int((smaller <= known).sum()), 1)


def _parse(content: bytes, path: Path) -> Iterator[tuple[Attempt, Hashes]]:
    """The lines with their sketches, but for a last one without its end.

    Raises:  ArtifactError naming the line.
    """
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            attempt = Attempt.model_validate(orjson.loads(line))
            yield attempt, attempt.sketch
        except ValueError as error:
            what = (
                "is no record of an attempt at calibration; restore it (without it, attempts count too low)"
            )
            raise ArtifactError([Problem("", what, str(path), number)]) from error


def _append(path: Path, content: bytes, line: bytes) -> None:
    """Appends a line; or, to a full file, replaces it by one without its oldest lines."""
    lines = content.split(b"\n")[:-1]
    if len(lines) < MOST_LINES:
        append_line(path, line, complete=lambda last: False)  # a line without its end was cut short
        return
    log.warning("%s holds %d attempts: the oldest are dropped", path, len(lines))
    write_private_file(path, b"".join(one + b"\n" for one in [*lines[-KEPT_LINES:], line]))
