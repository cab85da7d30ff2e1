"""The accounts of one gateway's budgets, and the tasks that fill them from ledgers.

They outlive a reload: a policy that is compiled asks for its accounts (`draft`), and only once it is in force
are those that are new filled, and those that it no longer names given back (`follow`). No request waits for a
ledger.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from gateway.ledger.leased import LeasedAccounts
from gateway.ledger.ledger import MOST_WANTS, Batch, Want
from gateway.ledger.ledgers import Ledgers, SharedLedger
from gateway.ledger.refill import Refill
from gateway.policy.kinds.kind import LedgerUse, SharedAccounts

GIVE_BACK_S: Final = 5.0
GLANCE_S: Final = 0.5
CANCEL_AGAIN_S: Final = 0.2
log = logging.getLogger(__name__)


class Key(NamedTuple):
    """Which accounts: of a guard, in the unit of its kind, at a ledger."""

    kind: str
    guard: str
    ledger: str


class Asked(NamedTuple):
    """What a policy has asked for."""

    accounts: LeasedAccounts
    shared: SharedAccounts
    on_error: Literal["allow", "refuse"]


Draft: TypeAlias = Mapping[Key, Asked]
"""The accounts of one policy."""


@dataclass(frozen=True, slots=True, eq=False)
class _Filled:
    """Accounts in force, with what fills them."""

    asked: Asked
    ledger: SharedLedger
    refill: Refill
    task: asyncio.Task[None]
    asker: bytes = field(default_factory=lambda: secrets.token_bytes(16))


class SharedBudgets:
    """deployment: its name, under which ledgers know these accounts."""

    def __init__(self, deployment: str, ledgers: Ledgers) -> None:
        self._deployment, self._ledgers = deployment, ledgers
        self._filled: dict[Key, _Filled] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._glances = 0

    def problem(self, ledger: str) -> str:
        """Why a ledger cannot be used in this process; empty if it can."""
        return self._ledgers.problem(ledger)

    def share(self, use: LedgerUse, draft: dict[Key, Asked]) -> SharedAccounts:
        """Adds to a draft the accounts in force, or new ones. Changes nothing else; may run in a thread."""
        key = Key(use.kind, use.guard, use.ledger)
        if (filled := self._filled.get(key)) is not None:
            draft[key] = filled.asked._replace(on_error=use.on_error)
        else:
            scope = f"{self._deployment}/{use.kind}/{use.guard}"
            accounts = LeasedAccounts(scope, self._ledgers.slices, use.on_error)
            draft[key] = Asked(accounts, SharedAccounts.over(accounts), use.on_error)
        return draft[key].shared

    def follow(self, draft: Draft, grace_s: float) -> None:
        """Puts the accounts of a policy in force, on the event loop that serves.

        Args:    grace_s: how long rows of the policy before may still be under way.
        """
        for key, asked in draft.items():
            if key not in self._filled:
                self._filled[key] = self._fill(key, asked)
            asked.accounts.on_error = asked.on_error
        for key in self._filled.keys() - draft.keys():
            ending = asyncio.create_task(self._end(self._filled.pop(key), grace_s))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def _fill(self, key: Key, asked: Asked) -> _Filled:
        ledger = self._ledgers.take(key.ledger)
        refill = Refill(asked.accounts, ledger)
        return _Filled(asked, ledger, refill, asyncio.create_task(refill.run()))

    async def _end(self, filled: _Filled, grace_s: float) -> None:
        """Gives back what was leased and not spent, once no row can be charged any more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), grace_s)
        while not filled.task.done():
            filled.task.cancel()  # again, where a library of the ledger has swallowed it
            await asyncio.wait({filled.task}, timeout=CANCEL_AGAIN_S)
        try:
            await asyncio.wait_for(filled.refill.give_back(), GIVE_BACK_S)
        except TimeoutError:
            log.warning("the ledger of budgets does not answer: what was leased stays charged")
        await self._ledgers.release(filled.ledger)

    async def close(self) -> None:
        """Gives everything back and closes the ledgers. Nothing may be charged any more."""
        self._closing.set()
        self.follow({}, 0.0)
        await asyncio.gather(*self._ending)

    def reachable(self) -> Iterator[tuple[Key, bool]]:
        """Which accounts are in force, and whether their ledger answers."""
        for key, filled in self._filled.items():
            yield key, filled.asked.accounts.unreachable_since_s is None

    async def left_at_ledger(self, guard: str, wants: Mapping[str, Want]) -> dict[str, float]:
        """What buckets of a guard hold at their ledger, by name; nothing while it does not answer.

        Args:    wants: of no units, at most 500. For administration: it waits for the ledger, half a second.
        """
        filled = next((one for key, one in self._filled.items() if key.guard == guard), None)
        if filled is None or not wants:
            return {}
        self._glances += 1
        batch = Batch(filled.asker, self._glances, tuple(wants.values())[:MOST_WANTS])
        try:
            async with asyncio.timeout(GLANCE_S):
                grants = await filled.ledger.lease(batch)
        except Exception:  # noqa: BLE001 - the refill has logged that it does not answer
            return {}
        return {name: grant.left for name, grant in zip(wants, grants, strict=False)}
