"""The deployments of one process: a gateway for each that is ready, and the problems of each that is not.

A deployment that cannot be opened does not stop the others, at the start or later: it is listed as not ready,
with its problems, and `load` opens it once it is repaired. What belongs to the process (keys, in-flight
limits, the settings in `agreement.py`) is here once.

`entries` and what follows from it are replaced as a whole at each change, and never altered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from fallbacks.worker import Worker
from gateway.access.callers import CHECK_EVERY_S, Callers
from gateway.access.in_flight import InFlight
from gateway.core.errors import PolicyError, Problem, Problems
from gateway.deployment.deployment import VAR, Deployment
from gateway.ledger.ledgers import Ledgers
from gateway.serving.agreement import collisions, disagreements, read_deployment, those_that_agree
from gateway.serving.folder_watch import watch_folders
from gateway.serving.folders import name_of, state_folder
from gateway.serving.gateway import Gateway
from gateway.serving.host import Host, in_own_thread, make_state_folder, new_replica_name
from gateway.serving.loop_watch import LoopStalls
from gateway.serving.review import QueuedReview
from gateway.serving.stop_switch import StopSwitch

LAST_USES_S = 2.0
"""How long the last uses of keys may take to write at the end."""
UNLOADED = "it was unloaded by an administrator"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotReady:
    """A deployment that is not served now.

    name: of its policy, or where that cannot be read of its folder. version: "" if unknown. problems: why,
    for administrators; none if it was unloaded by hand.
    """

    name: str
    folder: Path
    version: str
    problems: tuple[Problem, ...] = ()

    @property
    def reason(self) -> str:
        """Why, for callers: neither paths nor names of guards, which are for administrators."""
        if not self.problems:
            return UNLOADED
        n = len(self.problems)
        return f"it cannot be loaded: {n} problem{'s' * (n > 1)}, which the administration's /status names"


Entry: TypeAlias = Gateway | NotReady


@dataclass(frozen=True, slots=True)
class Loaded:
    """A deployment that was loaded, or read again. changed: whether anything is different now."""

    gateway: Gateway
    changed: bool


class Repository:
    """Open one with `Repository.open`; `start` it on the event loop that serves; `close` it at the end.

    state: the folder for what belongs to all deployments of the process, persons and sessions included.
    switch: what operators have stopped.
    entries: every deployment, in the order in which they were given. gateways: those that are ready;
    not_ready: the others. stalls: of the event loop that serves.
    only: the gateway of a process with one deployment, while that is ready.
    """

    def __init__(
        self,
        deployment: Deployment,
        folders: Sequence[Path],
        state_dir: Path | None,
        replicas: int | None = None,
    ) -> None:
        """deployment: whose settings of the process are in force; folders: of all deployments; replicas: as
        of `open`."""
        serving = deployment.policy.serving
        self.settings = deployment
        self.replica = new_replica_name()
        self.stalls = LoopStalls()
        self.in_flight = InFlight(serving.max_in_flight, serving.max_in_flight_per_caller)
        self.state = state_folder(folders, state_dir)
        self.run = self.state / "run"
        self._ledgers = Ledgers(self.state, replicas or 1, on_ray=replicas is not None)
        self._state_dir, self._alone = state_dir, len(folders) == 1
        self._callers: dict[tuple[Path, str | None], Callers] = {}
        self._lock = asyncio.Lock()
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._ending = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []
        self._watching_keys: asyncio.Task[None] | None = None
        self.switch = StopSwitch(folders, state_dir, self._apply_stops)
        self._put({})

    @classmethod
    def open(
        cls, folders: Sequence[Path], state_dir: Path | None = None, replicas: int | None = None
    ) -> Repository:
        """Opens every deployment that can be opened. Blocks.

        Args:    state_dir: what the process writes, instead of `var` of each deployment: keys and `run/` in
                 it; the rest in it too, or in a folder a deployment if there are several. replicas: how many
                 there are under Ray; None: this process alone, without Ray.
        Raises:  PolicyError with every problem if no deployment can be opened, if two have one name, or if
                 they disagree on what they share.
        """
        read = [(folder, read_deployment(folder)) for folder in folders]
        deployments = those_that_agree([one for _, one in read])
        repository = cls(deployments[0], folders, state_dir, replicas)
        make_state_folder(repository.run.parent)
        taken = {one.policy.name for one in deployments}
        entries: list[Entry] = []
        for folder, one in read:
            if isinstance(one, Deployment):
                entries.append(repository._open(one))
            else:
                entries.append(NotReady(name_of(folder, taken), folder, "", one))
                taken.add(entries[-1].name)
        repository._put({entry.name: entry for entry in entries})
        if not repository.gateways:
            raise PolicyError([problem for one in repository.not_ready for problem in one.problems])
        return repository

    def start(self) -> None:
        """Starts what each gateway does in the background, on the event loop that serves."""
        for gateway in self.gateways.values():
            gateway.start()
        self._watching_keys = asyncio.create_task(self._watch_keys())
        watches = self.switch.watch(), watch_folders(self)
        self._watching = [asyncio.create_task(one) for one in watches]

    @property
    def longest_deadline_s(self) -> float:
        """The longest that a request that is under way may still take."""
        return max((one.loaded.policy.deadline_s for one in self.gateways.values()), default=0.0)

    def end_waits(self) -> None:
        """Answers requests that wait for a reviewer: they are told where to ask later."""
        for gateway in self.gateways.values():
            if isinstance(gateway.review, QueuedReview):
                gateway.review.answers.end()

    async def healthy(self) -> bool:
        """Whether every gateway that is ready decides its canary row in time."""
        return all(await asyncio.gather(*(one.healthy() for one in self.gateways.values())))

    async def load(self, name: str) -> Loaded:
        """Opens a deployment that is not ready, or reads a ready one again.

        Loads in a thread, while the others serve. Raises KeyError for an unknown name, and PolicyError or
        ArtifactError with what was served left as it was.
        """
        async with self._lock:
            try:
                return await self._load(name, self.entries[name])
            except (Problems, KeyError):
                raise
            except Exception as error:
                log.exception("the reload broke")
                raise PolicyError([Problem("", f"{type(error).__name__}: the log says more")]) from error

    async def load_all(self) -> dict[str, Loaded | Problems]:
        """Loads every deployment but those that were unloaded by hand; how that went, by name."""
        done: dict[str, Loaded | Problems] = {}
        for entry in list(self.entries.values()):
            if isinstance(entry, Gateway) or entry.problems:
                try:
                    done[entry.name] = await self.load(entry.name)
                except Problems as error:
                    done[entry.name] = error
        return done

    async def _load(self, name: str, entry: Entry) -> Loaded:
        if isinstance(entry, Gateway):
            changed = await entry.reload()
            if self._alone:
                self.settings = entry.loaded.deployment
            return Loaded(entry, changed)
        if (closing := self._closing.pop(name, None)) is not None:
            await closing  # one at a time writes the audit log of a deployment
        found = await in_own_thread(partial(self._reopen, entry))
        if isinstance(found, NotReady):
            self._replace(name, found)
            raise PolicyError(found.problems)
        await found.healthy()  # runs all code once, so that the first request is not slower
        found.start()
        self._replace(name, found)
        log.info("deployment %s is ready", found.loaded.tag)
        return Loaded(found, True)

    async def unload(self, name: str) -> bool:
        """Stops serving a deployment, until `load` or a restart; whether it was ready. KeyError if unknown.

        Its rows under way finish; requests that come after this are told that it is not ready.
        """
        async with self._lock:
            entry = self.entries[name]
            if isinstance(entry, NotReady):
                return False
            entry.retired = True
            self._replace(name, NotReady(name, entry.folder, entry.loaded.policy.version))
            self._closing[name] = asyncio.create_task(self._close_later(entry))
            log.warning("deployment %s is unloaded, by hand", name)
            return True

    async def close(self) -> None:
        """Finishes accepted rows of every gateway and ends its threads, those being unloaded too."""
        for one in self._watching:
            one.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._ending.set()
        await asyncio.gather(*(gateway.close() for gateway in self.gateways.values()))
        await asyncio.gather(*self._closing.values())
        if self._watching_keys is not None:
            self._watching_keys.cancel()
            await asyncio.gather(self._watching_keys, return_exceptions=True)
        self.switch.close()

    async def _close_later(self, gateway: Gateway) -> None:
        """Closes an unloaded gateway once no request can use it: at the end of the process none can."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), 2 * gateway.loaded.policy.deadline_s)
        await gateway.close()

    def _apply_stops(self) -> None:
        for gateway in self.gateways.values():
            gateway.apply_stops()

    async def _watch_keys(self) -> None:
        """Until cancelled: looks at the files of keys, and writes when keys were last used. In a thread.

        A disk that hangs leaves the keys as they were, and is given two seconds at the end.
        """
        worker = Worker("callers")
        try:
            while True:
                for callers in self.callers:
                    await worker.call(callers.check)
                    if used := callers.take_uses():
                        await worker.call(partial(callers.write_uses, used))
                await asyncio.sleep(CHECK_EVERY_S)
        finally:
            last = (partial(one.write_uses, one.take_uses(at_once=True)) for one in self.callers)
            writes = [worker.call(write) for write in last]
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*writes), LAST_USES_S)
            worker.close(0.0)

    def _reopen(self, entry: NotReady) -> Entry:
        """The deployment as it is on the disk now. Blocks; may run in a thread."""
        deployment = read_deployment(entry.folder)
        if not isinstance(deployment, Deployment):
            return NotReady(entry.name, entry.folder, entry.version, deployment)
        others = [one.loaded.deployment for one in self.gateways.values()]
        problems = [*collisions([*others, deployment]), *disagreements([self.settings, deployment])]
        unread = {one.name for one in self.entries.values() if one is not entry}
        if not problems and deployment.policy.name in unread:
            what = f"{deployment.policy.name!r} is the name of another deployment here, which is not ready"
            problems = [deployment.problem(("name",), what)]
        if problems:
            return NotReady(entry.name, entry.folder, deployment.policy.version, tuple(problems))
        return self._open(deployment)

    def _open(self, deployment: Deployment) -> Entry:
        """Its gateway, or what is wrong with it."""
        name, folder = deployment.policy.name, deployment.folder
        state = self._state_dir if self._alone or self._state_dir is None else self._state_dir / name
        callers, latch = self._callers_of(folder, name), self.switch.latch_of(folder)
        host = Host(self.replica, state, callers, self.in_flight, latch, self._ledgers, self._alone)
        try:
            return Gateway.of(deployment, host)
        except Problems as error:
            problems = error.problems
        except Exception as error:
            log.exception("%s cannot be opened", folder)
            problems = (Problem("", f"cannot be opened: {type(error).__name__}: {error}", str(folder)),)
        return NotReady(name, folder, deployment.policy.version, problems)

    def _callers_of(self, folder: Path, name: str) -> Callers:
        """The callers in the file of keys of a deployment, or in that of the process."""
        own = self._state_dir is None
        at = (folder / VAR if self._state_dir is None else self._state_dir, name if own else None)
        if self._alone:
            at = (at[0], None)
        if at not in self._callers:
            loopback = self.settings.policy.serving.anonymous == "loopback"
            self._callers[at] = Callers(at[0], anonymous_loopback=loopback, only=at[1])
        return self._callers[at]

    def _replace(self, name: str, entry: Entry) -> None:
        """Puts an entry in the place of the one of this name."""
        self._put({one.name: one for one in (entry if k == name else v for k, v in self.entries.items())})

    def _put(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries
        self.gateways = {name: one for name, one in entries.items() if isinstance(one, Gateway)}
        self._apply_stops()  # one may have come while a deployment was loaded
        self.not_ready = [one for one in entries.values() if isinstance(one, NotReady)]
        self.only = next(iter(self.gateways.values())) if self._alone and self.gateways else None
        self.callers = tuple({id(c): c for c in map(self._callers_of_entry, entries.values())}.values())

    def _callers_of_entry(self, entry: Entry) -> Callers:
        return self._callers_of(entry.folder, entry.name)
