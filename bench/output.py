"""Output of commands: tables for a terminal, JSON for scripts, a line and exit code 2 for wrong input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bench.load import ProgressCallback
from bench.measurements import Measurements

WIDE = 150
StatusCallback = Callable[[str], None]
"""Gets one line on what is measured now."""


def console(out: Path | None) -> Console:
    """Standard output, unless that is where the JSON goes; wide where no terminal sets the width."""
    free = Console(stderr=_is_stdout(out))
    return free if free.is_terminal else Console(stderr=_is_stdout(out), width=WIDE)


def write(out: Path | None, found: object) -> None:
    """A dataclass as JSON, or bytes, into the file that was asked for, if any was. NaN becomes null."""
    if out is None:
        return
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    body = found if isinstance(found, bytes) else orjson.dumps(found, option=options)
    if _is_stdout(out):
        sys.stdout.buffer.write(body)
    else:
        out.write_bytes(body)


def wrong_input(what: str) -> NoReturn:
    """Prints what the user has to correct, and exits."""
    print(what, file=sys.stderr)
    sys.exit(2)


class LoadProgressBar:
    """A progress bar over `count` loads of `seconds` each after a warm-up, with the time that is left."""

    def __init__(self, console: Console, count: int, seconds: float, warm_up_s: float) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.fields[left_s]:.0f} s left"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._count, self._each_s, self._warm_up_s = count, seconds + warm_up_s, warm_up_s
        self._begun = 0
        total_s = count * self._each_s
        self._task = self._progress.add_task("", total=total_s, counts="", left_s=total_s)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, name: str) -> ProgressCallback:
        """The next load."""
        before_s = self._begun * self._each_s
        self._begun += 1
        which = f"{name} ({self._begun} of {self._count})" if self._count > 1 else name

        def report_progress(done_s: float, measurements: Measurements) -> None:
            done = before_s + min(done_s + self._warm_up_s, self._each_s)
            self._progress.update(
                self._task,
                description=f"{which}: {'warming up' if done_s < 0 else 'measuring'}",
                completed=done,
                counts=f"{measurements.requests} requests, {measurements.errors.total()} errors",
                left_s=self._count * self._each_s - done,
            )

        return report_progress


def _is_stdout(out: Path | None) -> bool:
    return out is not None and str(out) == "-"
