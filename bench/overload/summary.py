"""The figures of one load, computed from what the generator counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.overload.figures import GeneratorFigures, GreedyFigures, OverloadFigures, ProbeFigures
from bench.overload.histogram import Histogram
from bench.overload.load_result import LoadResult
from bench.overload.scenarios import LOAD_PHASE, MASS_NAMES, RECOVERY_PHASE

NORMAL_SHARE = 0.9
"""Of the requests of a tenth of a second, answered in time: less is not yet back to normal."""
CAPACITY_PHASE, ALONE_PHASE, BESIDE_PHASE = 1, 1, 2


def capacity_of(result: LoadResult) -> float:
    """Replies of 200 a second in a closed loop, its warm-up excluded."""
    return answered_in_time(result, MASS_NAMES, CAPACITY_PHASE) / result.phases[CAPACITY_PHASE]


def overload_figures(
    server: str, rows: int, times: float, number: int, capacity: float, result: LoadResult
) -> OverloadFigures:
    """The figures of one load of `scenarios.overload`."""
    callers = (*MASS_NAMES, "highest")
    seconds = result.phases[LOAD_PHASE]
    answered = Histogram.sum(result.classes[name].answered[LOAD_PHASE] for name in callers)
    return OverloadFigures(
        server,
        rows,
        times,
        number,
        capacity,
        float(result.counts(callers, LOAD_PHASE).sum()) / seconds,
        answered_in_time(result, callers, LOAD_PHASE) / seconds,
        answered.percentile_s(0.5) * 1e3,
        answered.percentile_s(0.99) * 1e3,
        shares(result, callers, LOAD_PHASE),
        share_in_time(result, ("highest",), LOAD_PHASE),
        shares(result, ("highest",), LOAD_PHASE),
        result.classes["highest"].answered[LOAD_PHASE].percentile_s(0.99) * 1e3,
        probe_figures(result),
        recovery_s(result, callers),
        generator_figures(result, LOAD_PHASE),
    )


def greedy_figures(server: str, rows: int, number: int, capacity: float, result: LoadResult) -> GreedyFigures:
    """The figures of one load of `scenarios.greedy`."""
    polite, name = result.classes["polite"], ("polite",)
    return GreedyFigures(
        server,
        rows,
        number,
        capacity,
        share_in_time(result, name, ALONE_PHASE),
        share_in_time(result, name, BESIDE_PHASE),
        polite.answered[ALONE_PHASE].percentile_s(0.99) * 1e3,
        polite.answered[BESIDE_PHASE].percentile_s(0.99) * 1e3,
        shares(result, ("greedy",), BESIDE_PHASE),
        probe_figures(result),
        generator_figures(result, BESIDE_PHASE),
    )


def answered_in_time(result: LoadResult, names: Sequence[str], phase: int) -> float:
    """How many requests got a 200 before their deadline."""
    return float(result.counts(names, phase)[:, result.answered_ends(), 0].sum())


def share_in_time(result: LoadResult, names: Sequence[str], phase: int) -> float:
    """The same as a share of what was scheduled; NaN of nothing."""
    offered = result.counts(names, phase).sum()
    return float(answered_in_time(result, names, phase) / offered) if offered else math.nan


def shares(result: LoadResult, names: Sequence[str], phase: int) -> dict[str, float]:
    """The share of each end that occurred; replies of 200 after the deadline are `late`."""
    counts = result.counts(names, phase).sum(axis=0)
    offered, late = max(1, counts.sum()), counts[result.answered_ends(), 1].sum()
    found = {end: counts[i].sum() for i, end in enumerate(result.ends) if i not in result.answered_ends()}
    found |= {result.ends[i]: counts[i, 0] for i in result.answered_ends()}
    return {end: float(n / offered) for end, n in {**found, "late": late}.items() if n}


def probe_figures(result: LoadResult) -> ProbeFigures | None:
    """The health probes of all phases, if there were any."""
    if "probe" not in result.classes:
        return None
    probe = result.classes["probe"]
    counts = probe.counts.sum(axis=(0, 2))
    failed = counts.sum() - counts[result.answered_ends()].sum()
    ends = {end: int(count) for end, count in zip(result.ends, counts, strict=True) if count}
    return ProbeFigures(max(one.most_s for one in probe.replied) * 1e3, int(failed), ends)


def recovery_s(result: LoadResult, names: Sequence[str]) -> float | None:
    """Seconds from the end of the load to that of the last bucket below normal; None: the last of all is."""
    counts = result.counts(names, RECOVERY_PHASE)
    offered = counts.sum(axis=(1, 2))
    below = np.flatnonzero(counts[:, result.answered_ends(), 0].sum(axis=1) < NORMAL_SHARE * offered)
    if not len(below):
        return 0.0
    return None if below[-1] == len(counts) - 1 else float(below[-1] + 1) * result.bucket_s


def generator_figures(result: LoadResult, phase: int) -> GeneratorFigures:
    """What the generator itself took."""
    late = result.lateness[phase]
    return GeneratorFigures(result.cpu_share[phase], late.percentile_s(0.99) * 1e3, late.most_s * 1e3)
