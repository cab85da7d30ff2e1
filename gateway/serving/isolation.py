"""The rungs of a deployment that an operator has isolated: a file, so that isolation outlives the process.

The replicas of a deployment share the file in its folder for state. It is written before a model is taken out
of service, and read whenever a pipeline is loaded: at a start, a restart after a crash, and a reload. A rung
that a later policy no longer has stays in the file, and is isolated again once a policy has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from gateway.core.errors import ArtifactError, Problem
from gateway.private_files import write_lock, write_private_file

ISOLATED_FILE = "isolated.json"


@dataclass(frozen=True, slots=True)
class IsolationFile:
    """The names of isolated rungs in the file `isolated.json` of a folder: a JSON list, or no file."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / ISOLATED_FILE

    def rungs(self) -> frozenset[str]:
        """The isolated rungs. Blocks; 15 us. Raises ArtifactError for a file that cannot be read."""
        try:
            names = orjson.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise self._unreadable("no JSON list of names")
        return frozenset(names)

    def put(self, rung: str, *, isolated: bool) -> None:
        """Adds a rung to the file or removes it; returns once that is on the disk. Blocks.

        Raises:  ArtifactError for a file that cannot be read, with the file as it was; OSError.
        """
        with write_lock(self.folder):
            before = self.rungs()
            after = before | {rung} if isolated else before - {rung}
            if after != before:
                write_private_file(self.path, orjson.dumps(sorted(after)))

    def _unreadable(self, why: str) -> ArtifactError:
        what = f'is not the list of isolated rungs: {why}; write it anew, such as ["primary"], or delete it'
        return ArtifactError([Problem("", f"{what} if no rung is to be isolated", str(self.path))])
