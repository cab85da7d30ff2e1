"""How both commands speak: tables for people, JSON for scripts, one line and exit code 2 for wrong input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import orjson
from rich.console import Console

WIDE = 150


def console(out: Path | None) -> Console:
    """Standard output, unless that is where the JSON goes; wide where no terminal sets the width."""
    free = Console(stderr=_is_stdout(out))
    return free if free.is_terminal else Console(stderr=_is_stdout(out), width=WIDE)


def write(out: Path | None, found: object) -> None:
    """A dataclass as JSON into the file that was asked for, if any was. NaN becomes null."""
    if out is None:
        return
    body = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if _is_stdout(out):
        sys.stdout.buffer.write(body)
    else:
        out.write_bytes(body)


def wrong(what: str) -> NoReturn:
    """Says what the caller has to mend, and ends."""
    print(what, file=sys.stderr)
    sys.exit(2)


def _is_stdout(out: Path | None) -> bool:
    return out is not None and str(out) == "-"
