"""A circuit breaker: a predictor that stops calling a model that keeps failing.

    | state     | event                            | next      |
    |-----------|----------------------------------|-----------|
    | closed    | an answer                        | closed    |
    | closed    | a failure, not yet too many      | closed    |
    | closed    | `failures` of them in a row      | open      |
    | closed    | too many of the recent calls bad | open      |
    | open      | a call before `reset_s` passed   | refused   |
    | open      | a call after: it is the probe    | half_open |
    | half_open | any other call                   | refused   |
    | half_open | the probe is answered            | closed    |
    | half_open | the probe fails, or is slow      | open      |
    | half_open | the probe is inconclusive        | open      |
    | closed    | the known rows, answered wrongly | open      |
    | half_open | the known rows, answered wrongly | open      |
    | any       | an operator isolates the model   | isolated  |
    | isolated  | any call                         | refused   |
    | isolated  | an operator restores the model   | closed    |

Bad are callers' calls that failed, or were answered slowly: `failure_window.py` has the limits. How long a
call waited behind others does not make it slow (`worker.WAITED_S`).

Every change of state begins a new epoch, and the end of a call counts only in the epoch in which it began:
a call from before the circuit opened can neither close it nor decide the probe.

No caller may take the model from the others:

* An unfit input, a caller's deadline that was too short, or a call that waited behind others is
  inconclusive (`NotAModelFault`, `QueuedTooLong`): no number of them opens the circuit. After an inconclusive
  probe the next call is the probe.
* What the model raises is inconclusive too, until `prove` has asked it for a row that it is known to answer.
  If it does, the caller's row was at fault; if not, that is a failure, and no caller's.
* Failures that one caller had a part in, all of them, do not open the circuit: at the limit the known row is
  asked for instead. So a slow row of one caller opens nothing, and a model that is broken for its only caller
  is found out all the same.
* The same holds of the recent calls: where too many are bad, but not without those of one caller, the known
  rows decide, asked once for every `least_calls` calls: if they fail or are slow, the circuit opens.

A model that answers wrongly does not fail: it may return the same for every row. So its answers to the known
rows are known too: `prove` compares them, and one that differs opens the circuit at once. Then no other rows
can be the probe. Where `stuck` finds the answers to callers' rows suspicious, the known rows are asked before
the answer leaves; unless they are answered, it does not.

A cancelled call is a failure: that is how a model that runs out of time looks from here. So a call must not
be cancelled through the breaker for another reason, such as a caller that hung up.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Collection, Coroutine
from enum import StrEnum
from typing import Any, Final

from fallbacks.failure_window import CallEnd, Excess, FailureWindow, WindowLimits
from fallbacks.known_rows import KnownRows, WrongAnswer
from fallbacks.predictor import ModelRaised, NotAModelFault, Predictor, Tensors
from fallbacks.retry_budget import RetryBudget
from fallbacks.stuck import StuckOutput
from fallbacks.worker import WAITED_S, QueuedTooLong


class BreakerState(StrEnum):
    """Which calls reach the model: all, none, one probe, or none until an operator restores it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


class BreakerEvent(StrEnum):
    """What changes the state. TRIP is the failure or slow answer that reaches a limit."""

    ANSWER = "answer"
    SLOW = "slow"
    FAILURE = "failure"
    TRIP = "trip"
    PROBE = "probe"
    INCONCLUSIVE = "inconclusive"
    ISOLATE = "isolate"
    RESTORE = "restore"
    WRONG = "wrong"


TRANSITIONS: Final = {
    (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.PROBE): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.ANSWER): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.FAILURE): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.SLOW): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.INCONCLUSIVE): BreakerState.OPEN,
    (BreakerState.CLOSED, BreakerEvent.WRONG): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.WRONG): BreakerState.OPEN,
    (BreakerState.CLOSED, BreakerEvent.ISOLATE): BreakerState.ISOLATED,
    (BreakerState.OPEN, BreakerEvent.ISOLATE): BreakerState.ISOLATED,
    (BreakerState.HALF_OPEN, BreakerEvent.ISOLATE): BreakerState.ISOLATED,
    (BreakerState.ISOLATED, BreakerEvent.RESTORE): BreakerState.CLOSED,
}
"""Every pair that changes the state; any other pair leaves it unchanged."""
_ENDS: Final = {
    BreakerEvent.ANSWER: CallEnd.ANSWERED,
    BreakerEvent.SLOW: CallEnd.SLOW,
    BreakerEvent.FAILURE: CallEnd.FAILED,
}
"""The events that the window counts."""


