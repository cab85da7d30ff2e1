"""Awaits a part (a guard, check, model or store) within its time budget.

Every part is awaited through `call_within`. Whatever it does (raises, hangs or cancels itself) ends as one
`StageFailure`, so that the loop over stages needs no other handling of errors.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gateway.core.errors import BudgetExceeded, StageFailure

A = TypeVar("A")
OWN_PACKAGES = ("gateway", "fallbacks", "guards")
"""Where the errors are defined whose text states no value of a row."""
T = TypeVar("T")
LOOP_LATE_S = 0.005
"""A timer that fires so long after its time shows that the event loop is late."""
TOLERANCE_S = 0.1
"""For how long other work of the machine may hold up a part beyond its budget."""
CALL_DEADLINE_S: contextvars.ContextVar[float] = contextvars.ContextVar("call_deadline_s", default=math.inf)
"""The caller's deadline for the running call, in loop seconds; `Model.ask` sets it."""
CALL_PRINCIPALS: contextvars.ContextVar[Sequence[str]] = contextvars.ContextVar("call_principals", default=())
"""The principals whose rows the running call has; `Model.ask` sets them."""


def now_s() -> float:
    """The running loop's time: the only clock for deadlines, so that tests can run on a fake one.

    It may be as coarse as a millisecond (uvloop's is), so elapsed times are measured with another clock.
    """
    return asyncio.get_running_loop().time()


def call_deadline(budget_s: float) -> tuple[float, bool]:
    """The loop time by which the model that is called now must answer: to be called before it waits.

    Returns: that time, and whether it is the caller's deadline, sooner than the model's own budget.
    Cost:    reads the clock once, only for models that need it (those in other servers).
    """
    own_s, until_s = now_s() + budget_s, CALL_DEADLINE_S.get()
    return min(own_s, until_s), until_s < own_s


async def call_within(
    name: str,
    call: Callable[[A], Coroutine[Any, Any, T]],
    argument: A,
    budget_s: float,
    until_s: float,
    failure: type[StageFailure],
) -> T:
    """Awaits `call(argument)` for `budget_s`, until `until_s` (loop seconds) at the latest.

    Most parts return without waiting for anything, and a timer costs more than many parts do: it is set only
    once the part waits. Before that it could not fire. A part that does not wait is too late all the same if
    it takes more CPU time than its budget, or holds the event loop for `TOLERANCE_S` longer than that: its
    answer is not used. On a busy machine other work may take those: the part has not failed for it.

    Raises BudgetExceeded when the time is up, `failure` for anything else that the part raises, and
    CancelledError only if the awaiting task was cancelled: a part that raises it by itself has failed.
    """
    start_s, began_s, cpu_s = asyncio.get_running_loop().time(), time.perf_counter(), time.thread_time()
    waited = False
    try:
        part = call(argument)
        try:
            waits_for = part.send(None)
        except StopIteration as finished:
            answer = finished.value
        else:
            waited = True
            async with _timeout_at(min(start_s + budget_s, until_s)):
                answer = await resume(part, waits_for)
    except TimeoutError as error:
        raise BudgetExceeded(f"{name}: no answer in {now_s() - start_s:.3f} s") from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise failure(f"{name}: cancelled itself") from None
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # libraries call `sys.exit` as well
        raise failure(f"{name}: {_described(error)}") from error
    if (elapsed_s := time.perf_counter() - began_s) > budget_s:
        _refuse_late(name, elapsed_s, 0.0 if waited else time.thread_time() - cpu_s, budget_s)
    return answer  # type: ignore[no-any-return]


class _timeout_at:  # noqa: N801 - named as what it stands for
    """`asyncio.timeout_at`, but an answer that is there already is taken, where the event loop was late.

    Of an event loop that is late, the timer fires first, and the answer of a thread comes in the same round.
    """

    __slots__ = ("_ended", "_timeout", "_timer", "_until_s")

    def __init__(self, until_s: float) -> None:
        self._until_s, self._timeout, self._ended = until_s, asyncio.timeout(None), False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._timer = loop.call_at(self._until_s, self._come_due, loop)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._ended = True
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _come_due(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.time() - self._until_s > LOOP_LATE_S:
            loop.call_soon(self._expire)
        else:
            self._expire()

    def _expire(self) -> None:
        """Cancels the task in the round after this one, in which an answer that came before has woken it."""
        if not self._ended:
            self._timeout.reschedule(-math.inf)


def _refuse_late(name: str, elapsed_s: float, own_s: float, budget_s: float) -> None:
    """Raises BudgetExceeded if the part is too late itself. own_s: its CPU time, 0 if others ran as well."""
    if own_s > budget_s or elapsed_s > budget_s + TOLERANCE_S:
        raise BudgetExceeded(f"{name}: answered after {elapsed_s:.3f} s, which is too late")


def _described(error: BaseException) -> str:
    """What was raised, without any value of a row: errors of other packages may quote one in their text."""
    kind = type(error).__name__
    if type(error).__module__.partition(".")[0] in OWN_PACKAGES:
        return f"{kind}: {error}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return (
        kind
        if frame is None
        else f"{kind} at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
    )


@types.coroutine
def resume(part: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Awaits the rest of a coroutine that has been started by `send` and now waits for `waits_for`."""
    while True:
        try:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - the part handles it, cancellation too
                waits_for = part.throw(error)
            else:
                waits_for = part.send(sent)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]
