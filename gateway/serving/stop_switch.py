"""The stop switch of a process: the latches of its deployments, read by a thread, applied to its models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from fallbacks.worker import Worker
from gateway.core.errors import ArtifactError
from gateway.serving.latch import Latch
from gateway.serving.latch_file import LatchFile
from gateway.serving.stops import Scope, Stop, Stops

LOOK_EVERY_S: Final = 0.1
"""A stop that another process writes is in force here after this and the time that reading takes."""
log = logging.getLogger(__name__)


class StopSwitch:
    """folders: of the deployments; state_dir: as of `gateway serve`. Blocks: reads the files.

    apply: takes models out of service, or puts them back; called on the event loop after each change.
    """

    def __init__(self, folders: Sequence[Path], state_dir: Path | None, apply: Callable[[], None]) -> None:
        files = dict.fromkeys(LatchFile.of(folder, state_dir) for folder in folders)
        self._latches = {file: Latch(file) for file in files}
        self._state_dir, self._apply = state_dir, apply
        self._thread: Worker | None = None
        self._announced: dict[LatchFile, Stops] = {}

    def latch_of(self, folder: Path) -> Latch:
        """The latch that the deployment of this folder uses."""
        return self._latches[LatchFile.of(folder, self._state_dir)]

    @property
    def latches(self) -> tuple[Latch, ...]:
        """Of all deployments of the process, each once."""
        return tuple(self._latches.values())

    async def stop(self, stops: Mapping[Latch, Stop]) -> None:
        """Stops at once, and returns when that is on the disk.

        Raises:  ArtifactError or OSError, of the first file that could not be written: it is then in force in
                 this process alone.
        """
        for latch, stop in stops.items():
            latch.stop_here(stop)
        self._announce()
        await self._in_thread([partial(latch.save, stop) for latch, stop in stops.items()])

    async def resume(self, scopes: Mapping[Latch, Scope], *, follow: bool = False) -> None:
        """Lifts stops. follow: another replica has written that. Raises ArtifactError or OSError."""
        await self._in_thread(
            [
                partial(latch.follow_resume if follow else latch.resume, scope)
                for latch, scope in scopes.items()
            ]
        )

    async def look(self) -> None:
        """Reads the files again where they have changed, and applies that before it returns."""
        await self._in_thread([one.look for one in self.latches])

    async def watch(self) -> None:
        """Until cancelled: looks every LOOK_EVERY_S seconds. Cost: 0.1 ms each time, off the event loop."""
        self._announce()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception:
                log.exception("the files of stops were not read: they are read again")

    def hold(self, why: str) -> None:
        """Stops everything in this process alone while `why` is not empty."""
        for one in self.latches:
            one.hold(why)
        self._announce()

    def close(self) -> None:
        """Ends the thread, without waiting for a disk that hangs."""
        if self._thread is not None:
            self._thread.close(0.0)

    def _announce(self) -> None:
        """Applies and logs what has changed since the last time."""
        for file, latch in self._latches.items():
            now, before = latch.now, self._announced.get(file)
            if now is not before:
                self._announced[file] = now
                _log_change(file, now, before)
                self._apply()

    async def _in_thread(self, work: Sequence[Callable[[], None]]) -> None:
        """Does all of it, applies what has changed, and raises the first error."""
        errors = []
        self._thread = self._thread or Worker("stops")
        for one in work:
            try:
                await self._thread.call(one)
            except (ArtifactError, OSError) as error:
                errors.append(error)
        self._announce()
        if errors:
            raise errors[0]


def _log_change(file: LatchFile, now: Stops, before: Stops | None) -> None:
    if now.problem:
        log.error("everything is stopped: %s", now.problem)
    for stop in now.stops:
        if before is None or stop not in before.stops:
            log.warning("%s: %s", stop.scope, stop)
    for stop in () if before is None else before.stops:
        if stop not in now.stops:
            log.warning("%s: resumed, as %s says", stop.scope, file.path)
