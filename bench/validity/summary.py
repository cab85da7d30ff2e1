"""How often each promise is broken over re-splits, with its binomial margin, and how loose it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.validity.partial import Cell
from bench.validity.resplit import Certified
from bench.validity.truth import Promised
from guards.selective import clopper_pearson_interval

DELTA = 0.05
CONFIDENCE = 0.99
TOGETHER = "all together"


@dataclass(frozen=True, slots=True)
class Broken:
    """One promise of one policy on re-splits of one population.

    budget: of false alarms, or the promise of the checks of numbers (`regression_shapes.py`); printed:
    calibrations that print it; broken: those whose true share is above it; level: the probability that this
    may have; lower, upper: the Clopper-Pearson limits of broken / resplits, each at 99 %; realised: the mean
    true share over the promised one, where printed.
    """

    data: str
    rows: int
    budget: float
    shape: str
    promise: str
    resplits: int
    printed: int
    broken: int
    level: float
    lower: float
    upper: float
    realised: float | None

    @property
    def is_broken(self) -> bool:
        """Whether it is broken more often than it may be, beyond the binomial margin."""
        return self.lower > self.level


@dataclass(frozen=True, slots=True)
class Refused:
    """How many calibrations of one policy were refused, by what could not be certified."""

    data: str
    rows: int
    budget: float
    shape: str
    resplits: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Answered:
    """Of the certified calibrations of one policy, the mean true share of rows that a model answers."""

    data: str
    rows: int
    budget: float
    shape: str
    certified: int
    answered: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a whole grid."""

    promises: Sequence[Broken]
    refused: Sequence[Refused]
    answered: Sequence[Answered]


def summarise(found: Mapping[Cell, Sequence[Sequence[Certified]]]) -> Summary:
    """Over the re-splits of each cell."""
    promises: list[Broken] = []
    refused: list[Refused] = []
    answered: list[Answered] = []
    for cell, resplits in found.items():
        policies: dict[tuple[str, float], list[Certified]] = {}
        for certified in resplits:
            for one in certified:
                policies.setdefault((one.shape, one.budget), []).append(one)
        for (shape, budget), runs in policies.items():
            why = Counter(run.outcome.refused.split(":")[0] for run in runs if run.outcome.refused)
            refused.append(Refused(cell.data, cell.rows, budget, shape, len(runs), dict(why)))
            promises += _promises(cell, shape, budget, runs)
            shares = [run.outcome.answered for run in runs if not run.outcome.refused]
            mean = sum(shares) / max(1, len(shares))
            answered.append(Answered(cell.data, cell.rows, budget, shape, len(shares), mean))
    return Summary(promises, refused, answered)


def limits(broken: int, resplits: int) -> tuple[float, float]:
    """The Clopper-Pearson limits of a share, each at 99 % confidence."""
    return clopper_pearson_interval(broken, resplits, 2 * (1 - CONFIDENCE))


def _promises(cell: Cell, shape: str, budget: float, runs: Sequence[Certified]) -> Iterator[Broken]:
    by_name: dict[str, list[Promised]] = {}
    for run in runs:
        for promise in run.outcome.promises:
            by_name.setdefault(promise.what, []).append(promise)

    def of(what: str, printed: int, broken: int, level: float, realised: float | None) -> Broken:
        lower, upper = limits(broken, len(runs))
        at = (cell.data, cell.rows, budget, shape, what)
        return Broken(*at, len(runs), printed, broken, level, lower, upper, realised)

    for what, promises in by_name.items():
        realised = sum(one.true / one.at_most for one in promises) / len(promises)
        yield of(what, len(promises), sum(not one.kept for one in promises), DELTA, realised)
    statements = [_statements(run.outcome.promises) for run in runs]
    if most := max(map(len, statements)):
        broken = sum(any(not one.kept for one in promises) for promises in statements)
        yield of(TOGETHER, sum(map(bool, statements)), broken, most * DELTA, None)


def _statements(promises: Iterable[Promised]) -> list[Promised]:
    """Those that the certificate counts: slices are one promise with all rows together."""
    slices = {"false alarm": "worst slice", "without primary": "worst slice without primary"}
    names = {one.what for one in promises}
    return [one for one in promises if one.what != "if enforced" and slices.get(one.what) not in names]
