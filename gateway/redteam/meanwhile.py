"""What is watched while an attack runs: an honest caller's rows, and the gateway's record of alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from gateway.redteam.administration import NotRead
from gateway.redteam.alarms import Alarms
from gateway.redteam.honest import Honest, harm_of
from gateway.redteam.records import Harm


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """harm: how honest rows ended, None without an honest caller; recorded_alarm: as `Alarms.first`, None
    also where it is not read.
    """

    harm: Harm | None = None
    recorded_alarm: int | None = None


Beside: TypeAlias = Callable[[Callable[[Meanwhile], None]], AbstractContextManager[None]]


def beside(honest: Honest | None, alarms: Alarms | None) -> Beside:
    """A block during which one attack runs; what is given is told at its end what was seen meanwhile."""

    @contextmanager
    def block(told: Callable[[Meanwhile], None]) -> Iterator[None]:
        if alarms is not None:
            alarms.begin()
        with nullcontext() if honest is None else honest.during() as answers:
            try:
                yield
            finally:
                harm = None if answers is None else harm_of(list(answers))
                told(Meanwhile(harm, _first(alarms)))

    return block


def _first(alarms: Alarms | None) -> int | None:
    """None where the gateway is gone: the attack says so itself."""
    try:
        return None if alarms is None else alarms.first()
    except NotRead:
        return None
