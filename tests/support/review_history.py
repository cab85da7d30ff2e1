"""A review store through random histories, beside a model in memory of what it must hold."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from fallbacks.review.cases import Case, CaseState, Claim
from fallbacks.review.open_store import open_store
from fallbacks.review.quotas import UNLIMITED, PutResult, Quotas, Share
from fallbacks.review.store import ReviewStore, StaleLease
from tests.support.review_cases import (
    DECIDED,
    EXPIRED,
    FULL,
    LEASED,
    OPEN,
    OVER_QUOTA,
    REJECTED,
    STORED,
    Clock,
    a_case,
)

T = TypeVar("T")
Lease = tuple[Claim, str]

CAPACITY, SHARE = 4, 3
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None  # no disk to wait for
REPLICA = st.integers(0, 1)


@dataclass
class ModelCase:
    """A case as the model keeps it."""

    case: Case
    fence: int = 0
    reviewer: str = ""
    until_s: float = 0.0
    answer: str | None = None
    decided_s: float = 0.0

    def state(self, now_s: float) -> CaseState:
        if self.answer is not None:
            return DECIDED
        if self.case.expires_s <= now_s:
            return EXPIRED
        return LEASED if self.until_s > now_s else OPEN


class TwoReplicas(RuleBasedStateMachine):
    """Two handles on one store make random calls; the model predicts every result."""

    leases = Bundle("leases")

    def __init__(self, url_of: Callable[[Path], str]) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        self.url = url_of(Path(self.folder.name))
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.replicas: list[ReviewStore] = []
        self.model: dict[str, ModelCase] = {}
        self.turn = 0

    def replica(self) -> ReviewStore:
        quotas = Quotas(principal=Share(SHARE, UNLIMITED))
        return open_store(self.url, Path(), capacity=CAPACITY, quotas=quotas, clock=self.clock)

    @initialize(target=leases)
    def start(self) -> Any:
        self.replicas = [self.replica(), self.replica()]
        self.put(0, [(0, 40), (1, 20), (2, 60)])
        return self.claim(1, "rita", 20)

    def teardown(self) -> None:
        for store in self.replicas:
            store.close()
        self.runner.close()
        self.folder.cleanup()

    def call(self, which: int, call: Callable[[ReviewStore], Coroutine[Any, Any, T]]) -> T:
        return self.runner.run(call(self.replicas[which]))

    def in_state(self, *wanted: CaseState) -> list[ModelCase]:
        return [one for one in self.model.values() if one.state(self.clock.now_s) in wanted]

    @rule(
        which=REPLICA,
        puts=st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 60)), min_size=1, max_size=3),
    )
    def put(self, which: int, puts: Sequence[tuple[int, int]]) -> None:
        cases = [
            a_case(f"{name}", self.clock.now_s + left_s, principal=["alice", "bob"][name % 2])
            for name, left_s in puts
        ]
        expected = []
        for case in cases:
            expected.append(self.expected_of(case))
            if expected[-1] is STORED:
                self.model.setdefault(case.id, ModelCase(case))
        assert self.call(which, lambda store: store.put(cases)) == expected

    def expected_of(self, case: Case) -> PutResult:
        waiting = self.in_state(OPEN, LEASED)
        if case.id in self.model:
            return STORED
        if case.expires_s <= self.clock.now_s:
            return REJECTED
        if len(waiting) >= CAPACITY:
            return FULL
        own = sum(one.case.principal == case.principal for one in waiting)
        return OVER_QUOTA if own >= SHARE else STORED

    @rule(target=leases, which=REPLICA, who=st.sampled_from(["rita", "ravi"]), lease_s=st.integers(1, 30))
    def claim(self, which: int, who: str, lease_s: int) -> Any:
        limit = lease_s % 3 + 1
        free = sorted(self.in_state(OPEN), key=lambda one: (one.case.expires_s, one.case.id))
        claims = self.call(which, lambda store: store.claim(who, lease_s, limit))
        assert [claim.case for claim in claims] == [one.case for one in free[:limit]]
        for claim, one in zip(claims, free[:limit], strict=True):
            assert claim.fence not in (0, one.fence)
            one.fence, one.reviewer = claim.fence, who
            one.until_s = min(self.clock.now_s + lease_s, one.case.expires_s)
            assert claim.until_s == one.until_s
        return multiple(*((claim, who) for claim in claims))

    @rule(which=REPLICA, names=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    def withdraw(self, which: int, names: Sequence[int]) -> None:
        ids = [f"{name}" for name in names]
        gone = [id_ for id_ in ids if id_ in self.model and self.model[id_].state(self.clock.now_s) is OPEN]
        assert self.call(which, lambda store: store.withdraw(ids)) == len(gone)
        for id_ in gone:
            del self.model[id_]

    def act(
        self,
        which: int,
        claim: Claim,
        who: str | None,
        call: Callable[[ReviewStore], Coroutine[Any, Any, None]],
    ) -> ModelCase | None:
        """A call under a claim, which must succeed exactly if its lease runs; the model's case if it did."""
        one = self.model.get(claim.case.id)
        if one is not None and (one.fence, one.state(self.clock.now_s)) != (claim.fence, LEASED):
            one = None
        if one is not None and who not in (None, one.reviewer):
            one = None
        try:
            self.call(which, call)
        except StaleLease:
            assert one is None
        else:
            assert one is not None
        return one

    @rule(which=REPLICA, lease=leases, thief=st.booleans(), answer=st.sampled_from("xyz"))
    def resolve(self, which: int, lease: Lease, thief: bool, answer: str) -> None:
        claim, who = lease[0], "mallory" if thief else lease[1]
        one = self.act(
            which, claim, who, lambda store: store.resolve(claim.case.id, claim.fence, who, answer)
        )
        if one:
            one.answer, one.decided_s = answer, self.clock.now_s

    @rule(which=REPLICA, lease=leases, lease_s=st.integers(0, 30))
    def renew_or_release(self, which: int, lease: Lease, lease_s: int) -> None:
        """A lease of 0 s stands for a release."""
        name, fence = lease[0].case.id, lease[0].fence
        one = self.act(
            which,
            lease[0],
            None,
            lambda store: store.renew(name, fence, lease_s) if lease_s else store.release(name, fence),
        )
        if one:
            one.until_s = self.clock.now_s + lease_s

    @rule(which=REPLICA, ago_s=st.none() | st.integers(-50, 50))
    def sweep(self, which: int, ago_s: int | None) -> None:
        if ago_s is None:
            self.call(which, lambda store: store.expire(self.clock.now_s))
            return
        before_s = self.clock.now_s - ago_s
        gone = [one for one in self.in_state(DECIDED) if one.decided_s < before_s]
        gone += [one for one in self.in_state(EXPIRED) if one.case.expires_s < before_s]
        assert self.call(which, lambda store: store.purge(before_s)) == len(gone)
        for one in gone:
            del self.model[one.case.id]

    @rule(which=REPLICA, seconds=st.integers(1, 20))
    def time_passes(self, which: int, seconds: int) -> None:
        """During a long pause a replica restarts."""
        self.clock.now_s += seconds
        if seconds > 15:
            self.replicas[which].close()
            self.replicas[which] = self.replica()

    @invariant()
    def each_replica_in_turn_agrees_with_the_model(self) -> None:
        now_s = self.clock.now_s
        assert len(self.in_state(OPEN, LEASED)) <= CAPACITY
        if not self.replicas:
            return
        self.turn += 1
        records = self.call(self.turn % 2, lambda store: store.list_cases(list(CaseState), 100))
        assert {r.id: (r.state, r.fence, r.answer, r.expires_s) for r in records} == {
            name: (one.state(now_s), one.fence, one.answer, one.case.expires_s)
            for name, one in self.model.items()
        }
        waiting = self.in_state(OPEN, LEASED)
        oldest_s = min((one.case.created_s for one in waiting), default=None)
        counts = self.call(self.turn % 2, lambda store: store.counts())
        assert counts.by_state == {state: len(self.in_state(state)) for state in CaseState}
        assert counts.oldest_waiting_s == (None if oldest_s is None else now_s - oldest_s)
