"""The circuit breaker: its states, and its composition with timeouts and other breakers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import sys
from collections.abc import Callable, Coroutine
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks import breaker as module
from fallbacks.breaker import TRANSITIONS, Breaker, BreakerEvent, BreakerState, CircuitOpen
from fallbacks.failure_window import WindowLimits
from fallbacks.known_rows import KnownRows, WrongAnswer
from fallbacks.predictor import ModelBusy, ModelRaised, Tensors, UnfitInput
from fallbacks.stuck import StuckOutput
from fallbacks.worker import WAITED_S, QueuedTooLong
from tests.support.core_parts import run

ROW = {"x": np.zeros((1, 1))}


class Clock:
    """A clock that moves only when it is set."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Model:
    """A model that answers, raises, or waits for its gate to open, as `behaviour` says. Counts its calls."""

    def __init__(self) -> None:
        self.behaviour = "answer"
        self.stuck: Tensors | None = None
        self.asked = 0
        self.gates: list[asyncio.Future[None]] = []

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.asked += 1
        if self.behaviour == "wait":
            gate = asyncio.get_running_loop().create_future()
            self.gates.append(gate)
            await gate
        elif self.behaviour == "raise":
            raise OSError("broken")
        elif self.behaviour == "unfit":
            raise UnfitInput("no text")
        elif self.behaviour == "exit":
            sys.exit(3)
        return inputs if self.stuck is None else self.stuck


class BreakerWorld:
    """A breaker of three failures and ten seconds, with its model and clock."""

    def __init__(self) -> None:
        self.model, self.clock = Model(), Clock()
        self.breaker = Breaker(self.model, failures=3, reset_s=10.0, clock=self.clock)

    def state(self) -> BreakerState:
        """A call, not a property: mypy would take a property that was seen once to stay as it was."""
        return self.breaker.state

    async def ask(self, behaviour: str = "answer") -> str:
        """Asks once: `answered`, or the name of what was raised."""
        self.model.behaviour = behaviour
        try:
            await self.breaker.predict(ROW)
        except (OSError, UnfitInput, CircuitOpen) as error:
            return type(error).__name__
        return "answered"

    async def start(self) -> asyncio.Task[Tensors]:
        """A call that waits inside the model; `model.gates[-1]` lets it go."""
        self.model.behaviour = "wait"
        task = asyncio.ensure_future(self.breaker.predict(ROW))
        await asyncio.sleep(0)
        return task

    async def trip(self) -> None:
        for _ in range(3):
            assert await self.ask("raise") == "OSError"
        assert self.state() is BreakerState.OPEN


