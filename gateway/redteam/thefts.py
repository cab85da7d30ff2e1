"""The model itself is taken: one theft for each source of rows and each number of keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import Model
from gateway.redteam.attacks.extraction import Loot, Theft, extract, tier_of
from gateway.redteam.bare import BareModel
from gateway.redteam.meanwhile import Beside, Meanwhile
from gateway.redteam.records import Extraction, Results
from gateway.redteam.rows import Parts
from gateway.redteam.run import Limits
from gateway.redteam.watcher import Watcher

KEY_COUNTS, ACTIVE = (1, 10, 100), "active"


@dataclass(frozen=True, slots=True, eq=False)
class ThiefsView:
    """thieves: the target as each key sees it; public: rows of other data."""

    thieves: Sequence[Model]
    bare: BareModel | None
    parts: Parts
    public: F8 | None


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One theft. bare: the same one without a gateway."""

    thieves: Sequence[Model]
    name: str
    pool: F8
    loot: Loot
    bare: Theft


def extractions(
    view: ThiefsView, limits: Limits, seed: int, results: Results, watcher: Watcher, beside: Beside
) -> None:
    """One theft for each source of rows and each number of keys that there are.

    Each takes the next keys, and the first ones again where too few are left: a budget that one theft has
    spent is not the next one's.
    """
    if view.bare is None:
        results.skipped["extraction"] = "fidelity is measured against the bare model; give --bare MODEL.onnx"
        return
    counts = [n for n in KEY_COUNTS if n <= len(view.thieves)]
    if missing := [str(n) for n in KEY_COUNTS if n > len(view.thieves)]:
        what = f"--keys has {len(view.thieves)}" if len(view.thieves) > 1 else "one key was given"
        results.skipped[f"extraction over {' and '.join(missing)} keys"] = what
    pools = {"in-distribution": view.parts.attacked.x}
    if view.public is None:
        results.skipped["extraction from public rows"] = "give --public FILE"
    else:
        pools["public"] = view.public
    pools[ACTIVE] = np.concatenate(list(pools.values()))
    watcher.begin("extraction", len(pools) * len(counts))
    loot = Loot(view.parts.held.x, view.bare.labels(view.parts.held.x), view.bare.classes)
    shares = iter(shared_out(view.thieves, counts * len(pools)))
    jobs = list[_Job]()
    for name, pool in pools.items():
        bare = Theft()
        extract([view.bare], pool, loot, limits, np.random.default_rng(seed), bare, active=name == ACTIVE)
        jobs += [_Job(next(shares), name, pool, loot, bare) for _ in counts]
    for done, job in enumerate(jobs):
        part = Limits(limits.queries, time.monotonic() + limits.left_s / (len(jobs) - done))
        _extraction(job, part, seed, results, beside)
        watcher.done(done + 1)


def shared_out(models: Sequence[Model], counts: Sequence[int]) -> list[Sequence[Model]]:
    """The next models for each count, each at most as many as there are; from the first on where too few are
    left.
    """
    shares, at = list[Sequence[Model]](), 0
    for n in counts:
        at = at if at + n <= len(models) else 0
        shares.append(models[at : at + n])
        at += n
    return shares


def _extraction(job: _Job, limits: Limits, seed: int, results: Results, beside: Beside) -> None:
    """One theft; recorded also where it is interrupted."""
    theft, begun_s, seen = Theft(), time.monotonic(), [Meanwhile()]
    rng, active = np.random.default_rng(seed), job.name == ACTIVE
    try:
        with beside(seen.append):
            extract(job.thieves, job.pool, job.loot, limits, rng, theft, active=active)
    except KeyboardInterrupt:
        theft.ended = "interrupted"
        raise
    finally:
        tally = theft.tally
        results.extractions.append(
            Extraction(
                job.name,
                len(job.thieves),
                tier_of(theft.answers),
                theft.curve,
                job.bare.curve,
                dict(tally.outcomes),
                tally.first_alarm,
                theft.ended,
                time.monotonic() - begun_s,
                tally.waited_s,
                theft.pace,
                seen[-1].harm,
                seen[-1].recorded_alarm,
            )
        )
