"""All that `bench.quality` measures of one deployment, as plain data: what goes into the JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import measured_shares
from bench.deployment_under_test import INPUT_ONLY, JOINT, DeploymentUnderTest
from bench.machine import machine
from bench.measured_shares import MeasuredShare
from bench.output import StatusCallback
from bench.resplits import Resplit, ResplitSettings, resplit
from bench.roc import auroc, detection_rate
from bench.rows import LabelledRows, RowGroup, row_groups, unfitted
from gateway.calibration.folds import SEED
from gateway.core.rows import F8


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """What to measure. data: good rows nothing was fitted on; calibration: only for `splits` > 0."""

    folder: Path
    data: Path
    splits: int
    calibration: Path


@dataclass(frozen=True, slots=True)
class FamilyFigures:
    """Rows of one kind, as shares of all n. `wrong` is None where no class is right.

    diverted: not answered by a model. stopped: by the guards. *_broken: while the primary fails. auroc,
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
class QualityReport:
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
    healthy: list[MeasuredShare]
    broken: list[MeasuredShare]
    families: list[FamilyFigures]
    resplits: list[Resplit]


async def measure_quality(
    settings: QualitySettings, show_status: StatusCallback = lambda step: None
) -> QualityReport:
    """Raises PolicyError or ArtifactError as a gateway would at start; ValueError or OSError for the data."""
    deployment = DeploymentUnderTest.open(settings.folder)
    try:
        return await _measure(deployment, settings, show_status)
    finally:
        deployment.artifacts.close()


async def _measure(
    deployment: DeploymentUnderTest, settings: QualitySettings, show_status: StatusCallback
) -> QualityReport:
    good = LabelledRows.load(settings.data, deployment.source)
    certificate = deployment.artifacts.certificate
    held = unfitted(settings.calibration, deployment.source, certificate) if settings.splits else None
    show_status(f"{len(good.y)} good rows")
    whole, clean = await deployment.decide(good.x), await deployment.score(good.x)
    show_status(f"{len(good.y)} good rows while {deployment.primary} is broken")
    input_only = await deployment.decide(good.x, broken=True)
    families = []
    for group in row_groups(settings.folder, deployment.policy, deployment.source, good):
        show_status(f"{group.origin}: {group.name}")
        families.append(await _family(deployment, clean, group))
    return QualityReport(
        policy=deployment.artifacts.tag,
        mode=deployment.policy.mode,
        population=certificate.population,
        data=str(settings.data),
        rows=len(good.y),
        budget=deployment.policy.false_alarm_budget,
        delta=deployment.policy.delta,
        faults=whole.faults,
        guards=deployment.calibrated,
        machine=machine(),
        healthy=measured_shares.healthy(whole, good.y, certificate, deployment.primary),
        broken=measured_shares.broken(input_only, good.y, certificate, deployment.primary),
        families=families,
        resplits=await _resplits(deployment, settings, held, clean, show_status) if held else [],
    )


async def _family(deployment: DeploymentUnderTest, clean: dict[str, F8], group: RowGroup) -> FamilyFigures:
    outcomes, input_only = await deployment.decide(group.x), await deployment.decide(group.x, broken=True)
    scores = await deployment.score(group.x)
    budget = deployment.policy.false_alarm_budget
    return FamilyFigures(
        name=group.name,
        origin=group.origin,
        n=len(group.x),
        diverted=float((~outcomes.answered).mean()),
        stopped=float(outcomes.stopped.mean()),
        diverted_broken=float((~input_only.answered).mean()),
        stopped_broken=float(input_only.stopped.mean()),
        wrong=None if group.y is None else float(outcomes.wrong(group.y).mean()),
        auroc={name: auroc(clean[name], one) for name, one in scores.items()},
        tpr={name: detection_rate(clean[name], one, budget) for name, one in scores.items()},
    )


async def _resplits(
    deployment: DeploymentUnderTest,
    settings: QualitySettings,
    held: LabelledRows,
    clean: dict[str, F8],
    show_status: StatusCallback,
) -> list[Resplit]:
    """Of the whole pipeline and of its input-only form; of one population, and of the good rows measured."""
    show_status(f"scoring {len(held.y)} calibration rows")
    pool = await deployment.score(held.x)
    show_status(f"{settings.splits} re-splits")
    draw = ResplitSettings(
        deployment.policy.false_alarm_budget, deployment.policy.delta, settings.splits, SEED
    )
    return [
        resplit(f"{name}, {where}", pool[name], fresh, draw)
        for name in (JOINT, INPUT_ONLY)
        if name in pool
        for where, fresh in (("same population", None), ("fresh rows", clean[name]))
    ]
