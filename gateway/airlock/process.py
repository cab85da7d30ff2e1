"""Starts the confined process, waits for it within bounds, and reads what it found.

It gets none of our environment and no open file, runs isolated from the working directory and from variables
of Python, and is a session of its own. Whatever it does, it ends: by its own limits, else by ours.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import orjson

from gateway.airlock.names import CONTROL
from gateway.airlock.request import ModelTrial, folder_of_code, to_json, too_slow

MOST_REPORT_BYTES: Final = 2**20
LONGEST_PROBLEM: Final = 2000
START_S: Final = 60.0
"""Seconds that the process may need to start, on a busy machine."""

CODE: Final = "import sys; sys.path.insert(0, sys.argv[1]); from gateway.airlock.child import main; main()"
ENVIRONMENT: Final = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}

_running: set[subprocess.Popen[bytes]] = set()
_stopped: set[subprocess.Popen[bytes]] = set()
"""Those of them that `stop_trials` ended."""


def stop_trials() -> None:
    """Ends the trials that run now, so that the threads which wait for them end: for the end of a gateway."""
    for process in tuple(_running):
        _stopped.add(process)
        process.kill()


def run_trials(trials: Sequence[ModelTrial]) -> dict[int, list[str]]:
    """The problems of each trial by its place; none of those without any. Blocks.

    A trial that ends its process costs a new one for those behind it.
    Raises: OSError if the process cannot be started, or `stop_trials` ended it.
    """
    found: dict[int, list[str]] = {}
    first = 0
    while first < len(trials):
        done, ended = _run(trials[first:])
        found |= {first + i: problems for i, problems in done.items() if problems}
        if ended is None:
            break
        at, what = ended
        found[first + at] = [what]
        first += at + 1
    return found


def _run(trials: Sequence[ModelTrial]) -> tuple[dict[int, list[str]], tuple[int, str] | None]:
    """What one process found by place, and which trial ended it, if one did, in words."""
    limit_s = START_S + sum(trial.wall_s for trial in trials)
    with _process() as process:
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        try:
            text = _exchange(process, to_json(list(trials)))
        finally:
            timer.cancel()
            process.kill()
            code = process.wait()
    if process in _stopped:
        _stopped.discard(process)
        raise OSError(errno.ECANCELED, "the gateway is being stopped")
    done, begun = _steps(text, len(trials))
    if begun < 0:
        raise OSError(errno.ECHILD, f"the process that tries models ended before it began (exit code {code})")
    if len(done) == len(trials):
        return done, None
    at = min(begun, len(trials) - 1)
    return done, (at, _why(trials[at], code))


@contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
        [sys.executable, "-I", "-c", CODE, str(folder_of_code())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=ENVIRONMENT,
        start_new_session=True,
    )
    _running.add(process)
    try:
        with process:
            yield process
    finally:
        _running.discard(process)


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Sends the request; what was answered until the process closed its output, at most so much."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request)
        process.stdin.close()
    except BrokenPipeError:
        pass
    return process.stdout.read(MOST_REPORT_BYTES)


def _steps(text: bytes, n: int) -> tuple[dict[int, list[str]], int]:
    """The problems of the trials that ended by place, and the place of the last that began; else -1."""
    done: dict[int, list[str]] = {}
    begun = -1
    for line in text.splitlines():
        try:
            step: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError:
            break
        if "begins" in step:
            begun = int(step["begins"])
        elif 0 <= step.get("ends", -1) < n:
            done[step["ends"]] = [_plain(one) for one in step["problems"]]
    return done, begun


def _plain(text: str) -> str:
    """A problem in one line without control characters, whatever a library put into it."""
    plain = " ".join(CONTROL.sub(" ", text).split())
    return plain if len(plain) <= LONGEST_PROBLEM else f"{plain[:LONGEST_PROBLEM]}..."


def _why(trial: ModelTrial, code: int) -> str:
    """Why a trial ended its process."""
    if code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL):
        return f"{trial.path}: {too_slow(trial)}"
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{trial.path}: ends the process that opens it ({name}); export it again with a current exporter"