class CircuitOpen(Exception):
    """The model was not called. `retry_after_s` is None if an operator or a running probe decides."""

    def __init__(self, state: BreakerState, retry_after_s: float | None) -> None:
        super().__init__(f"circuit {state}")
        self.state = state
        self.retry_after_s = retry_after_s


def _no_callers() -> Collection[str]:
    """For a model that is called on no caller's behalf."""
    return ()


class Breaker:
    """Opens after `failures` failures in a row, or too many bad calls; probes once `reset_s` seconds later.

    known_rows: what `prove` asks for; without it every failure counts. callers: returns
    the principals of the running call, asked as it begins. window: when the recent calls are too bad.
    stuck: reads the answers to other than the known rows. repeats: what the predictor sends beyond the calls
    that it gets; None: nothing.
    For one event loop: not safe across threads. `clock` is in seconds and must not go back.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        failures: int = 5,
        reset_s: float = 5.0,
        known_rows: KnownRows | None = None,
        callers: Callable[[], Collection[str]] = _no_callers,
        window: WindowLimits = WindowLimits(),
        stuck: StuckOutput | None = None,
        repeats: RetryBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or not reset_s >= 0:
            raise ValueError(f"failures={failures}, reset_s={reset_s}: at least 1, and not negative")
        self._predictor = predictor
        self._failures = failures
        self._reset_s = reset_s
        self._known_rows = known_rows
        self._callers = callers
        self._clock = clock
        self.repeats = repeats
        self._slow_s, self._window, self._stuck = window.slow_s, FailureWindow(window), stuck
        self._state = BreakerState.CLOSED
        self._epoch = 0
        self._consecutive_failures = 0
        self._in_every_failure: Collection[str] = ()
        self._proofs: set[asyncio.Task[None]] = set()
        self._distrusted = False
        self._entered_s = clock()

    @property
    def knows_answers(self) -> bool:
        """Whether `prove` can tell a wrong answer."""
        return self._known_rows is not None and self._known_rows.answers is not None

    @property
    def state(self) -> BreakerState:
        """The state now. It stays `open` after `reset_s`, until a call becomes the probe."""
        return self._state

    def predict(self, inputs: Tensors, /) -> Coroutine[Any, Any, Tensors]:
        """The model's answer, or what it raises; raises CircuitOpen at once if the call may not reach it."""
        return self._call(inputs, self._callers())

    async def prove(self) -> None:
        """Returns if the model answers its known rows now; if it raises, the model is at fault.

        A cancelled `prove` goes on by itself, so that no caller's deadline becomes the model's failure.

        Raises: what the model raises, TimeoutError, WrongAnswer, CircuitOpen, or ModelRaised where no row is
                known.
        Cost:   a task, and one call.
        """
        await asyncio.shield(self._start_proof())

    async def _call(self, inputs: Tensors, callers: Collection[str]) -> Tensors:
        self._admit(inputs)
        epoch, began_s = self._epoch, self._clock()
        WAITED_S.set(0.0)
        try:
            outputs = await self._predictor.predict(inputs)
        except QueuedTooLong:
            self._settle(epoch, BreakerEvent.INCONCLUSIVE)
            raise asyncio.CancelledError from None  # the very type that a timeout waits for
        except ModelRaised:
            no_row_at_fault = self._known_rows is None or self._is_known(inputs)
            self._settle(
                epoch, BreakerEvent.FAILURE if no_row_at_fault else BreakerEvent.INCONCLUSIVE, callers
            )
            raise
        except NotAModelFault:
            self._settle(epoch, BreakerEvent.INCONCLUSIVE)
            raise
        except (SystemExit, KeyboardInterrupt) as error:  # raised in a task, they would end the event loop
            self._settle(epoch, BreakerEvent.FAILURE, callers)
            raise RuntimeError(f"the model raised {type(error).__name__}") from error
        except BaseException:  # cancellation is no Exception, and is the most common failure
            self._settle(epoch, BreakerEvent.FAILURE, callers)
            raise
        slow = self._clock() - began_s - WAITED_S.get() > self._slow_s
        if known := self._is_known(inputs):
            self._compare(epoch, outputs)
        self._settle(epoch, BreakerEvent.SLOW if slow else BreakerEvent.ANSWER, callers)
        if self._stuck is not None and not known and self._stuck.alarms(inputs, outputs):
            await self._require_proof()
        return outputs

    async def _require_proof(self) -> None:
        """Raises WrongAnswer unless the known rows are answered now."""
        try:
            await self.prove()
        except WrongAnswer:
            raise
        except Exception as error:
            raise WrongAnswer(
                "it answers different rows alike, and cannot be asked for known rows"
            ) from error

    def _is_known(self, inputs: Tensors) -> bool:
        return self._known_rows is not None and inputs is self._known_rows.inputs

    def _compare(self, epoch: int, outputs: Tensors) -> None:
        """Raises WrongAnswer for wrong outputs for the known rows, and opens the circuit."""
        assert self._known_rows is not None
        self._distrusted = not self._known_rows.are_answered_by(outputs)
        if self._distrusted:
            self._settle(epoch, BreakerEvent.WRONG)
            raise WrongAnswer("it answers known rows otherwise than before")

    def isolate(self) -> None:
        """Takes the model out of service until `restore`. Calls under way may still end."""
        self._move(BreakerEvent.ISOLATE)

    def restore(self) -> None:
        """Puts an isolated model back into service, with a clean record. Does nothing in any other state."""
        if self._state is BreakerState.ISOLATED:
            self._distrusted = False
        self._move(BreakerEvent.RESTORE)

    def _admit(self, inputs: Tensors) -> None:
        """Admits the call, perhaps as the probe, or raises CircuitOpen."""
        if self._state is BreakerState.CLOSED:
            return
        wait_s = self._entered_s + self._reset_s - self._clock()
        if self._state is not BreakerState.OPEN:
            raise CircuitOpen(self._state, None)
        if wait_s > 0:
            raise CircuitOpen(self._state, wait_s)
        if self._distrusted and not self._is_known(inputs):
            raise CircuitOpen(self._state, self._reset_s)
        self._move(BreakerEvent.PROBE)

    def _settle(self, epoch: int, event: BreakerEvent, callers: Collection[str] = ()) -> None:
        if epoch != self._epoch:
            return
        bad = event in (BreakerEvent.FAILURE, BreakerEvent.SLOW)
        if self._state is BreakerState.CLOSED and event in _ENDS:
            event = self._count(event, callers)
        elif bad and callers and self._known_rows is not None:
            event = BreakerEvent.INCONCLUSIVE  # a caller's row failed as the probe: the known row is the next
            self._start_proof()
        self._move(event)
        if event is BreakerEvent.INCONCLUSIVE:
            self._entered_s -= self._reset_s  # reset_s has passed once already: the next call is the probe

    def _count(self, event: BreakerEvent, callers: Collection[str]) -> BreakerEvent:
        """The event, or a trip where a limit is reached that no single caller explains."""
        if callers:  # known rows would dilute what callers get
            self._window.add(self._clock(), _ENDS[event], callers)
        if event is BreakerEvent.ANSWER:
            self._consecutive_failures = 0
            return event
        if event is BreakerEvent.SLOW:
            self._consecutive_failures = 0
        else:
            in_all = set(callers) & set(self._in_every_failure) if self._consecutive_failures else callers
            self._consecutive_failures, self._in_every_failure = self._consecutive_failures + 1, in_all
        excess, in_a_row = self._window.excess(self._clock()), self._consecutive_failures >= self._failures
        if excess is Excess.NONE and not in_a_row:
            return event
        if excess is Excess.OF_ALL or (in_a_row and not self._in_every_failure):
            return BreakerEvent.TRIP
        if self._known_rows is None or not callers:
            return BreakerEvent.TRIP
        if not self._proofs and (in_a_row or self._window.asks_known_rows()):
            self._start_proof()
        return event

    def _start_proof(self) -> asyncio.Task[None]:
        """Asks for the known row in a task and context of its own: without a caller's deadline."""
        proof = asyncio.get_running_loop().create_task(self._ask_known_rows(), context=contextvars.Context())
        self._proofs.add(proof)
        proof.add_done_callback(self._end_proof)
        return proof

    async def _ask_known_rows(self) -> None:
        if self._known_rows is None:
            raise ModelRaised("no row is known that the model answers")
        async with asyncio.timeout(self._known_rows.budget_s):
            await self._call(self._known_rows.inputs, ())

    def _end_proof(self, proof: asyncio.Task[None]) -> None:
        self._proofs.discard(proof)
        if not proof.cancelled():
            proof.exception()  # asyncio warns of an exception that was never retrieved

    def _move(self, event: BreakerEvent) -> None:
        state = TRANSITIONS.get((self._state, event))
        if state is None:
            return
        self._state = state
        self._epoch += 1
        self._consecutive_failures = 0
        self._window.clear()
        self._entered_s = self._clock()
