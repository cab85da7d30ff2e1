"""The circuit breaker against a model of it that keeps whole histories, with calls that overlap.

The model is written from the breaker's table and rules alone: it counts everything anew after each call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallbacks.breaker import Breaker, BreakerState, CircuitOpen
from fallbacks.failure_window import WindowLimits
from fallbacks.known_rows import KnownRows
from fallbacks.predictor import ModelRaised, Tensors, UnfitInput

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState
ROW, KNOWN, WRONG = ({"x": np.full((1, 1), value)} for value in (0.0, 1.0, 2.0))
FAILURES, RESET_S = 4, 10.0
LIMITS = WindowLimits(calls=8, window_s=40.0, least_calls=3, failed_share=0.6, late_share=0.75, slow_s=2.0)
BAD = ("failed", "slow")
CALLERS = ("ada", "bob", "eve")


@dataclass(eq=False)
class Call:
    """A call that reached the model. callers: none of the known rows."""

    gate: asyncio.Future[Tensors]
    known: bool
    callers: frozenset[str] = frozenset()
    epoch: int = 0
    began_s: float = 0.0
    task: asyncio.Task[Tensors] | None = None


class GatedModel:
    """Every call waits until a rule ends it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def predict(self, inputs: Tensors, /) -> Tensors:
        call = Call(asyncio.get_running_loop().create_future(), inputs is KNOWN)
        self.calls.append(call)
        return await call.gate


@dataclass
class Expected:
    """What the breaker must do. `ends`: when, how and for whom every call of this epoch ended.

    `ask_at`: after how many of them an excess of one caller is asked about; `proof_runs`: it is already.
    """

    now_s: float = 0.0
    state: BreakerState = CLOSED
    epoch: int = 0
    entered_s: float = 0.0
    distrusted: bool = False
    in_a_row: list[frozenset[str]] = field(default_factory=list)
    ends: list[tuple[float, str, frozenset[str]]] = field(default_factory=list)
    ask_at: int = 0
    proof_runs: bool = False

    def move(self, state: BreakerState, entered_s: float | None = None) -> None:
        self.state, self.epoch = state, self.epoch + 1
        self.entered_s = self.now_s if entered_s is None else entered_s
        self.in_a_row, self.ends, self.ask_at = [], [], 0

    def admits(self, known: bool) -> bool:
        if self.state is OPEN and self.now_s >= self.entered_s + RESET_S and (known or not self.distrusted):
            self.move(HALF_OPEN)
            return True
        return self.state is CLOSED

    def exceeded(self, without: str = "") -> bool:
        """Whether a share is reached, the bad calls of one caller left out."""
        recent = [one for one in self.ends[-LIMITS.calls :] if one[0] > self.now_s - LIMITS.window_s]
        for bad, share in ((("failed",), LIMITS.failed_share), (BAD, LIMITS.late_share)):
            kept = [end for _, end, callers in recent if not (end in bad and without in callers)]
            if len(kept) >= LIMITS.least_calls and sum(end in bad for end in kept) >= share * len(kept):
                return True
        return False

    def end(self, call: Call, end: str) -> bool:
        """Counts the end of a call. Returns whether the known rows are asked for."""
        if call.epoch != self.epoch:
            return False
        if end == "wrong":
            self.move(OPEN)
        elif self.state is HALF_OPEN:
            return self._end_probe(call, end)
        elif end != "inconclusive":
            return self._count(call, end)
        return False

    def _end_probe(self, call: Call, end: str) -> bool:
        of_a_caller = end in BAD and bool(call.callers)
        if end == "answered":
            self.move(CLOSED)
        elif of_a_caller or end == "inconclusive":
            self.move(OPEN, self.now_s - RESET_S)
        else:
            self.move(OPEN)
        return of_a_caller

    def _count(self, call: Call, end: str) -> bool:
        self.ends += [(self.now_s, end, call.callers)] if call.callers else []
        self.in_a_row = [*self.in_a_row, call.callers] if end == "failed" else []
        exceeded, in_a_row = self.exceeded(), len(self.in_a_row) >= FAILURES
        if end == "answered" or not (exceeded or in_a_row):
            return False
        of_all = exceeded and all(map(self.exceeded, CALLERS))
        if of_all or not call.callers or (in_a_row and not frozenset.intersection(*self.in_a_row)):
            self.move(OPEN)
            return False
        if in_a_row or self.proof_runs:
            return not self.proof_runs
        asks = len(self.ends) >= self.ask_at
        self.ask_at = len(self.ends) + LIMITS.least_calls if asks else self.ask_at
        return asks


