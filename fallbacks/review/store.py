"""The protocol of a review store, and the two errors that every store raises."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from fallbacks.review.cases import Case, CaseCounts, CaseRecord, CaseState, Claim
from fallbacks.review.quotas import PutResult, Quotas


class StoreError(Exception):
    """The store cannot be opened, or its file has gone since: says which, why, and what to do."""


class StaleLease(Exception):
    """The case is not held under this fence: its lease has ended, another reviewer has it, or it is final."""


class ReviewStore(Protocol):
    """Keeps review cases durably from the moment a row is deferred until it is decided, expired and deleted.

    Replicas put cases, reviewers claim and resolve them, callers look up how theirs ended. Several processes
    share one store: each opens it by the same URL (`open_store`) with the same capacity. A `ReviewStore` is
    one process's handle on it.

    What a store guarantees
    -----------------------
    *Durability.* `put` and `resolve` return only when the change would survive the loss of the process and of
    the machine's power. Where what the store has opened is no longer what its URL leads to, they raise.

    *Bounded capacity.* Open and leased cases together never exceed `capacity`, counted over all processes. A
    full store refuses (FULL) at once; it never queues a `put` until there is room. A case past its expiry
    takes no room, even if nothing has marked it as expired; where hundreds are, a `put` may be refused until
    `expire` has marked them.

    *Quotas.* Nor do the cases of one principal, of one pool, or the bytes of any of these or of all exceed
    `quotas` (OVER_QUOTA, FULL). So a caller that fills its own share takes nothing from the others.

    *Identical rows.* A row with the principal, group and payload of an open or leased case joins that case
    instead of opening one: it is found under its own id, stands as that case does, and takes few bytes. It
    does not join one that would expire before half of its own time, nor one that very many rows have joined.
    Rows of different principals never share a case.

    *Payloads.* The payload of a case is deleted in the transaction that makes it final.

    *Atomicity.* The cases of one `put` become visible together. If `put` raises, none of them was stored, or
    it is unknown whether all were (the connection was lost during the commit).

    *Idempotence.* An id that is already stored with the same principal, group and payload is STORED and
    changes nothing, whatever its state and however full the store is. An id that is stored for anything else
    is REJECTED. So a caller who does not know how a `put` ended repeats it.

    *Order.* `put` fills the remaining room in the order of its argument. `claim` leases the cases that expire
    first, then the oldest, then by id.

    *Exclusive leases.* A case has at most one lease at a time. Each claim gives the case a new fence, a
    random number from 1 to 2^53 - 1. `resolve`, `renew` and `release` succeed only with the fence of the
    lease that runs now; with any other they raise StaleLease and change nothing. A lease never outlasts the
    expiry of its case.

    *Time decides, not a sweeper.* Every method judges state by the store's clock at the time of the call.
    `expire` only writes down what every read reports already.

    *Withdrawal.* `withdraw` undoes a `put` of rows that only wait, and gives back what they took.

    *Finality.* A decided or expired case never changes again, until `purge` deletes it.

    *Cancellation.* A call that is cancelled before its commit changes nothing. Whether a call that is
    cancelled during its commit took effect is unknown until the case is looked up.

    *Bounded cost.* No method but `purge` and `expire` takes longer because more cases are stored, and those
    two work in transactions short enough that a concurrent `put` is not held up.

    What an implementation must do
    ------------------------------
    Read the clock inside the transaction, once its locks are held: a time that was read before waiting for a
    lock could revive a lease that has ended meanwhile. Decide `put` and `claim` in the database (a write lock
    as in SQLite, `FOR UPDATE SKIP LOCKED` in PostgreSQL), never by a count that was read in an earlier
    transaction. Never block the event loop; `close` alone may block. Raise the database's own errors
    unchanged: the pipeline treats every exception from `put` as "no reviewer will see this row" and refuses
    it. Be usable from any event loop of the process.

    A new store is a package beside `sqlite/`, one case of the `match` in `open_store`, and one line of STORES
    in `tests/fallbacks/review/test_store_contract.py`, which tests all of the above against every store.

    Example
    -------
    The whole life of a case. The contract tests run these lines against every store::

        store = open_store(url, folder, capacity=1000)
        now_s = store.now_s()
        case = Case(
            id="d-1",
            principal="ada",
            created_s=now_s,
            expires_s=now_s + 3600,
            payload=encode({"x": np.zeros((1, 4), np.float32)}),
            why='{"reason": "abstained", "raised": []}',
            model_view="[[3, 0.52], [1, 0.41]]",
        )
        assert await store.put([case]) == [PutResult.STORED]

        (claim,) = await store.claim("grace", lease_s=600.0)
        shown = decode(claim.case.payload)
        await store.resolve(claim.case.id, claim.fence, "grace", '{"label": 3}')

        record = await store.find("d-1")
        assert record.state is CaseState.DECIDED and record.answer == '{"label": 3}'
        store.close()
    """

    capacity: int
    """The most open and leased cases together. May be changed; the next `put` uses the new value."""
    quotas: Quotas
    """The most of them for one caller and pool, and in bytes. May be changed as well."""

    def now_s(self) -> float:
        """The store's time, of which all times in cases are: seconds since 1970, the same in every process.

        It follows the system's clock, but no step of that moves it: a case that waits is not lost for one.
        """
        ...

    async def put(self, cases: Sequence[Case], /) -> list[PutResult]:
        """Stores cases in order; for each, whether it is in the store now, or why it is not.

        An empty sequence returns an empty list.
        """
        ...

    async def withdraw(self, case_ids: Sequence[str], /) -> int:
        """Deletes rows that were put in vain, since no caller was told of them; how many it deleted.

        A case that a reviewer has leased, that is final, or that other rows have joined stays.
        """
        ...

    async def claim(self, reviewer: str, lease_s: float, limit: int = 1) -> list[Claim]:
        """Leases up to `limit` open cases to this reviewer for `lease_s` seconds; fewer if fewer are open.

        Raises: ValueError unless `lease_s` is positive and finite.
        """
        ...

    async def resolve(self, case_id: str, fence: int, reviewer: str, answer: str) -> None:
        """Decides a case for good with `answer`, which is JSON.

        Raises: StaleLease unless this reviewer holds the case under this fence.
        """
        ...

    async def renew(self, case_id: str, fence: int, lease_s: float) -> None:
        """Extends a lease that still runs to `lease_s` seconds from now.

        Raises: StaleLease if the case is not held under this fence; ValueError as `claim`.
        """
        ...

    async def release(self, case_id: str, fence: int) -> None:
        """Makes a leased case open again. Raises StaleLease if it is not held under this fence."""
        ...

    async def find(self, case_id: str) -> CaseRecord | None:
        """The case as it stands now, or None if no case has this id.

        Of a row that joined another case, that case, whose own id the record has.
        """
        ...

    async def find_all(self, case_ids: Collection[str]) -> dict[str, CaseRecord]:
        """As `find` for several ids at once; unknown ids are left out."""
        ...

    async def decided_within(self, seconds: float) -> list[str]:
        """The ids of the cases that were decided in the last `seconds`."""
        ...

    async def payload(self, case_id: str) -> bytes | None:
        """The bytes that were put, or None if no open or leased case has this id of its own."""
        ...

    async def list_cases(self, states: Collection[CaseState], limit: int) -> list[CaseRecord]:
        """Up to `limit` cases in these states: first those that wait, soonest expiry first, then the final
        ones, latest first."""
        ...

    async def counts(self) -> CaseCounts:
        """Exact counts by state over all processes, and the age of the oldest case that waits."""
        ...

    async def expire(self, now_s: float) -> int:
        """Marks every case past its expiry at `now_s` as expired; how many it marked."""
        ...

    async def purge(self, before_s: float, expired_before_s: float | None = None) -> int:
        """Deletes the cases that became final before `before_s`, with the rows that joined them; how many.

        expired_before_s: another time for those that expired, of which there is no answer to keep.
        Gives back the room that is free since, where the store can.
        """
        ...

    def close(self) -> None:
        """Finishes calls that are under way, then closes the handle; blocks meanwhile, for seconds at most.

        Idempotent. Any later call raises RuntimeError.
        """
        ...
