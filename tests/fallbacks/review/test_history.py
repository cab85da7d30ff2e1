"""The review queue through any history: never two holders of one case, nothing lost, never over capacity."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from fallbacks.review.queue import Case, CaseState, Claim, ReviewQueue, StaleLease
from tests.support.review_cases import DECIDED, EXPIRED, LEASED, OPEN, Clock, a_case

T = TypeVar("T")
Held = tuple[Claim, str]

CAPACITY = 4
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None  # no disk to wait for
REPLICA = st.integers(0, 1)


@dataclass
class OnPaper:
    """A case as a clerk without a database would keep it."""

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
    """Two queues on one file do whatever they like; a clerk says what must come of it."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.replicas: list[ReviewQueue] = []
        self.paper: dict[str, OnPaper] = {}
        self.turn = 0

    def replica(self) -> ReviewQueue:
        return ReviewQueue.open(f"sqlite:///{self.folder.name}/r.db", capacity=CAPACITY, clock=self.clock)

    @initialize(target=held)
    def start(self) -> Any:
        self.replicas = [self.replica(), self.replica()]
        self.put(0, [(0, 40), (1, 20), (2, 60)])
        return self.claim(1, "rita", 20)

    def teardown(self) -> None:
        for queue in self.replicas:
            queue.close()
        self.runner.close()
        self.folder.cleanup()

    def ask(self, which: int, call: Callable[[ReviewQueue], Coroutine[Any, Any, T]]) -> T:
        return self.runner.run(call(self.replicas[which]))

    def on_paper(self, *wanted: CaseState) -> list[OnPaper]:
        return [one for one in self.paper.values() if one.state(self.clock.now_s) in wanted]

    @rule(
        which=REPLICA,
        puts=st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 60)), min_size=1, max_size=3),
    )
    def put(self, which: int, puts: Sequence[tuple[int, int]]) -> None:
        cases = [a_case(f"{name}", self.clock.now_s + left_s) for name, left_s in puts]
        expected = []
        for case in cases:
            room = len(self.on_paper(OPEN, LEASED)) < CAPACITY
            if case.id not in self.paper and room and case.expires_s > self.clock.now_s:
                self.paper[case.id] = OnPaper(case)
            expected.append(case.id in self.paper)
        assert self.ask(which, lambda q: q.put(cases)) == expected

    @rule(target=held, which=REPLICA, who=st.sampled_from(["rita", "ravi"]), lease_s=st.integers(1, 30))
    def claim(self, which: int, who: str, lease_s: int) -> Any:
        limit = lease_s % 3 + 1
        free = sorted(self.on_paper(OPEN), key=lambda one: (one.case.expires_s, one.case.id))
        claims = self.ask(which, lambda q: q.claim(who, lease_s, limit))
        assert [claim.case for claim in claims] == [one.case for one in free[:limit]]
        for claim, one in zip(claims, free[:limit], strict=True):
            one.fence, one.reviewer = one.fence + 1, who
            one.until_s = min(self.clock.now_s + lease_s, one.case.expires_s)
            assert (claim.fence, claim.until_s) == (one.fence, one.until_s)
        return multiple(*((claim, who) for claim in claims))

    def act(
        self,
        which: int,
        claim: Claim,
        who: str | None,
        call: Callable[[ReviewQueue], Coroutine[Any, Any, None]],
    ) -> OnPaper | None:
        """Does something under a claim: allowed exactly if still held. The case on paper if it was."""
        one = self.paper.get(claim.case.id)
        if one is not None and (one.fence, one.state(self.clock.now_s)) != (claim.fence, LEASED):
            one = None
        if one is not None and who not in (None, one.reviewer):
            one = None
        try:
            self.ask(which, call)
        except StaleLease:
            assert one is None
        else:
            assert one is not None
        return one

    @rule(which=REPLICA, mine=held, thief=st.booleans(), answer=st.sampled_from("xyz"))
    def resolve(self, which: int, mine: Held, thief: bool, answer: str) -> None:
        claim, who = mine[0], "mallory" if thief else mine[1]
        one = self.act(which, claim, who, lambda q: q.resolve(claim.case.id, claim.fence, who, answer))
        if one:
            one.answer, one.decided_s = answer, self.clock.now_s

    @rule(which=REPLICA, mine=held, lease_s=st.integers(0, 30))
    def renew_or_release(self, which: int, mine: Held, lease_s: int) -> None:
        """A lease of nothing stands for handing the case back."""
        name, fence = mine[0].case.id, mine[0].fence
        one = self.act(
            which,
            mine[0],
            None,
            lambda q: q.renew(name, fence, lease_s) if lease_s else q.release(name, fence),
        )
        if one:
            one.until_s = self.clock.now_s + lease_s

    @rule(which=REPLICA, ago_s=st.none() | st.integers(-50, 50))
    def sweep(self, which: int, ago_s: int | None) -> None:
        if ago_s is None:
            self.ask(which, lambda q: q.expire(self.clock.now_s))
            return
        before_s = self.clock.now_s - ago_s
        gone = [one for one in self.on_paper(DECIDED) if one.decided_s < before_s]
        gone += [one for one in self.on_paper(EXPIRED) if one.case.expires_s < before_s]
        assert self.ask(which, lambda q: q.purge(before_s)) == len(gone)
        for one in gone:
            del self.paper[one.case.id]

    @rule(which=REPLICA, seconds=st.integers(1, 20))
    def time_passes(self, which: int, seconds: int) -> None:
        """In a long pause a replica restarts."""
        self.clock.now_s += seconds
        if seconds > 15:
            self.replicas[which].close()
            self.replicas[which] = self.replica()

    @invariant()
    def each_replica_in_turn_sees_what_is_on_paper(self) -> None:
        now_s = self.clock.now_s
        assert len(self.on_paper(OPEN, LEASED)) <= CAPACITY
        if not self.replicas:
            return
        self.turn += 1
        records = self.ask(self.turn % 2, lambda q: q.listing(list(CaseState), 100))
        assert {r.id: (r.state, r.fence, r.answer, r.expires_s) for r in records} == {
            name: (one.state(now_s), one.fence, one.answer, one.case.expires_s)
            for name, one in self.paper.items()
        }
        waiting = self.on_paper(OPEN, LEASED)
        oldest_s = min((one.case.created_s for one in waiting), default=None)
        told = self.ask(self.turn % 2, lambda q: q.waiting())
        assert told.counts == {state: len(self.on_paper(state)) for state in CaseState}
        assert told.oldest_age_s == (None if oldest_s is None else now_s - oldest_s)


def test_any_history_of_two_replicas_agrees_with_cases_kept_on_paper() -> None:
    run_state_machine_as_test(TwoReplicas, settings=settings(max_examples=12, stateful_step_count=30))
