"""What the guard `queries` costs honest callers that nearly repeat themselves.

    python -m bench.honest_duplicates configs/fashion

Three kinds of honest traffic, each sent through the pipeline of a deployment with the guard and without it:

    film    a caller sends frames of a slowly changing picture or measurement, one at a time
    job     a caller sends a batch of rows, and the next day the same rows, of which some have changed
    office  callers behind one range of addresses send rows of which some are nearly the same

A row is lost if it was answered without the guard and is not, or by a fallback, with it. A row is replayed if
it got the answer of an earlier query, and told wrong if that names another class.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from bench import output
from bench.machine import machine
from gateway.calibration.served import with_long_budgets
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Degraded, Served, severity
from gateway.core.pipeline import Pipeline
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Rows = NDArray[np.float32]
FRAMES, CHANGED, SHARED = 100, 0.2, 0.2
"""Frames of a film; rows of a job that change by the next day; rows of an office that its callers share."""
DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Harm:
    """Of one kind of traffic. rows: answered without the guard; the others are of these."""

    traffic: str
    rows: int
    lost: int
    replayed: int
    told_wrong: int


@dataclass(frozen=True, slots=True)
class HonestResults:
    machine: dict[str, str]
    deployment: str
    harm: list[Harm]


@dataclass(frozen=True, slots=True)
class _Request:
    principal: str
    x: Rows


@app.command()
def honest_duplicates(
    folder: Annotated[Path, typer.Argument(help="A deployment with a guard of kind queries.")],
    seed: int = 0,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Sends three kinds of honest traffic with the guard and without it."""
    console = output.console(out)
    name, x = _samples(folder)
    harm = [
        _harm(folder, name, traffic, list(requests))
        for traffic, requests in _traffic(x, np.random.default_rng(seed)).items()
    ]
    found = HonestResults(machine(), folder.name, harm)
    console.print(_table(found))
    output.write(out, found)


def _samples(folder: Path) -> tuple[str, Rows]:
    """The committed rows of the one input."""
    with np.load(folder / "samples.npz") as held:
        name = next(key for key in held.files if key not in ("y", "scale"))
        scale = held["scale"] if "scale" in held.files else 1
        return name, np.asarray(held[name] * scale, np.float32)


def _traffic(x: Rows, rng: np.random.Generator) -> dict[str, Iterator[_Request]]:
    return {"film": _film(x, rng), "job": _job(x, rng), "office": _office(x, rng)}


def _film(x: Rows, rng: np.random.Generator) -> Iterator[_Request]:
    """Ten films: in each, one row slowly becomes another, with the noise of a sensor."""
    step = 1.0 if np.array_equal(x, np.rint(x)) else 0.0
    for film in range(10):
        start, end = x[2 * film], x[2 * film + 1]
        for frame in range(FRAMES):
            row = start + (end - start) * np.float32(frame / FRAMES)
            noisy = row + rng.normal(0, 0.01, row.shape).astype(np.float32)
            shown = np.rint(noisy) if step else np.clip(noisy, x.min(), x.max())
            yield _Request(f"camera{film}", shown[None].astype(np.float32))


def _job(x: Rows, rng: np.random.Generator) -> Iterator[_Request]:
    yesterday, today = x[:500], x[:500].copy()
    changed = rng.random(len(today)) < CHANGED
    today[changed] = _changed(today[changed], x, rng)
    for rows in (yesterday, today):
        for first in range(0, len(rows), 50):
            yield _Request("job", rows[first : first + 50])


def _office(x: Rows, rng: np.random.Generator) -> Iterator[_Request]:
    """Twenty callers; a fifth of each one's rows are forms that all fill in nearly alike."""
    forms, rest = x[:10], x[10:]
    for turn in range(25):
        for caller in range(20):
            if rng.random() < SHARED:
                row = _changed(forms[rng.integers(len(forms))][None], x, rng)
            else:
                row = rest[(turn * 20 + caller) % len(rest)][None]
            yield _Request(f"anonymous@192.0.2.{caller + 1}", row)


def _changed(rows: Rows, x: Rows, rng: np.random.Generator) -> Rows:
    """Rows in which a few values are those of other rows."""
    flat = rows.reshape(len(rows), -1).copy()
    values = x.reshape(len(x), -1)
    for row in flat:
        at = rng.choice(flat.shape[1], max(1, flat.shape[1] // 50), replace=False)
        row[at] = values[rng.integers(len(values)), at]
    return flat.reshape(rows.shape)


def _harm(folder: Path, name: str, traffic: str, requests: Sequence[_Request]) -> Harm:
    deployment = Deployment.read(folder)
    artifacts = load_artifacts(deployment)
    try:
        policy = with_long_budgets(deployment.policy)
        guarded = compile_policy(policy, artifacts, Stores(None, lambda principal: None, {}))
        with_guard = asyncio.run(_decide(guarded, name, requests))
        without = asyncio.run(_decide(_without(guarded), name, requests))
    finally:
        artifacts.close()
    pairs = [(a, b) for a, b in zip(without, with_guard, strict=True) if _is_answered(a)]
    replayed = [(a, b) for a, b in pairs if _is_replayed(b)]
    return Harm(
        traffic,
        rows=len(pairs),
        lost=sum(severity(b.outcome) > severity(a.outcome) for a, b in pairs),
        replayed=len(replayed),
        told_wrong=sum(_label(a) != _label(b) for a, b in replayed),
    )


def _without(pipeline: Pipeline) -> Pipeline:
    """The same pipeline without the guards that judge by earlier rows."""
    names = {recall.guard for recall in pipeline.recalls}
    return replace(
        pipeline, guards=tuple(one for one in pipeline.guards if one.name not in names), recalls=()
    )


async def _decide(pipeline: Pipeline, name: str, requests: Sequence[_Request]) -> list[Decision]:
    found: list[Decision] = []
    for request in requests:
        n = len(request.x)
        ids, principals = ("row",) * n, (request.principal,) * n
        found += await pipeline.decide(Batch(ids, principals, {name: request.x}, (now_s() + DEADLINE_S,) * n))
    return found


def _is_answered(decision: Decision) -> bool:
    return isinstance(decision.outcome, (Served, Degraded))


def _is_replayed(decision: Decision) -> bool:
    return any(finding.stage.endswith(".replayed") for finding in decision.findings)


def _label(decision: Decision) -> Any:
    assert isinstance(decision.outcome, (Served, Degraded))
    return int(decision.outcome.output["probabilities"].argmax())


def _table(found: HonestResults) -> Table:
    table = Table(title=f"{found.deployment}: honest callers that nearly repeat themselves")
    for column in ("traffic", "answered rows", "lost", "replayed", "told wrong"):
        table.add_column(column, justify="left" if column == "traffic" else "right")
    for one in found.harm:
        shares = [
            f"{100 * part / max(one.rows, 1):.1f} %" for part in (one.lost, one.replayed, one.told_wrong)
        ]
        table.add_row(one.traffic, str(one.rows), *shares)
    return table


if __name__ == "__main__":
    app()