class BreakerModel(RuleBasedStateMachine):
    """Rules begin and end calls in any order, pass time, and act as an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.loop, self.model, self.expected = asyncio.new_event_loop(), GatedModel(), Expected()
        self.callers: frozenset[str] = frozenset()
        self.pending: list[Call] = []
        known = KnownRows(KNOWN, 3600.0, KNOWN)
        self.breaker = self.run(self._made(known))

    async def _made(self, known: KnownRows) -> Breaker:
        return Breaker(
            self.model,
            failures=FAILURES,
            reset_s=RESET_S,
            known_rows=known,
            callers=lambda: self.callers,
            window=LIMITS,
            clock=lambda: self.expected.now_s,
        )

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(what)

    def settle(self) -> None:
        """Lets every task run until it waits for a gate."""
        for _ in range(6):
            self.run(asyncio.sleep(0))

    def reached(self, callers: frozenset[str], admitted: bool) -> Call | None:
        """The call that has just reached the model, if one must have."""
        new = [call for call in self.model.calls if call not in self.pending]
        assert len(new) == admitted
        for call in new:
            call.callers, call.epoch, call.began_s = callers, self.expected.epoch, self.expected.now_s
            self.pending.append(call)
        return new[0] if new else None

    @rule(callers=st.sets(st.sampled_from(CALLERS), min_size=1))
    def begin(self, callers: set[str]) -> None:
        self.callers = frozenset(callers)
        task = self.loop.create_task(self.breaker.predict(ROW))
        self.settle()
        call = self.reached(self.callers, self.expected.admits(known=False))
        if call is None:
            assert isinstance(task.exception(), CircuitOpen)
        else:
            call.task = task

    @rule()
    def prove(self) -> None:
        task = self.loop.create_task(self.breaker.prove())
        self.settle()
        call = self.reached(frozenset(), self.expected.admits(known=True))
        if call is None:
            assert isinstance(task.exception(), CircuitOpen)
        else:
            task.add_done_callback(lambda done: done.exception())

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), how=st.sampled_from(("answer", "answer", "fail", "fail", "odd", "cancel")))
    def end(self, data: st.DataObject, how: str) -> None:
        call = data.draw(st.sampled_from(self.pending))
        end = self._let_go(call, how)
        self.expected.proof_runs = any(one.known for one in self.pending)
        asks = self.expected.end(call, end)
        self.pending.remove(call)
        self.model.calls.remove(call)
        self.settle()
        self.reached(frozenset(), asks and self.expected.admits(known=True))

    def _let_go(self, call: Call, how: str) -> str:
        """Ends the call at the model, and says how that counts."""
        if call.task is not None:
            call.task.add_done_callback(lambda done: done.cancelled() or done.exception())
        match how, call.known:
            case "answer", _:
                call.gate.set_result(KNOWN if call.known else ROW)
                self.expected.distrusted &= not call.known
                return "slow" if self.expected.now_s - call.began_s > LIMITS.slow_s else "answered"
            case "odd", True:
                call.gate.set_result(WRONG)
                self.expected.distrusted = True
                return "wrong"
            case "odd", False:
                call.gate.set_exception(UnfitInput("no row"))
                return "inconclusive"
            case "cancel", False:
                assert call.task is not None
                call.task.cancel()
                return "failed"
            case _:
                call.gate.set_exception(ModelRaised("doubt") if call.known else OSError("broken"))
                return "failed"

    @rule(seconds=st.sampled_from((1.0, 3.0, 10.0)))
    def wait(self, seconds: float) -> None:
        self.expected.now_s += seconds

    @rule()
    def isolate(self) -> None:
        self.breaker.isolate()
        if self.expected.state is not ISOLATED:
            self.expected.move(ISOLATED)

    @precondition(lambda self: self.expected.state is ISOLATED)
    @rule()
    def restore(self) -> None:
        self.breaker.restore()
        self.expected.distrusted = False
        self.expected.move(CLOSED)

    @invariant()
    def state_is_as_expected(self) -> None:
        assert self.breaker.state is self.expected.state

    def teardown(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()


TestBreakerModel = BreakerModel.TestCase
