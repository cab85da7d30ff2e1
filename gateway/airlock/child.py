"""The confined process: reads trials from standard input, and writes a line of JSON for each step.

`{"begins": i}` before a file is opened, `{"ends": i, "problems": [...]}` after. A process that is ended in
between leaves only the first, which names the file that ended it.
"""

from __future__ import annotations

import os
import sys

import orjson

from gateway.airlock.confine import allow, confine_process
from gateway.airlock.request import ModelTrial, from_json
from gateway.airlock.trial import problems_of


def main() -> None:
    """Tries every file of the request in turn, then ends the process."""
    trials = from_json(sys.stdin.buffer.read())
    confine_process()
    for i, trial in enumerate(trials):
        _say({"begins": i})
        allow(trial.memory_bytes, trial.cpu_s, trial.wall_s)
        _say({"ends": i, "problems": _found(trial)})
    os._exit(0)  # without the hooks of libraries that held a hostile model


def _found(trial: ModelTrial) -> list[str]:
    try:
        return problems_of(trial)
    except ValueError as error:
        return [str(error)]
    except Exception as error:  # noqa: BLE001 (protobuf and onnxruntime have types of their own)
        return [f"{trial.path}: cannot be opened ({type(error).__name__}: {error}); export it again"]


def _say(line: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
