"""A virtual environment of its own for what must not be installed into ours, made from exact versions."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALLED_WITHIN_S = 600


def python_of(wanted: Path, folder: Path) -> Path:
    """The interpreter of an environment that holds what `wanted` lists, installed if need be.

    Args:    wanted: a file of requirements, every one with its exact version; folder: where it is kept, and
             reused while the file is the same to the byte.
    Raises:  subprocess.SubprocessError if it cannot be installed.
    Cost:    up to a minute and the package index where there is none yet. Of several processes one makes it,
             and the others wait.
    """
    python, stamp = folder / "bin" / "python", folder / wanted.name
    with _locked(folder):
        if python.exists() and stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
            return python
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", str(wanted)]
        subprocess.run(pip, check=True, timeout=INSTALLED_WITHIN_S)  # noqa: S603 (our own command)
        shutil.copy(wanted, stamp)  # last: an environment without its stamp is not finished
    return python


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of an environment, which lies beside it and stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
