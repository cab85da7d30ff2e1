"""What a gateway is to keep under overload, and what one load of it did not."""

from __future__ import annotations

from collections.abc import Iterator

from bench.overload.figures import GreedyFigures, OverloadFigures, ProbeFigures

LEAST_GOODPUT = {2.0: 0.90, 5.0: 0.80, 10.0: 0.80}
"""Over the capacity, by the multiple of it that is offered."""
LEAST_HIGHEST, LEAST_POLITE = 0.999, 0.999
MOST_RECOVERY_S, MOST_PROBE_MS, MOST_P99_RATIO = 1.0, 100.0, 2.0


def missed(one: OverloadFigures | GreedyFigures, deadline_s: float) -> list[str]:
    """Every target that one load missed, as a sentence with its figures."""
    found = _missed_overload(one, deadline_s) if isinstance(one, OverloadFigures) else _missed_greedy(one)
    return [*found, *_missed_probe(one.probe)]


def _missed_overload(one: OverloadFigures, deadline_s: float) -> Iterator[str]:
    least = LEAST_GOODPUT.get(one.times, 0.0)
    if not one.goodput_ratio >= least:
        yield f"goodput is {one.goodput_ratio:.2f} of the capacity, less than {least:.2f}"
    if not one.answered_p99_ms <= deadline_s * 1e3:
        yield f"p99 of what is answered is {one.answered_p99_ms:.0f} ms, after the deadline"
    if one.highest_in_time < LEAST_HIGHEST:
        yield f"{one.highest_in_time:.2%} of the highest priority are in time, less than {LEAST_HIGHEST:.1%}"
    if one.recovery_s is None or one.recovery_s > MOST_RECOVERY_S:
        took = "the whole recovery" if one.recovery_s is None else f"{one.recovery_s:.1f} s"
        yield f"it takes {took} to be back to normal, more than {MOST_RECOVERY_S:g} s"


def _missed_greedy(one: GreedyFigures) -> Iterator[str]:
    if not one.answered >= LEAST_POLITE:
        yield f"{one.answered:.2%} of the polite caller's requests are in time, less than {LEAST_POLITE:.1%}"
    if not one.p99_ratio <= MOST_P99_RATIO:
        times = f"{one.p99_ratio:.1f} times that of before"
        yield f"the polite caller's p99 is {times}, more than {MOST_P99_RATIO:g} times"


def _missed_probe(probe: ProbeFigures | None) -> Iterator[str]:
    if probe is None:
        return
    if probe.failed:
        ends = ", ".join(f"{count} {end}" for end, count in probe.ends.items())
        yield f"{probe.failed} health probes failed: {ends}"
    if probe.most_ms > MOST_PROBE_MS:
        yield f"a health probe took {probe.most_ms:.0f} ms, more than {MOST_PROBE_MS:g}"
