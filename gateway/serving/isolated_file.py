"""The rungs that an operator isolated under an earlier version, which become stops of the latch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import orjson

from gateway.core.errors import ArtifactError, Problem
from gateway.private_files import read_own
from gateway.serving.latch_file import LatchFile
from gateway.serving.stops import Stop

ISOLATED_FILE = "isolated.json"
"""In the folder for state of one deployment: a JSON list of names of rungs."""


def convert_isolated(state: Path, file: LatchFile, model: str) -> None:
    """Adds the rungs of `isolated.json` to the stops, and renames it to `isolated.json.converted`.

    A process that ends between the two steps does both again. Blocks; 5 us without such a file.

    Raises:  ArtifactError, with both files as they were.
    """
    old = state / ISOLATED_FILE
    try:
        at, names = old.stat().st_mtime, orjson.loads(read_own(old))
        if not isinstance(names, list):
            raise ValueError("no JSON list of names")
        for name in names:
            scope, reason = file.scope(model, name), "isolated before the gateway was renewed"
            when = datetime.fromtimestamp(at, UTC)
            file.stop(Stop(model=scope.model, rung=scope.rung, by="", at=when, reason=reason))
        old.rename(old.with_name(f"{ISOLATED_FILE}.converted"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        what = f'is not the list of isolated rungs: {why}; write it anew, such as ["primary"], or delete it'
        raise ArtifactError([Problem("", f"{what} if no rung is to be isolated", str(old))]) from error
