"""Models of third parties, exported in an environment of their own once a checkout and kept there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from bench.environment import python_of

MODELS = Path(__file__).parents[1] / "models"
SCRIPTS, REQUIREMENTS, KEPT = MODELS / "exports", MODELS / "requirements.txt", MODELS / "var"
EXPORTED_WITHIN_S = 120
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def exported(name: str) -> Path:
    """The folder of one model of `exports/export.py`: what `exports/exported.py` says that is saved.

    Raises:  AssertionError if it was not exported; subprocess.SubprocessError without the package index.
    Cost:    seconds, and the first time of all a minute; nothing while the scripts are the same to the byte.
    """
    folder, digest = KEPT / name, _digest()
    stamp = folder / "digest"
    if stamp.exists() and stamp.read_text() == digest:
        return folder
    python = python_of(REQUIREMENTS, KEPT / "environment")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(python), str(SCRIPTS / "export.py"), name, str(folder)]
    done = subprocess.run(
        command,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=EXPORTED_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{name} was not exported:\n{done.stderr[-2000:]}"
    stamp.write_text(digest)  # last: a folder without it is not finished
    return folder


def _digest() -> str:
    """Of all that decides what is exported."""
    read = b"".join(path.read_bytes() for path in [REQUIREMENTS, *sorted(SCRIPTS.glob("*.py"))])
    return hashlib.sha256(read).hexdigest()
