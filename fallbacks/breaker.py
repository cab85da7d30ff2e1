"""A circuit breaker: a predictor that stops calling a model that keeps failing.

    | state     | event                            | next      |
    |-----------|----------------------------------|-----------|
    | closed    | an answer                        | closed    |
    | closed    | a failure, not yet too many      | closed    |
    | closed    | `failures` of them in a row      | open      |
    | open      | a call before `reset_s` passed   | refused   |
    | open      | a call after: it is the probe    | half_open |
    | half_open | any other call                   | refused   |
    | half_open | the probe is answered            | closed    |
    | half_open | the probe fails                  | open      |
    | half_open | the probe is inconclusive        | open      |
    | any       | an operator isolates the model   | isolated  |
    | isolated  | any call                         | refused   |
    | isolated  | an operator restores the model   | closed    |

Every change of state begins a new epoch, and the end of a call counts only in the epoch in which it began:
a call from before the circuit opened can neither close it nor decide the probe.

An unfit input, or a caller's deadline that was too short, is inconclusive (`NotAModelFault`): no number of
them opens the circuit, or one caller could take the model from all others. After an inconclusive probe the
next call is the probe.

A cancelled call is a failure: that is how a model that runs out of time looks from here. So a call must not
be cancelled through the breaker for another reason, such as a caller that hung up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from fallbacks.predictor import NotAModelFault, Predictor, Tensors


class BreakerState(StrEnum):
    """Which calls reach the model: all, none, one probe, or none until an operator restores it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


class BreakerEvent(StrEnum):
    """What changes the state. TRIP is the failure that reaches the limit of consecutive failures."""

    ANSWER = "answer"
    FAILURE = "failure"
    TRIP = "trip"
    PROBE = "probe"
    INCONCLUSIVE = "inconclusive"
    ISOLATE = "isolate"
    RESTORE = "restore"


TRANSITIONS: Final = {
    (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.PROBE): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.ANSWER): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.FAILURE): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.INCONCLUSIVE): BreakerState.OPEN,
    (BreakerState.CLOSED, BreakerEvent.ISOLATE): BreakerState.ISOLATED,
    (BreakerState.OPEN, BreakerEvent.ISOLATE): BreakerState.ISOLATED,
    (BreakerState.HALF_OPEN, BreakerEvent.ISOLATE): BreakerState.ISOLATED,
    (BreakerState.ISOLATED, BreakerEvent.RESTORE): BreakerState.CLOSED,
}
"""Every pair that changes the state; any other pair leaves it unchanged."""


class CircuitOpen(Exception):
    """The model was not called. `retry_after_s` is None if an operator or a running probe decides."""

    def __init__(self, state: BreakerState, retry_after_s: float | None) -> None:
        super().__init__(f"circuit {state}")
        self.state = state
        self.retry_after_s = retry_after_s


class Breaker:
    """Opens after `failures` failures in a row; lets one probe through `reset_s` seconds later.

    For one event loop: not safe across threads. `clock` is in seconds and must not go back.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        failures: int = 5,
        reset_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or not reset_s >= 0:
            raise ValueError(f"failures={failures}, reset_s={reset_s}: at least 1, and not negative")
        self._predictor = predictor
        self._failures = failures
        self._reset_s = reset_s
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._epoch = 0
        self._consecutive_failures = 0
        self._entered_s = clock()

    @property
    def state(self) -> BreakerState:
        """The state now. It stays `open` after `reset_s`, until a call becomes the probe."""
        return self._state

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """The model's answer, or what it raises; raises CircuitOpen at once if the call may not reach it."""
        self._admit()
        epoch = self._epoch
        try:
            outputs = await self._predictor.predict(inputs)
        except NotAModelFault:
            self._settle(epoch, BreakerEvent.INCONCLUSIVE)
            raise
        except BaseException:  # cancellation is no Exception, and is the most common failure
            self._settle(epoch, BreakerEvent.FAILURE)
            raise
        self._settle(epoch, BreakerEvent.ANSWER)
        return outputs

    def isolate(self) -> None:
        """Takes the model out of service until `restore`. Calls under way may still end."""
        self._move(BreakerEvent.ISOLATE)

    def restore(self) -> None:
        """Puts an isolated model back into service, with a clean record. Does nothing in any other state."""
        self._move(BreakerEvent.RESTORE)

    def _admit(self) -> None:
        """Admits the call, perhaps as the probe, or raises CircuitOpen."""
        if self._state is BreakerState.CLOSED:
            return
        wait_s = self._entered_s + self._reset_s - self._clock()
        if self._state is not BreakerState.OPEN:
            raise CircuitOpen(self._state, None)
        if wait_s > 0:
            raise CircuitOpen(self._state, wait_s)
        self._move(BreakerEvent.PROBE)

    def _settle(self, epoch: int, event: BreakerEvent) -> None:
        if epoch != self._epoch:
            return
        if self._state is BreakerState.CLOSED and event is not BreakerEvent.INCONCLUSIVE:
            self._consecutive_failures = (
                self._consecutive_failures + 1 if event is BreakerEvent.FAILURE else 0
            )
            event = BreakerEvent.TRIP if self._consecutive_failures >= self._failures else event
        self._move(event)
        if event is BreakerEvent.INCONCLUSIVE:
            self._entered_s -= self._reset_s  # reset_s has passed once already: the next call is the probe

    def _move(self, event: BreakerEvent) -> None:
        state = TRANSITIONS.get((self._state, event))
        if state is None:
            return
        self._state = state
        self._epoch += 1
        self._consecutive_failures = 0
        self._entered_s = self._clock()
