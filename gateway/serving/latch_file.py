"""The file of stops: what is stopped stays stopped over restarts, and at every replica that reads the file.

With `--state-dir` all deployments that are served with it share the file there; without it each has one in
its own `var`. So `gateway stop` finds the file without knowing how the deployments are served.

A file that is missing stops nothing: no operator has ever stopped anything here. One that cannot be read
stops everything: it may hold a stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.deployment import VAR
from gateway.private_files import read_own, write_lock, write_private_file
from gateway.serving.stops import EVERY, Scope, Stop, Stops

STOPS_FILE = "stops.json"
_STOPS = TypeAdapter(tuple[Stop, ...])
Stamp: TypeAlias = tuple[int, ...] | None
"""Differs after every change of a file; None for no file."""


@dataclass(frozen=True, slots=True)
class LatchFile:
    """`stops.json` of a folder: a JSON list of stops. shared: whether several deployments may use it."""

    folder: Path
    shared: bool = False

    @classmethod
    def of(cls, deployment: Path, state_dir: Path | None) -> LatchFile:
        """The file that a deployment uses when it is served with this folder for state, or with none."""
        return cls(deployment / VAR) if state_dir is None else cls(state_dir, shared=True)

    @property
    def path(self) -> Path:
        return self.folder / STOPS_FILE

    @property
    def mend(self) -> str:
        """The command that writes an unreadable file anew."""
        where = f"--state-dir {self.folder}" if self.shared else str(self.folder.parent)
        return f"`gateway resume {where}` writes it anew"

    def scope(self, model: str, rung: str | None = None) -> Scope:
        """The scope of a model, or of a rung of it. A file of one deployment need not know its name."""
        return Scope(model if self.shared else EVERY, rung)

    def stamp(self) -> Stamp:
        """Of the file as it lies on the disk. Blocks: 2 us. Raises OSError."""
        try:
            held = self.path.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (held.st_mtime_ns, held.st_ctime_ns, held.st_ino, held.st_size, held.st_mode, held.st_uid)

    def read(self) -> Stops:
        """The stops in the file. Never raises: a file that cannot be read is a `problem`. Blocks: 20 us."""
        try:
            return Stops(_STOPS.validate_json(read_own(self.path)))
        except (FileNotFoundError, NotADirectoryError):
            return Stops()
        except OSError as error:
            return self._unreadable(error.strerror or str(error))
        except ValidationError as error:
            first = error.errors()[0]
            return self._unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
        except ValueError as error:
            return self._unreadable(str(error))

    def stop(self, stop: Stop) -> Stops:
        """Adds a stop; what the file says then. Returns once that is on the disk. Blocks.

        Raises:  ArtifactError for a file that cannot be read, unless the stop is of everything: then it is
                 written anew; OSError.
        """
        return self._change(lambda before: before.adding(stop), anew=stop.scope == Scope())

    def resume(self, scope: Scope) -> Stops:
        """Lifts the stop of this scope, and no other; what the file says then. Blocks. Raises as `stop`."""
        return self._change(lambda before: before.lifting(scope), anew=scope == Scope())

    def _change(self, change: Callable[[Stops], Stops], *, anew: bool) -> Stops:
        with write_lock(self.folder):
            before = self.read()
            if before.problem and not anew:
                what = before.problem.removeprefix(f"{self.path}: ")
                raise ArtifactError([Problem("", what, str(self.path))])
            after = change(Stops(before.stops))
            write_private_file(self.path, _STOPS.dump_json(after.stops, indent=1))
            return after

    def _unreadable(self, why: str) -> Stops:
        what = f"cannot be read as the file of stops ({why}), so everything that uses it is stopped"
        return Stops(problem=f"{self.path}: {what}; {self.mend}")
