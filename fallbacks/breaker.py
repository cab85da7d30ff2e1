"""A circuit breaker: a predictor that stops asking a model which keeps failing.

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
    | half_open | the probe's input was unfit      | open      |
    | any       | an operator isolates the model   | isolated  |
    | isolated  | any call                         | refused   |
    | isolated  | an operator restores the model   | closed    |

Every change of state begins a new epoch, and the end of a call counts only in the epoch in which it began:
a straggler from before the circuit opened can neither close it nor spoil the probe.

An input that is unfit for the model, or a caller that gave it too little time, says nothing of the model
(`NotAModelFault`): no number of them opens the circuit, or one caller could take the model from all others.
After such a probe the next call is the probe.

A cancelled call is a failure: that is how a model that runs out of time looks from here. So whoever cancels
for another reason (a caller that hung up) must not do it through the breaker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from fallbacks.predictor import NotAModelFault, Predictor, Tensors


class State(StrEnum):
    """Whether calls reach the model: all, none, one, or none until an operator says so."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


class Event(StrEnum):
    """What moves the breaker. TRIP is the failure that is one too many in a row."""

    ANSWER = "answer"
    FAILURE = "failure"
    TRIP = "trip"
    PROBE = "probe"
    UNFIT = "unfit"
    ISOLATE = "isolate"
    RESTORE = "restore"


NEXT: Final = {
    (State.CLOSED, Event.TRIP): State.OPEN,
    (State.OPEN, Event.PROBE): State.HALF_OPEN,
    (State.HALF_OPEN, Event.ANSWER): State.CLOSED,
    (State.HALF_OPEN, Event.FAILURE): State.OPEN,
    (State.HALF_OPEN, Event.UNFIT): State.OPEN,
    (State.CLOSED, Event.ISOLATE): State.ISOLATED,
    (State.OPEN, Event.ISOLATE): State.ISOLATED,
    (State.HALF_OPEN, Event.ISOLATE): State.ISOLATED,
    (State.ISOLATED, Event.RESTORE): State.CLOSED,
}
"""Every pair that changes the state; any other leaves it as it is."""


class CircuitOpen(Exception):
    """The model was not asked. `retry_after_s` is None where an operator, or a probe under way, decides."""

    def __init__(self, state: State, retry_after_s: float | None) -> None:
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
        self._state = State.CLOSED
        self._epoch = 0
        self._in_a_row = 0
        self._since_s = clock()

    @property
    def state(self) -> State:
        """The state now. Still `open` when `reset_s` has passed, until a call comes to be the probe."""
        return self._state

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """The model's answer, or whatever it raises; CircuitOpen at once where it may not be asked."""
        self._admit()
        epoch = self._epoch
        try:
            outputs = await self._predictor.predict(inputs)
        except NotAModelFault:
            self._settle(epoch, Event.UNFIT)
            raise
        except BaseException:  # cancellation is no Exception, and is the failure that matters most
            self._settle(epoch, Event.FAILURE)
            raise
        self._settle(epoch, Event.ANSWER)
        return outputs

    def isolate(self) -> None:
        """Takes the model out of service until `restore`. Calls under way may still end."""
        self._move(Event.ISOLATE)

    def restore(self) -> None:
        """Puts an isolated model back into service, with a clean record. Does nothing in any other state."""
        self._move(Event.RESTORE)

    def _admit(self) -> None:
        """Lets the call through, perhaps as the probe, or raises CircuitOpen."""
        if self._state is State.CLOSED:
            return
        wait_s = self._since_s + self._reset_s - self._clock()
        if self._state is not State.OPEN:
            raise CircuitOpen(self._state, None)
        if wait_s > 0:
            raise CircuitOpen(self._state, wait_s)
        self._move(Event.PROBE)

    def _settle(self, epoch: int, event: Event) -> None:
        if epoch != self._epoch:
            return
        if self._state is State.CLOSED and event is not Event.UNFIT:
            self._in_a_row = self._in_a_row + 1 if event is Event.FAILURE else 0
            event = Event.TRIP if self._in_a_row >= self._failures else event
        self._move(event)
        if event is Event.UNFIT:
            self._since_s -= self._reset_s  # it has waited already: the next call is the probe

    def _move(self, event: Event) -> None:
        state = NEXT.get((self._state, event))
        if state is None:
            return
        self._state = state
        self._epoch += 1
        self._in_a_row = 0
        self._since_s = self._clock()
