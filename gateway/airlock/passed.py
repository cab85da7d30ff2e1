"""Which trials have passed before, so that a second start need not repeat them: `airlock.json`.

An entry is the digest of all that a verdict depends on: the file's bytes, what was tried, the limits, our own
code, and the versions of the libraries. Only passes are kept.

The file lies where the gateway keeps its keys, and counts only if it belongs to the user that runs it and no
other may write it. A writer in that folder can also make keys, so an entry in it grants nothing that is new.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import stat
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
import orjson

from fallbacks.regular_file import read_regular
from gateway.airlock.request import ModelTrial, folder_of_code
from gateway.private_files import write_lock, write_private_file

PASSED_FILE: Final = "airlock.json"
MOST_ENTRIES: Final = 256
MOST_BYTES: Final = 2**20
log = logging.getLogger(__name__)


def key_of(trial: ModelTrial) -> str:
    """What one verdict depends on, as a digest."""
    return hashlib.sha256(orjson.dumps(trial.content, option=orjson.OPT_SORT_KEYS) + _rules()).hexdigest()


def read_passed(state: Path) -> list[str]:
    """The keys of what has passed, oldest first; none if the file is missing, damaged or not ours alone."""
    path = state / PASSED_FILE
    try:
        about = path.lstat()
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
            log.warning("%s is ignored: it must belong to the user that runs the gateway, alone", path)
            return []
        keys = orjson.loads(read_regular(path, MOST_BYTES, "remove it"))
        return [key for key in keys if isinstance(key, str)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError):
        log.warning("%s is damaged and ignored: models are tried again", path)
        return []


def record_passed(state: Path, keys: Sequence[str]) -> None:
    """Adds keys. A folder that cannot be written costs the next start the trials again, and nothing else."""
    try:
        with write_lock(state):
            kept = [*_without(read_passed(state), keys), *keys][-MOST_ENTRIES:]
            write_private_file(state / PASSED_FILE, orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        log.info("%s cannot be written: %s", state / PASSED_FILE, error.strerror)


def _without(keys: Iterable[str], gone: Sequence[str]) -> list[str]:
    return [key for key in keys if key not in gone]


@cache
def _rules() -> bytes:
    """Our own code, and the versions of what a trial runs on."""
    root = folder_of_code()
    code = hashlib.sha256()
    for path in sorted([*root.glob("gateway/airlock/*.py"), *root.glob("fallbacks/onnx*.py")]):
        code.update(path.read_bytes())
    versions = (platform.python_version(), np.__version__, onnx.__version__, onnxruntime.__version__)
    return code.digest() + " ".join(versions).encode()
