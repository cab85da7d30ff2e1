"""Reloads a deployment whose files have changed, where its policy says `serving.reload: on_change`.

A writer writes several files, one after another. So the folder is read only once it has been left alone for
SETTLE_S, and what does not belong together then is refused by its certificate like in any reload: the policy
before it stays in force. What was tried once is tried again only when a file changes again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from gateway.core.errors import Problems
from gateway.core.record import AdminAct
from gateway.deployment.folder_files import FolderState
from gateway.serving.host import in_own_thread

if TYPE_CHECKING:
    from gateway.serving.gateway import Gateway
    from gateway.serving.repository import Repository

POLL_S, SETTLE_S = 0.5, 1.0
ACT = "reload_on_change"
log = logging.getLogger(__name__)


class Settling:
    """When a folder that is not as it was read has been left alone for SETTLE_S."""

    def __init__(self) -> None:
        self._seen: FolderState | None = None
        self._since_s = 0.0

    def is_due(self, read: FolderState, found: FolderState, now_s: float) -> bool:
        """Whether to read the folder now.

        Args:    read: its state when it was read last; found: now; now_s: of a clock that never steps.
        """
        if found == read:
            self._seen = None
            return False
        if found != self._seen:
            self._seen, self._since_s = found, now_s
            return False
        return now_s - self._since_s >= SETTLE_S


async def watch_folders(repository: Repository) -> None:
    """Until cancelled: looks at the files of each deployment that asks for it, in a thread."""
    settling: dict[str, Settling] = {}
    while True:
        await asyncio.sleep(POLL_S)
        watched = [
            one for one in repository.gateways.values() if one.loaded.policy.serving.reload == "on_change"
        ]
        if not watched:
            continue
        found = await in_own_thread(partial(_states, watched))
        for gateway, state in zip(watched, found, strict=True):
            own = settling.setdefault(gateway.name, Settling())
            if not gateway.retired and own.is_due(gateway.read_folder.state, state, time.monotonic()):
                await _reload(repository, gateway)


def _states(gateways: Iterable[Gateway]) -> list[FolderState]:
    return [one.read_folder.state_now() for one in gateways]


async def _reload(repository: Repository, gateway: Gateway) -> None:
    """One attempt, which is recorded in the audit log; a failure is logged."""
    try:
        await repository.load(gateway.name)
        done = True
    except Problems as error:
        log.error("%s has changed and cannot be loaded; the old policy stays: %s", gateway.folder, error)
        done = False
    except KeyError:  # no deployment of this name any more
        return
    on = gateway.loaded.tag if done else gateway.name
    gateway.audit.take_act(AdminAct(ACT, "", on, "", done, time.time()))
