"""Random working and broken parts for the laws of the core, and an event loop whose clock jumps.

A part's behaviour at a row depends on that row's input alone, so that splitting a batch cannot change it.
Hanging is a property of the whole part: a batch that hangs is not split (time is spent only once).
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from gateway.core.batch import Answered, Batch
from gateway.core.decision import Tensors
from gateway.core.model import InputFaults
from gateway.core.pipeline import ReviewRequest
from gateway.core.rows import F8

T = TypeVar("T")
Mood: TypeAlias = Literal[
    "answers",
    "raises",
    "hangs",
    "nan",
    "shape",
    "cancels",
    "rowwise_raise",
    "rowwise_nan",
    "text",
    "rowwise_unfit",
    "rowwise_doubt",
    "doubt",
]
MODEL_MOODS: tuple[Mood, ...] = get_args(Mood)
MOODS = tuple(one for one in MODEL_MOODS if one not in ("rowwise_unfit", "rowwise_doubt", "doubt"))


class Unfit(Exception):
    """What a fake model raises for a row that it cannot take."""


class InDoubt(Exception):
    """What a fake model raises where it does not know whether the row or the model is at fault."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never sleeps: where a real selector would wait, for nothing is ready, it moves the loop's clock on."""

    loop: FakeTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("deadlock: nothing is scheduled and nothing is ready")
        self.loop.now += timeout
        return super().select(0)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on a fake clock: an hour's hang takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end on a fake clock."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main())


async def _misbehave(mood: Mood) -> None:
    if mood == "raises":
        raise ValueError("broken on purpose")
    if mood == "cancels":
        raise asyncio.CancelledError
    if mood == "hangs":
        await asyncio.sleep(3600)


def _poisoned(x: F8, poison: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(np.mod(np.abs(x) * 7.3, 1.0) < poison)


@dataclass(frozen=True)
class FakeGuard:
    """Scores `slope * x + lift`, from the input or from the answer; in a bad mood does something else."""

    mood: Mood = "answers"
    slope: float = 1.0
    lift: float = 0.0
    reads: str | None = None
    poison: float = 0.4
    seen: list[tuple[str, ...]] = field(default_factory=list, compare=False)

    async def score(self, rows: Batch | Answered, /) -> F8:
        self.seen.append(rows.ids)
        await _misbehave(self.mood)
        x = rows.inputs["x"].astype(np.float64)
        if self.reads is not None and isinstance(rows, Batch):
            x = (await rows.forward(self.reads))["y"].astype(np.float64)
        scores = self.slope * x + self.lift
        bad = _poisoned(x, self.poison)
        if self.mood == "rowwise_raise" and bad.any():
            raise RuntimeError("one row broke it")
        if self.mood == "rowwise_nan":
            scores = np.where(bad, np.nan, scores)
        if self.mood == "nan":
            scores = scores * np.nan
        if self.mood == "shape":
            scores = np.stack([scores, scores])
        if self.mood == "text":
            return "suspicious"  # type: ignore[return-value]
        return scores


@dataclass(frozen=True)
class FakeModel:
    """Answers y = x + shift; in a bad mood does something else."""

    mood: Mood = "answers"
    shift: float = 0.0
    poison: float = 0.4
    calls: list[int] = field(default_factory=list, compare=False)
    proofs: list[str] = field(default_factory=list, compare=False)

    async def predict(self, inputs: Tensors, /) -> Tensors:
        x = inputs["x"].astype(np.float64)
        self.calls.append(len(x))
        await _misbehave(self.mood)
        bad = _poisoned(x, self.poison)
        if self.mood == "rowwise_raise" and bad.any():
            raise RuntimeError("one row broke it")
        if self.mood == "rowwise_unfit" and bad.any():
            raise Unfit
        if self.mood == "doubt" or (self.mood == "rowwise_doubt" and bad.any()):
            raise InDoubt
        y = x + self.shift
        if self.mood == "rowwise_nan":
            y = np.where(bad, np.nan, y)
        if self.mood == "nan":
            y = y * np.nan
        if self.mood == "shape":
            y = y[:, None].repeat(2, axis=1).reshape(-1)
        if self.mood == "text":
            return "cat"  # type: ignore[return-value]
        return {"y": y}

    async def prove(self) -> None:
        """As a known row: answered unless the whole model is broken."""
        self.proofs.append(self.mood)
        if self.mood == "doubt":
            raise InDoubt

    @property
    def faults(self) -> InputFaults:
        return InputFaults(Unfit, InDoubt, self.prove)

    def rejects(self, x: float) -> bool:
        """Whether this row, alone or among others, is none that the model takes."""
        poisoned = bool(_poisoned(np.array([x]), self.poison)[0])
        return self.mood in ("rowwise_unfit", "rowwise_doubt") and poisoned


@dataclass(frozen=True)
class FakeReview:
    """Takes every case; in a bad mood does something else."""

    mood: Mood = "answers"
    room: bool = True
    cases: list[ReviewRequest] = field(default_factory=list, compare=False)

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        await _misbehave(self.mood)
        if self.mood in ("shape", "nan"):
            return [True] * (len(cases) + 1)
        if self.mood == "text":
            return 7  # type: ignore[return-value]
        if self.mood.startswith("rowwise"):
            return [_poisoned(case.inputs["x"].astype(np.float64), 0.4)[0] for case in cases]
        if self.room:
            self.cases.extend(cases)
        return [self.room] * len(cases)


def batch_of(x: Sequence[float], deadline_s: float = 1e5) -> Batch:
    """One row a number, due `deadline_s` on the fake clock."""
    n = len(x)
    return Batch(
        tuple(f"r{i}" for i in range(n)),
        tuple(f"caller{i % 2}" for i in range(n)),
        {"x": np.asarray(x, np.float64)},
        (deadline_s,) * n,
    )
