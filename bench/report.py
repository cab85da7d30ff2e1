"""Everything that `bench.quality` finds out about one deployment, as plain data: what goes into the JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import claims
from bench.claims import Claim
from bench.machine import machine
from bench.opened import BLIND, JOINT, Opened
from bench.resplits import Draw, Resplit, resplit
from bench.roc import auroc, caught
from bench.rows import Group, Labelled, groups, unfitted
from gateway.calibration.folds import SEED
from gateway.core.rows import F8

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure. data: good rows nothing was fitted on; calibration: only for `splits` > 0."""

    folder: Path
    data: Path
    splits: int
    calibration: Path


@dataclass(frozen=True, slots=True)
class Family:
    """Rows of one kind, as shares of all n. `wrong` is None where no class is right.

    diverted: not answered by a model. stopped: by the guards. *_broken: while the primary is gone. auroc,
    tpr: each score against good rows, the latter with its own threshold at the budget.
    """

    name: str
    origin: str
    n: int
    diverted: float
    stopped: float
    diverted_broken: float
    stopped_broken: float
    wrong: float | None
    auroc: dict[str, float]
    tpr: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """One deployment, measured."""

    policy: str
    mode: str
    population: str
    data: str
    rows: int
    budget: float
    delta: float
    faults: int
    guards: list[str]
    machine: dict[str, str]
    healthy: list[Claim]
    broken: list[Claim]
    families: list[Family]
    resplits: list[Resplit]


async def measure(asked: Asked, progress: Progress = lambda step: None) -> Report:
    """Raises PolicyError or ArtifactError as a gateway would at start; ValueError or OSError for the data."""
    opened = Opened.open(asked.folder)
    try:
        return await _measure(opened, asked, progress)
    finally:
        opened.artifacts.close()


async def _measure(opened: Opened, asked: Asked, progress: Progress) -> Report:
    good = Labelled.load(asked.data, opened.source)
    certificate = opened.artifacts.certificate
    held = unfitted(asked.calibration, opened.source, certificate) if asked.splits else None
    progress(f"{len(good.y)} good rows")
    whole, clean = await opened.decide(good.x), await opened.score(good.x)
    progress(f"{len(good.y)} good rows while {opened.primary} is broken")
    blind = await opened.decide(good.x, broken=True)
    families = []
    for group in groups(asked.folder, opened.policy, opened.source, good):
        progress(f"{group.origin}: {group.name}")
        families.append(await _family(opened, clean, group))
    return Report(
        policy=opened.artifacts.tag,
        mode=opened.policy.mode,
        population=certificate.population,
        data=str(asked.data),
        rows=len(good.y),
        budget=opened.policy.false_alarm_budget,
        delta=opened.policy.delta,
        faults=whole.faults,
        guards=opened.calibrated,
        machine=machine(),
        healthy=claims.healthy(whole, good.y, certificate, opened.primary),
        broken=claims.broken(blind, good.y, certificate, opened.primary),
        families=families,
        resplits=await _resplits(opened, asked, held, clean, progress) if held else [],
    )


async def _family(opened: Opened, clean: dict[str, F8], group: Group) -> Family:
    ends, blind = await opened.decide(group.x), await opened.decide(group.x, broken=True)
    scores = await opened.score(group.x)
    budget = opened.policy.false_alarm_budget
    return Family(
        name=group.name,
        origin=group.origin,
        n=len(group.x),
        diverted=float((~ends.answered).mean()),
        stopped=float(ends.stopped.mean()),
        diverted_broken=float((~blind.answered).mean()),
        stopped_broken=float(blind.stopped.mean()),
        wrong=None if group.y is None else float(ends.wrong(group.y).mean()),
        auroc={name: auroc(clean[name], one) for name, one in scores.items()},
        tpr={name: caught(clean[name], one, budget) for name, one in scores.items()},
    )


async def _resplits(
    opened: Opened, asked: Asked, held: Labelled, clean: dict[str, F8], progress: Progress
) -> list[Resplit]:
    """Of the whole pipeline and of its input-only form; of one population, and of the good rows measured."""
    progress(f"scoring {len(held.y)} calibration rows")
    pool = await opened.score(held.x)
    progress(f"{asked.splits} re-splits")
    draw = Draw(opened.policy.false_alarm_budget, opened.policy.delta, asked.splits, SEED)
    return [
        resplit(f"{name}, {where}", pool[name], fresh, draw)
        for name in (JOINT, BLIND)
        if name in pool
        for where, fresh in (("same population", None), ("fresh rows", clean[name]))
    ]
