"""What the generator counted in one load, read from its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.overload.histogram import Histogram

ANSWERED_ENDS = ("answered", "served", "degraded")
"""Replies of 200. `answered`: of a server without outcomes."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassResult:
    """One class. counts: of requests by bucket of their scheduled time, end, and whether after the deadline.

    answered, replied: latencies from the scheduled time of replies of 200 and of all, of each phase.
    """

    counts: NDArray[np.int64]
    answered: tuple[Histogram, ...]
    replied: tuple[Histogram, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LoadResult:
    """One load. ends: what the second axis of counts stands for.

    cpu_share, lateness: the share of a core that the generator used, and how late it sent, in each phase.
    """

    phases: tuple[float, ...]
    bucket_s: float
    ends: tuple[str, ...]
    classes: Mapping[str, ClassResult]
    cpu_share: tuple[float, ...]
    lateness: tuple[Histogram, ...]

    def buckets(self, phase: int) -> slice:
        """The buckets of a phase, whose limits are whole buckets."""
        begin_s = sum(self.phases[:phase])
        return slice(round(begin_s / self.bucket_s), round((begin_s + self.phases[phase]) / self.bucket_s))

    def counts(self, names: Sequence[str], phase: int) -> NDArray[np.int64]:
        """Of some classes together in one phase: bucket, end, and whether after the deadline."""
        found = np.sum([self.classes[name].counts for name in names], axis=0)
        return np.asarray(found[self.buckets(phase)], np.int64)

    def answered_ends(self) -> list[int]:
        return [self.ends.index(end) for end in ANSWERED_ENDS]


def read_result(raw: bytes, phases: tuple[float, ...]) -> LoadResult:
    """The result of a load with phases of these lengths."""
    found = orjson.loads(raw)
    a_doubling, ends = found["bins_a_doubling"], tuple(found["ends"])

    def histogram(one: Mapping[str, Any]) -> Histogram:
        return Histogram(dict(one["bins"]), a_doubling, one["most_s"])

    def class_result(one: Mapping[str, Any]) -> ClassResult:
        counts = np.array(one["buckets"], np.int64).reshape(-1, len(ends), 2)
        answered = tuple(histogram(each["answered"]) for each in one["phases"])
        return ClassResult(counts, answered, tuple(histogram(each["replied"]) for each in one["phases"]))

    return LoadResult(
        phases,
        found["bucket_s"],
        ends,
        {one["name"]: class_result(one) for one in found["classes"]},
        tuple(one["cpu_s"] / length for one, length in zip(found["generator"], phases, strict=True)),
        tuple(histogram(one["lateness"]) for one in found["generator"]),
    )