def play(scene: Callable[[BreakerWorld], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scene(BreakerWorld())

    run(main)


def test_passes_answers_and_errors_through_unchanged_while_closed() -> None:
    async def scene(b: BreakerWorld) -> None:
        assert await b.breaker.predict(ROW) is ROW
        assert await b.ask("raise") == "OSError"
        assert b.state() is BreakerState.CLOSED

    play(scene)


def test_opens_after_three_failures_in_a_row_but_not_if_an_answer_lies_between() -> None:
    async def scene(b: BreakerWorld) -> None:
        for behaviour in ("raise", "raise", "answer", "raise", "raise"):
            await b.ask(behaviour)
        assert b.state() is BreakerState.CLOSED
        await b.ask("raise")
        assert b.state() is BreakerState.OPEN

    play(scene)


def test_refuses_at_once_while_open_and_probes_once_after_reset() -> None:
    async def scene(b: BreakerWorld) -> None:
        await b.trip()
        b.clock.now_s += 9.0
        with pytest.raises(CircuitOpen) as refused:
            await b.breaker.predict(ROW)
        assert (refused.value.state, refused.value.retry_after_s) == (BreakerState.OPEN, 1.0)
        assert b.model.asked == 3
        b.clock.now_s += 1.0
        probe = await b.start()
        assert b.state() is BreakerState.HALF_OPEN
        assert [await b.ask() for _ in range(5)] == ["CircuitOpen"] * 5
        assert b.model.asked == 4
        b.model.gates[-1].set_result(None)
        await probe
        assert b.state() is BreakerState.CLOSED

    play(scene)


def test_failed_probe_opens_again_for_the_whole_reset() -> None:
    async def scene(b: BreakerWorld) -> None:
        await b.trip()
        b.clock.now_s += 10.0
        assert await b.ask("raise") == "OSError"
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 9.9
        assert await b.ask() == "CircuitOpen"
        b.clock.now_s += 0.1
        assert await b.ask() == "answered"

    play(scene)


def test_closes_with_no_failures_counted() -> None:
    async def scene(b: BreakerWorld) -> None:
        await b.trip()
        b.clock.now_s += 10.0
        await b.ask()
        for behaviour in ("raise", "raise"):
            await b.ask(behaviour)
        assert b.state() is BreakerState.CLOSED

    play(scene)


def test_timeouts_around_it_count_as_failures_and_open_it() -> None:
    async def scene(b: BreakerWorld) -> None:
        b.model.behaviour = "wait"
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await b.breaker.predict(ROW)
        assert b.state() is BreakerState.OPEN

    play(scene)


def test_inconclusive_calls_neither_open_it_nor_reset_the_count_of_failures() -> None:
    async def scene(b: BreakerWorld) -> None:
        for _ in range(20):
            assert await b.ask("unfit") == "UnfitInput"
        assert b.state() is BreakerState.CLOSED
        for behaviour in ("raise", "unfit", "raise", "unfit"):
            await b.ask(behaviour)
        assert b.state() is BreakerState.CLOSED
        await b.ask("raise")
        assert b.state() is BreakerState.OPEN

    play(scene)


def test_after_an_inconclusive_probe_the_next_call_is_the_probe() -> None:
    async def scene(b: BreakerWorld) -> None:
        await b.trip()
        b.clock.now_s += 10.0
        for _ in range(3):
            assert await b.ask("unfit") == "UnfitInput"
            assert b.state() is BreakerState.OPEN
        assert await b.ask() == "answered"
        assert b.state() is BreakerState.CLOSED
        await b.trip()
        assert await b.ask() == "CircuitOpen", "and the wait after the next failures is whole again"

    play(scene)


def test_cancelled_probe_opens_again_instead_of_holding_the_circuit_half_open() -> None:
    async def scene(b: BreakerWorld) -> None:
        await b.trip()
        b.clock.now_s += 10.0
        probe = await b.start()
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert b.state() is BreakerState.OPEN

    play(scene)


def test_calls_from_before_it_opened_neither_close_it_nor_decide_the_probe() -> None:
    async def scene(b: BreakerWorld) -> None:
        good, bad = await b.start(), await b.start()
        await b.trip()
        b.model.gates[0].set_result(None)
        await good
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 10.0
        probe = await b.start()
        b.model.gates[1].set_exception(OSError("late"))
        with pytest.raises(OSError, match="late"):
            await bad
        assert b.state() is BreakerState.HALF_OPEN
        b.model.gates[2].set_result(None)
        await probe
        assert b.state() is BreakerState.CLOSED

    play(scene)


def test_isolated_by_hand_stays_refused_through_time_and_late_answers_until_restored() -> None:
    async def scene(b: BreakerWorld) -> None:
        under_way = await b.start()
        b.breaker.isolate()
        b.model.gates[-1].set_result(None)
        await under_way
        b.clock.now_s += 1e9
        with pytest.raises(CircuitOpen) as refused:
            await b.breaker.predict(ROW)
        assert (refused.value.state, refused.value.retry_after_s) == (BreakerState.ISOLATED, None)
        assert b.model.asked == 1
        b.breaker.restore()
        assert await b.ask() == "answered"

    play(scene)


def test_restoring_what_was_not_isolated_does_not_close_an_open_circuit() -> None:
    async def scene(b: BreakerWorld) -> None:
        await b.trip()
        b.breaker.restore()
        assert b.state() is BreakerState.OPEN

    play(scene)


def test_breaker_around_a_breaker_opens_outside_on_refusals_inside() -> None:
    async def scene(b: BreakerWorld) -> None:
        outer = Breaker(b.breaker, failures=1, clock=b.clock)
        b.breaker.isolate()
        with pytest.raises(CircuitOpen):
            await outer.predict(ROW)
        assert outer.state is BreakerState.OPEN

    play(scene)


def test_table_in_the_docstring_names_every_transition_and_isolation_is_left_by_restore_alone() -> None:
    moves = {
        (state, TRANSITIONS[state, event])
        for state, event in product(BreakerState, BreakerEvent)
        if (state, event) in TRANSITIONS
    }
    lines = [
        line.split("|")[1:4] for line in (module.__doc__ or "").splitlines() if line.strip().startswith("|")
    ]
    drawn = {(a.strip(), c.strip()) for a, _, c in lines[2:] if c.strip() not in ("refused", a.strip())}
    anywhere = {
        (state, BreakerState.ISOLATED) for state in BreakerState if state is not BreakerState.ISOLATED
    }
    assert moves == (drawn - {("any", "isolated")}) | anywhere
    assert [event for state, event in TRANSITIONS if state is BreakerState.ISOLATED] == [BreakerEvent.RESTORE]


STEPS = st.lists(st.sampled_from(["answer", "raise", "unfit", "wait", "isolate", "restore"]), max_size=40)


@given(STEPS)
def test_any_history_agrees_with_a_simple_model(steps: list[str]) -> None:
    """Serial calls only: `wait` lets 4 of the 10 seconds pass."""

    async def scene(b: BreakerWorld) -> None:
        row_of_failures, opened_s, isolated = 0, None, False
        for step in steps:
            asked = b.model.asked
            if step == "wait":
                b.clock.now_s += 4.0
            elif step == "isolate":
                b.breaker.isolate()
                isolated = True
            elif step == "restore":
                b.breaker.restore()
                if isolated:
                    row_of_failures, opened_s, isolated = 0, None, False
            else:
                admitted = not isolated and (opened_s is None or b.clock.now_s - opened_s >= 10.0)
                got = await b.ask(step)
                assert (got != "CircuitOpen") is admitted is (b.model.asked == asked + 1)
                if admitted and step == "answer":
                    row_of_failures, opened_s = 0, None
                elif admitted and step == "raise":
                    row_of_failures += 1
                    if opened_s is not None or row_of_failures == 3:
                        opened_s = b.clock.now_s

    play(scene)


@pytest.mark.parametrize(("failures", "reset_s"), [(0, 1.0), (1, -1.0), (1, float("nan"))])
def test_invalid_settings_are_refused(failures: int, reset_s: float) -> None:
    with pytest.raises(ValueError, match="failures="):
        Breaker(Model(), failures=failures, reset_s=reset_s)


# ---------------------------------------------------------------- whose failures open the circuit


class SharedWorld:
    """A breaker of three failures with a known row, and callers that a test names before each call."""

    def __init__(self) -> None:
        self.model, self.clock = SharedModel(), Clock()
        self.callers: tuple[str, ...] = ()
        self.breaker = Breaker(
            self.model,
            failures=3,
            reset_s=10.0,
            known_rows=KnownRows(KNOWN, 0.05),
            callers=lambda: self.callers,
            clock=self.clock,
        )

    def state(self) -> BreakerState:
        return self.breaker.state

    async def fail(self, *callers: str, end: str = "raise") -> None:
        """One failed call for rows of these callers, and what it makes the breaker do."""
        self.callers, self.model.rows = callers, end
        with pytest.raises(BaseException):  # noqa: B017 - cancellation too
            await asyncio.wait_for(self.breaker.predict(ROW), 0.02)
        await self.settled()

    async def settled(self) -> None:
        """Waits for the known row, if it was asked for."""
        await asyncio.sleep(0)
        if proofs := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(proofs)


KNOWN = {"x": np.ones((1, 1))}


class SharedModel:
    """Ends a call for the known row, and for other rows, as a test says."""

    known = rows = "answer"
    known_asked = 0

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.known_asked += inputs is KNOWN
        match self.known if inputs is KNOWN else self.rows:
            case "raise":
                raise OSError("broken")
            case "doubt":
                raise ModelRaised("Fail in Gather")
            case "busy":
                raise ModelBusy("an abandoned run")
            case "hang":
                await asyncio.sleep(60)
            case "queue":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    raise QueuedTooLong from None
        return inputs


def share(scene: Callable[[SharedWorld], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scene(SharedWorld())

    run(main)


@pytest.mark.parametrize("end", ["raise", "hang"])
def test_one_caller_opens_no_circuit_however_often_its_calls_fail(end: str) -> None:
    async def scene(b: SharedWorld) -> None:
        for i in range(12):
            await b.fail("eve", f"neighbour{i}", end=end)
        assert b.state() is BreakerState.CLOSED
        assert b.model.known_asked == 4, "once for every three failures"

    share(scene)


@pytest.mark.parametrize("known", ["raise", "hang", "doubt"])
def test_a_model_that_is_broken_for_its_only_caller_is_found_out_by_the_known_rows(known: str) -> None:
    async def scene(b: SharedWorld) -> None:
        b.model.known = known
        for _ in range(2):
            await b.fail("ada")
        assert b.state() is BreakerState.CLOSED
        await b.fail("ada")
        assert b.state() is BreakerState.OPEN

    share(scene)


def test_failures_that_no_one_caller_had_a_part_in_all_of_open_the_circuit() -> None:
    async def scene(b: SharedWorld) -> None:
        await b.fail("ada", "bob")
        await b.fail("bob", "eve")
        await b.fail("eve", "ada")
        assert b.state() is BreakerState.OPEN
        assert not b.model.known_asked

    share(scene)


@pytest.mark.parametrize("end", ["doubt", "busy", "queue"])
def test_what_says_nothing_of_the_model_opens_no_circuit_whoever_asks(end: str) -> None:
    async def scene(b: SharedWorld) -> None:
        for caller in "abcdef":
            await b.fail(caller, end=end)
        assert b.state() is BreakerState.CLOSED

    share(scene)


def test_a_call_that_waited_behind_others_is_timed_out_as_any_other() -> None:
    async def scene(b: SharedWorld) -> None:
        b.model.rows = "queue"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await b.breaker.predict(ROW)

    share(scene)


def test_a_caller_whose_row_fails_as_the_probe_does_not_keep_the_circuit_open() -> None:
    async def scene(b: SharedWorld) -> None:
        for caller in "abc":
            await b.fail(caller)
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 10.0
        await b.fail("eve")
        assert b.state() is BreakerState.CLOSED, "the known row was the probe after it"

    share(scene)


def test_a_proof_is_an_answer_and_its_failure_a_failure_of_no_caller() -> None:
    async def scene(b: SharedWorld) -> None:
        for _ in range(2):
            await b.fail("ada")
        await b.breaker.prove()
        await b.fail("ada")
        assert b.model.known_asked == 1, "the count began anew"
        b.model.known = "doubt"
        for _ in range(2):
            with pytest.raises(ModelRaised):
                await b.breaker.prove()
        assert b.state() is BreakerState.OPEN
        with pytest.raises(CircuitOpen):
            await b.breaker.prove()

    share(scene)


def test_a_proof_is_asked_for_in_a_context_of_its_own() -> None:
    """A deadline of a caller's call, which upstreams read from the context, holds for no proof."""
    deadline_s: contextvars.ContextVar[float] = contextvars.ContextVar("deadline_s", default=math.inf)
    seen: list[float] = []

    class Reads:
        async def predict(self, inputs: Tensors, /) -> Tensors:
            seen.append(deadline_s.get())
            return inputs

    async def main() -> None:
        breaker = Breaker(Reads(), known_rows=KnownRows(KNOWN, 1.0))
        deadline_s.set(0.1)
        await breaker.predict(ROW)
        await breaker.prove()

    run(main)
    assert seen == [0.1, math.inf]


def test_a_proof_goes_on_when_the_caller_that_waits_for_it_has_no_time_left() -> None:
    async def scene(b: SharedWorld) -> None:
        b.model.known = "hang"
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(b.breaker.prove(), 0.001)
        assert b.state() is BreakerState.CLOSED, "a caller's deadline is no failure of the model"
        await asyncio.sleep(0.1)
        await b.settled()
        assert b.state() is BreakerState.OPEN, "its own budget is"

    share(scene)


# ---------------------------------------------------------------- the recent calls

WINDOW = WindowLimits(calls=20, window_s=60.0, least_calls=4, failed_share=0.5, late_share=0.75, slow_s=1.0)


class WindowWorld(SharedWorld):
    """The same with a short window; a call takes as long as a test says, and waits in a queue before."""

    def __init__(self) -> None:
        super().__init__()
        self.takes_s, self.waits_s = 0.0, 0.0
        self.breaker = Breaker(
            self,
            failures=3,
            reset_s=10.0,
            known_rows=KnownRows(KNOWN, 0.05),
            callers=lambda: self.callers,
            window=WINDOW,
            clock=self.clock,
        )

    async def predict(self, inputs: Tensors, /) -> Tensors:
        if inputs is not KNOWN:
            self.clock.now_s += self.takes_s
            if self.waits_s:
                WAITED_S.set(self.waits_s)
        return await self.model.predict(inputs)

    async def ask(self, *callers: str, takes_s: float = 0.0, waits_s: float = 0.0) -> None:
        """An answered call, and what it makes the breaker do."""
        self.callers, self.takes_s, self.waits_s, self.model.rows = callers, takes_s, waits_s, "answer"
        await self.breaker.predict(ROW)
        await self.settled()


def within_a_window(scene: Callable[[WindowWorld], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scene(WindowWorld())

    run(main)


def test_a_model_that_fails_every_second_call_of_various_callers_opens_the_circuit() -> None:
    async def scene(b: WindowWorld) -> None:
        for caller in "ab":
            await b.fail(caller)
            await b.ask(caller)
        assert b.state() is BreakerState.CLOSED
        await b.fail("c")
        assert b.state() is BreakerState.OPEN

    within_a_window(scene)


def test_slow_answers_to_various_callers_open_the_circuit_and_a_slow_probe_keeps_it_open() -> None:
    async def scene(b: WindowWorld) -> None:
        for caller in "abcde":
            await b.ask(caller, takes_s=1.1)
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 10.0
        await b.ask(takes_s=1.1)
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 10.0
        await b.ask(takes_s=1.0)
        assert b.state() is BreakerState.CLOSED

    within_a_window(scene)


@pytest.mark.parametrize("closed_by", ["the probe", "an operator"])
def test_what_opened_the_circuit_is_forgotten_when_it_closes(closed_by: str) -> None:
    """Or the first slow answer after it, to any caller, would open it again."""

    async def scene(b: WindowWorld) -> None:
        for caller in "abcde":
            await b.ask(caller, takes_s=1.1)
        assert b.state() is BreakerState.OPEN
        if closed_by == "the probe":
            b.clock.now_s += 10.0
            await b.ask("a")
        else:
            b.breaker.isolate()
            b.breaker.restore()
        for caller in "fgh":
            await b.ask(caller, takes_s=1.1)
        assert b.state() is BreakerState.CLOSED, "three calls are fewer than are judged"

    within_a_window(scene)


def test_what_a_call_waited_behind_others_does_not_make_it_slow() -> None:
    async def scene(b: WindowWorld) -> None:
        for caller in "abcdefgh":
            await b.ask(caller, takes_s=9.0, waits_s=8.5)
        assert b.state() is BreakerState.CLOSED

    within_a_window(scene)


def test_the_wait_of_one_call_does_not_make_the_next_one_faster() -> None:
    async def scene(b: WindowWorld) -> None:
        await b.ask("a", takes_s=9.0, waits_s=8.5)
        for i in range(20):
            if b.state() is BreakerState.CLOSED:
                await b.ask(f"caller{i}", takes_s=1.1)
        assert b.state() is BreakerState.OPEN

    within_a_window(scene)


def test_slow_rows_of_one_caller_open_no_circuit_while_the_known_rows_are_answered_in_time() -> None:
    async def scene(b: WindowWorld) -> None:
        for _ in range(20):
            await b.ask("eve", takes_s=1.1)
        assert b.state() is BreakerState.CLOSED
        assert b.model.known_asked == 5, "once for every four calls"

    within_a_window(scene)


def test_the_known_rows_decide_where_one_caller_has_all_the_failures_between_answers() -> None:
    async def scene(b: WindowWorld) -> None:
        b.model.known = "raise"
        for _ in range(2):
            await b.ask("ada")
            await b.fail("eve")
        assert b.model.known_asked == 1
        assert b.state() is BreakerState.OPEN

    within_a_window(scene)


# ---------------------------------------------------------------- answers that are known


class KnowingWorld(BreakerWorld):
    """A breaker that knows the answers to its known rows; the model answers any rows with themselves."""

    def __init__(self) -> None:
        super().__init__()
        known, stuck = KnownRows(KNOWN, 1.0, KNOWN), StuckOutput(["x"], self.clock)
        self.breaker = Breaker(
            self.model, failures=3, reset_s=10.0, known_rows=known, stuck=stuck, clock=self.clock
        )

    async def ask_for(self, *values: float) -> int:
        """Asks for a row of each value, one after the other; how many were answered."""
        answered = 0
        for value in values:
            with contextlib.suppress(WrongAnswer, CircuitOpen):
                await self.breaker.predict({"x": np.full((1, 1), value)})
                answered += 1
        return answered

    def state(self) -> BreakerState:
        return self.breaker.state


def knowing(scene: Callable[[KnowingWorld], Coroutine[Any, Any, None]]) -> None:
    run(lambda: scene(KnowingWorld()))


def test_a_wrong_answer_to_known_rows_opens_the_circuit_until_they_are_answered_rightly_again() -> None:
    async def scene(b: KnowingWorld) -> None:
        await b.breaker.prove()
        b.model.stuck = {"x": np.full((1, 1), 0.5)}
        for _ in range(5):
            assert await b.breaker.predict(ROW) is b.model.stuck, "which no caller's row tells"
        with pytest.raises(WrongAnswer):
            await b.breaker.prove()
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 11.0
        asked = b.model.asked
        with pytest.raises(CircuitOpen) as refused:
            await b.breaker.predict(ROW)
        assert refused.value.retry_after_s == 10.0
        assert b.model.asked == asked, "no caller's row is the probe"
        with pytest.raises(WrongAnswer):
            await b.breaker.prove()
        assert b.state() is BreakerState.OPEN
        b.clock.now_s += 11.0
        b.model.stuck = None
        await b.breaker.prove()
        assert b.state() is BreakerState.CLOSED
        assert await b.breaker.predict(ROW) is ROW

    knowing(scene)


def test_a_model_that_answers_different_rows_alike_is_found_out_by_the_known_rows_at_once() -> None:
    async def scene(b: KnowingWorld) -> None:
        assert await b.ask_for(*range(10)) == 10
        b.model.stuck = {"x": np.full((1, 1), 0.5)}
        assert await b.ask_for(*range(20)) == 6, "the row that alarms is not answered"
        assert b.state() is BreakerState.OPEN

    knowing(scene)


def test_a_caller_whose_rows_are_all_answered_alike_costs_no_caller_the_model() -> None:
    async def scene(b: KnowingWorld) -> None:
        alike = {"x": np.full((1, 1), 0.5)}

        async def saturated(inputs: Tensors) -> Tensors:
            b.model.asked += 1
            return inputs if inputs is KNOWN else alike

        b.model.predict = saturated  # type: ignore[method-assign]
        assert await b.ask_for(*range(200)) == 200
        assert b.state() is BreakerState.CLOSED
        assert b.model.asked == 201, "one proof; the next may not come before time has passed"

    knowing(scene)


@pytest.mark.parametrize("known", ["raise", "unfit"])
def test_an_answer_that_looks_stuck_does_not_leave_if_the_known_rows_have_none(known: str) -> None:
    async def scene(b: KnowingWorld) -> None:
        alike = {"x": np.full((1, 1), 0.5)}

        async def stuck(inputs: Tensors) -> Tensors:
            if inputs is not KNOWN:
                return alike
            raise OSError("broken") if known == "raise" else UnfitInput("no row")

        b.model.predict = stuck  # type: ignore[method-assign]
        assert await b.ask_for(*range(7)) == 6

    knowing(scene)


def test_an_operator_may_trust_a_model_again_by_isolating_and_restoring_it() -> None:
    async def scene(b: KnowingWorld) -> None:
        b.model.stuck = {"x": np.zeros((1, 1))}
        with pytest.raises(WrongAnswer):
            await b.breaker.prove()
        b.breaker.restore()
        assert b.state() is BreakerState.OPEN, "it was not isolated"
        b.breaker.isolate()
        b.breaker.restore()
        assert b.state() is BreakerState.CLOSED

    knowing(scene)


def test_a_model_that_ends_the_interpreter_has_failed_and_ends_no_event_loop() -> None:
    async def scene(b: KnowingWorld) -> None:
        b.model.behaviour = "exit"
        for ask in (lambda: b.breaker.predict(ROW), b.breaker.prove, b.breaker.prove):
            with pytest.raises(RuntimeError, match="the model raised SystemExit"):
                await ask()
        assert b.state() is BreakerState.OPEN

    knowing(scene)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ({"x": np.ones((1, 1)) * (1 + 5e-4)}, True),
        ({"x": np.ones((1, 1)) * 1.01}, False),
        ({"x": np.ones((1, 1), np.float32)}, False),
        ({"x": np.ones((2, 1))}, False),
        ({"x": np.full((1, 1), np.nan)}, False),
        ({"y": np.ones((1, 1))}, False),
        ({"x": np.ones((1, 1)), "y": np.zeros(3)}, True),
    ],
)
def test_known_rows_are_answered_by_what_rounding_explains(answer: Tensors, right: bool) -> None:
    assert KnownRows(KNOWN, 1.0, KNOWN).are_answered_by(answer) is right
    assert KnownRows(KNOWN, 1.0).are_answered_by(answer), "where no answer is known"


def test_known_labels_and_texts_must_be_the_very_same() -> None:
    known = {"n": np.array([1, 2]), "t": np.array([b"a", b"b"], object)}
    rows = KnownRows(KNOWN, 1.0, known)
    assert rows.are_answered_by({name: array.copy() for name, array in known.items()})
    assert not rows.are_answered_by(known | {"n": np.array([1, 3])})
    assert not rows.are_answered_by(known | {"t": np.array([b"a", b"c"], object)})
