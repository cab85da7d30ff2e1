"""An outlier in every single column of a mixed table, in turn: `python -m bench.mixed_table`.

A deployment of a classifier with a column an input (`mixed_rows.py`) is calibrated with the `raw` guard at 2
and 5 %, opened as a gateway opens it, and decides good rows, and the same rows with an outlier in one column.
Exit code 0: outliers are withheld in 90 % of the rows for each column in every draw, and good rows within the
budget; 1: not so.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.table import Table

from bench import output
from bench.deployment_under_test import DEADLINE_S, MAX_ROWS, DeploymentUnderTest
from bench.machine import machine
from bench.mixed_rows import MISSING, Inputs, model, planted, rows
from fallbacks.onnx import OnnxModel
from gateway.calibration.calibrate import calibrate
from gateway.core.batch import Batch
from gateway.core.decision import Finding, Verdict
from gateway.deployment.deployment import Deployment
from guards.selective import clopper_pearson_interval

BUDGETS, ROWS = (0.02, 0.05), [1_500, 5_000]
FRESH = 1_000
CAUGHT = 0.9
SIDES = {"below": -1.0, "above": 1.0}
POLICY = """
schema: 1
name: mixed
deadline_s: 10
false_alarm_budget: {budget}
answered_error: 0.3
inputs: {{{missing}: {{missing: allow}}}}
guards:
  - {{name: ood, kind: ood, detectors: [raw], cuts: {{defer: certified}}, budget_s: 1, on_error: defer}}
rungs:
  - name: primary
    model: {{kind: onnx, path: primary.onnx, names: {{probabilities: output_probability}}}}
    budget_s: 1
    checks: [{{name: sure, kind: confidence, selective_error: 0.3, budget_s: 1, on_error: degrade}}]
expose: [probabilities]
"""


@dataclass(frozen=True, slots=True)
class Withheld:
    """The share of rows that the guard withholds with an outlier in one column, by what was planted."""

    column: str
    planted: str
    share: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One calibration. good: the share of fresh good rows that the guard withholds, and its 99 % interval."""

    calibration_rows: int
    budget: float
    seed: int
    good: float
    good_interval: tuple[float, float]
    outliers: Sequence[Withheld]

    @property
    def kept(self) -> bool:
        """Whether good rows are consistent with the budget, and outliers caught in every column."""
        caught = all(one.share >= CAUGHT for one in self.outliers)
        return caught and self.good_interval[0] <= self.budget


def measure(folder: Path, calibration_rows: int, budget: float, fresh: int, seed: int) -> Measured:
    """Writes a deployment into a folder, calibrates it on good rows, and decides others.

    Raises:  ArtifactError, PolicyError if the rows do not support the promises.
    """
    rng = np.random.default_rng([seed, calibration_rows])
    (folder / "primary.onnx").write_bytes(model(seed))
    (folder / "gateway.yaml").write_text(POLICY.format(budget=budget, missing=MISSING), "utf-8")
    arrays = _labelled(folder, rows(calibration_rows, rng), rng)
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    calibrate(Deployment.read(folder), folder / "rows.npz")
    opened = DeploymentUnderTest.open(folder)
    try:
        return asyncio.run(_measured(opened, rows(fresh, rng), calibration_rows, budget, seed))
    finally:
        opened.artifacts.close()


def _labelled(folder: Path, x: Inputs, rng: np.random.Generator) -> dict[str, Any]:
    """The rows as a file has them, each with a class drawn with the model's own probability."""
    served = OnnxModel.load(folder / "primary.onnx")
    p = served.run(x)["output_probability"][:, 1]
    served.close()
    texts = {name: column.astype(str) if column.dtype == object else column for name, column in x.items()}
    return {**texts, "y": (rng.random(len(p)) < p).astype(np.int64)}


async def _measured(opened: DeploymentUnderTest, good: Inputs, n: int, budget: float, seed: int) -> Measured:
    stopped = await _withheld(opened, good)
    found = []
    for name, column in good.items():
        sides = {"unseen": 0.0} if column.dtype == object else SIDES
        for planting, side in sides.items():
            changed = await _withheld(opened, {**good, name: planted(column, side)})
            found.append(Withheld(name, planting, float(changed.mean())))
    around = clopper_pearson_interval(int(stopped.sum()), len(stopped), 0.01)
    return Measured(n, budget, seed, float(stopped.mean()), around, found)


async def _withheld(opened: DeploymentUnderTest, x: Inputs) -> NDArray[np.bool_]:
    """bool[n]: the rows that an enforced guard stops."""
    n, decisions = len(next(iter(x.values()))), []
    until_s = asyncio.get_running_loop().time() + DEADLINE_S
    for at in range(0, n, MAX_ROWS):
        part = {name: column[at : at + MAX_ROWS] for name, column in x.items()}
        ids = tuple(f"row-{at + i}" for i in range(min(MAX_ROWS, n - at)))
        decisions += await opened.pipeline.decide(Batch(ids, ids, part, (until_s,) * len(ids)))
    guards = {guard.name for guard in opened.pipeline.guards}
    return np.array([any(_stops(f) for f in one.findings if f.stage in guards) for one in decisions])


def _stops(found: Finding) -> bool:
    assert found.error is None, found.error
    return found.enforced and found.verdict > Verdict.ALLOW


def table(measured: Sequence[Measured]) -> Table:
    """A line a column and what was planted in it: the least share of all draws, by rows and budget."""
    made = Table(
        title="Share of rows that the guard withholds with an outlier in one column, least of the draws"
    )
    made.add_column("column")
    settings: dict[tuple[int, float], list[Measured]] = {}
    for one in measured:
        settings.setdefault((one.calibration_rows, one.budget), []).append(one)
    for n, budget in settings:
        made.add_column(f"{n:,} rows, {budget:.0%}", justify="right")
    good = [[one.good for one in draws] for draws in settings.values()]
    made.add_row("none: good rows, mean", *(f"{sum(one) / len(one):.2%}" for one in good))
    made.add_row("none: good rows, most", *(f"{max(one):.2%}" for one in good), end_section=True)
    for i, line in enumerate(measured[0].outliers):
        least = (min(one.outliers[i].share for one in draws) for draws in settings.values())
        made.add_row(f"{line.column}, {line.planted}", *(f"{share:.1%}" for share in least))
    return made


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def mixed_table(
    n: Annotated[list[int], typer.Option("--rows", min=600, help="Rows of a calibration.")] = ROWS,
    draws: Annotated[int, typer.Option(min=1, help="Calibrations of each size, rows and model anew.")] = 5,
    fresh: Annotated[int, typer.Option(min=100, help="Good rows to plant outliers in.")] = FRESH,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Outliers in every single column of a mixed table, and good rows, through the compiled pipeline."""
    console, measured = output.console(out), []
    for size, budget, seed in product(n, BUDGETS, range(draws)):
        with TemporaryDirectory() as folder, console.status(f"{size:,} rows, {budget:.0%}, draw {seed}"):
            measured.append(measure(Path(folder), size, budget, fresh, seed))
    console.print(table(measured))
    parts = orjson.dumps(machine()), orjson.dumps(fresh), b",\n".join(map(orjson.dumps, measured))
    output.write(out, b'{"machine": %s,\n"fresh": %s,\n"measured": [\n%s\n]}\n' % parts)
    sys.exit(0 if all(one.kept for one in measured) else 1)


if __name__ == "__main__":
    app(prog_name="python -m bench.mixed_table")
