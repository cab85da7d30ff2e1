"""The latch: what may not answer, as a replica sees it now.

A thread looks at the file ten times a second (`stop_switch.py`), so that no request waits for a disk. What is
read holds from that moment on: `now` is one reference, which every answer is held against before it leaves.

A stop holds in this process before it is on the disk, and still does if the disk refuses it. A file that is
deleted lifts nothing here; only a file that says so does.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from threading import Lock

from gateway.serving.latch_file import LatchFile, Stamp
from gateway.serving.stops import Scope, Stop, Stops

log = logging.getLogger(__name__)


class Latch:
    """The stops of one file, and those that this process alone knows. `now` may be read in any thread."""

    def __init__(self, file: LatchFile) -> None:
        """Reads the file. Blocks."""
        self.file = file
        self.now = Stops()
        self._reading, self._changing = Lock(), Lock()
        self._stamp: Stamp = None
        self._on_file = Stops()
        self._unsaved: tuple[Stop, ...] = ()
        self._held = ""
        self.look()

    def look(self) -> None:
        """Reads the file if it has changed, or could not be read. Blocks: 5 us if it is the same."""
        with self._reading:
            try:
                stamp = self.file.stamp()
            except OSError:
                stamp = ()  # reading it says why
            if stamp != self._stamp or self._on_file.problem:
                self._adopt(stamp, self.file.read())

    def stop_here(self, stop: Stop) -> None:
        """Stops in this process, at once. Does not block."""
        with self._changing:
            self._unsaved = (*self._unsaved, stop)
            self._refresh()

    def save(self, stop: Stop) -> None:
        """Writes a stop of `stop_here` to the disk. Blocks. Raises as `LatchFile.stop`: it still holds."""
        with self._reading:
            after = self.file.stop(stop)
            self._adopt(self.file.stamp(), after)
            self._forget(stop.scope)  # not before: nothing may answer meanwhile

    def resume(self, scope: Scope) -> None:
        """Lifts one stop, at every replica. Blocks. Raises as `LatchFile.resume`, with all as it was."""
        with self._reading:
            after = self.file.resume(scope)
            self._adopt(self.file.stamp(), after)
            self._forget(scope)

    def follow_resume(self, scope: Scope) -> None:
        """Reads the file in which another replica has lifted a stop. Blocks."""
        self._forget(scope)
        self.look()

    def hold(self, why: str) -> None:
        """Stops everything in this process alone for as long as `why` is not empty. Does not block."""
        with self._changing:
            self._held = why
            self._refresh()

    def _adopt(self, stamp: Stamp, read: Stops) -> None:
        before = self._on_file
        if stamp is None and (before.stops or before.problem):
            if self._stamp is not None:
                what = "%s is gone: what it stopped stays stopped here until it is resumed"
                log.error(what, self.file.path)
            read = before
        with self._changing:
            self._stamp, self._on_file = stamp, read
            self._refresh()

    def _forget(self, scope: Scope) -> None:
        with self._changing:
            self._unsaved = tuple(one for one in self._unsaved if one.scope != scope)
            self._refresh()

    def _refresh(self) -> None:
        """Puts together what is stopped; the same reference while nothing changes."""
        now = self._on_file
        for stop in self._unsaved:
            now = now.adding(stop)
        now = replace(now, problem=self._held or now.problem)
        if now != self.now:
            self.now = now
