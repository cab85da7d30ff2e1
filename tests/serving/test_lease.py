"""The dead-man's lease on a clock that only tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.serving.lease import CALLS_A_LEASE, Lease, keep_lease


class LeaseWorld(RuleBasedStateMachine):
    """answered: when each answered call began, from which it follows whether the lease is held."""

    @initialize(length_s=st.sampled_from([0.0, 0.5, 2.0, 60.0]))
    def begin(self, length_s: float) -> None:
        self.now_s = 100.0
        self.lease = Lease(length_s, self.now_s)
        self.answered = [self.now_s]

    @rule(for_s=st.floats(0, 100))
    def wait(self, for_s: float) -> None:
        self.now_s += for_s

    @rule(ago_s=st.floats(0, 10))
    def be_answered(self, ago_s: float) -> None:
        """The call may have begun before the previous answer came: it renews nothing then."""
        began_s = self.now_s - ago_s
        self.lease = self.lease.renewed(began_s)
        self.answered.append(began_s)

    @invariant()
    def it_is_held_for_its_length_after_the_latest_call_that_was_answered(self) -> None:
        if not hasattr(self, "lease"):
            return
        length_s = self.lease.length_s
        held = not length_s or self.now_s < max(self.answered) + length_s
        assert self.lease.is_held(self.now_s) == held

    @invariant()
    def it_never_waits_beyond_its_end(self) -> None:
        if hasattr(self, "lease") and self.lease.length_s and self.lease.is_held(self.now_s):
            wait_s = self.lease.wait_s(self.now_s)
            assert 0 < wait_s <= self.lease.length_s / CALLS_A_LEASE
            assert self.now_s + wait_s <= self.lease.expires_s() + 1e-9


TestLease = LeaseWorld.TestCase
TestLease.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class Controller:
    """Answers, raises or hangs, as each call's turn in `behaviour` says; the last turn ends the test.

    clock: moves by what is slept, and by `hang_s` when a call hangs.
    """

    def __init__(self, *behaviour: str) -> None:
        self.behaviour = list(behaviour)
        self.now_s = 0.0
        self.seen: list[tuple[float, bool]] = []

    async def call(self) -> None:
        match self.behaviour.pop(0):
            case "raise":
                raise ConnectionError("no controller")
            case "hang":
                await asyncio.sleep(3600)

    def hold(self, why: str) -> None:
        self.seen.append((self.now_s, bool(why)))

    async def sleep(self, for_s: float) -> None:
        if not self.behaviour:
            raise asyncio.CancelledError
        self.now_s += for_s

    def run(self, length_s: Callable[[], float]) -> list[tuple[float, bool]]:
        """When the replica stopped (True) and went on (False)."""

        async def main() -> None:
            await keep_lease(self.call, length_s, self.hold, clock=lambda: self.now_s, sleep=self.sleep)

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
        return self.seen


def test_stops_when_the_lease_ends_and_goes_on_when_the_controller_answers_again() -> None:
    controller = Controller("answer", *["raise"] * 6, "answer", "answer")
    assert controller.run(lambda: 2.0) == [(2.0, True), (3.5, False)]


def test_a_controller_that_hangs_does_not_answer() -> None:
    controller = Controller("answer", *["hang"] * 5)
    assert controller.run(lambda: 0.4) == [(0.4, True)]


def test_a_lease_of_no_length_asks_nothing_and_stops_nothing() -> None:
    controller = Controller("raise")
    turns = iter([0.0] * 50)
    with pytest.raises(RuntimeError):  # the turns have ended, and nothing else has
        asyncio.run(
            keep_lease(
                controller.call,
                lambda: next(turns),
                controller.hold,
                clock=lambda: 0.0,
                sleep=controller.sleep,
            )
        )
    assert controller.seen == [] and controller.behaviour == ["raise"]


def test_a_lease_that_a_reload_sets_begins_then() -> None:
    controller = Controller(*["raise"] * 6)
    lengths = [0.0] * 100 + [4.0] * 100  # the first is asked for before the first second
    assert controller.run(lambda: lengths.pop(0)) == [(98.0 + 4.0, True)]


@given(st.lists(st.sampled_from(["answer", "raise"]), min_size=1, max_size=40))
@settings(deadline=None)
def test_stops_and_resumptions_alternate_and_begin_with_a_stop(behaviour: list[str]) -> None:
    seen = [held for _, held in Controller(*behaviour).run(lambda: 1.0)]
    assert seen == [i % 2 == 0 for i in range(len(seen))]
