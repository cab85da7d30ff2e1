"""Whether time, statistics or sizes tell a caller what the gateway did: `python -m bench.side_channels`.

A copy of the deployment is served twice, without a release grid and with one, and an ordinary caller sends
the same rows to each, again and again in random order. Two pairs of groups must not be told apart: answered
rows that the `squeeze` guard squeezed, and answered rows that it did not; rows that a guard sent to review,
and rows that the check of the answer did. Which row is in which group is asked of the same pipeline in this
process. For each pair and channel the table has the area under the ROC curve of the best that the caller can
make of it: the least of all repetitions, for a clock; 0.5 tells nothing, 1 everything. Replies are binary:
the digits of a number in JSON are part of the answer, not a channel beside it.

Exit code 0: no area with the grid is above 0.6, beyond what so few rows show by chance (1.64 errors).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import numpy as np
import typer
import yaml
from rich.table import Table

from bench import output
from bench.deployment_under_test import DEADLINE_S, DeploymentUnderTest
from bench.growth.server_process import serve_copy
from bench.machine import machine
from bench.requests import Target, WrongInput
from bench.roc import auroc
from gateway.cli.infer_body import infer_body
from gateway.cli.samples import Samples, load_samples
from gateway.core.batch import Batch
from gateway.core.decision import Deferred, Served, Tensors, Verdict
from gateway.core.rows import F8
from gateway.core.stage import FeatureStage
from guards.squeeze import SqueezeGuard

MOST_TOLD, ERRORS = 0.6, 1.64
SQUEEZED, NOT_SQUEEZED, BY_GUARD, BY_CHECK = "squeezed", "not squeezed", "by a guard", "by the check"
PAIRS = {
    "answered: squeezed or not": (SQUEEZED, NOT_SQUEEZED),
    "in review: by a guard or the check": (BY_GUARD, BY_CHECK),
}
CHANNELS = ("own clock, once", "own clock, least of all", "statistics, least of all", "size of the reply")

Groups = Mapping[str, Sequence[Tensors]]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Told:
    """The area under the ROC curve of one channel between two groups, and its standard error at 0.5."""

    pair: str
    channel: str
    grid_ms: int
    area: float
    error: float
    median_ms: tuple[float, float]

    @property
    def too_much(self) -> bool:
        return self.area > MOST_TOLD + ERRORS * self.error


def grouped(folder: Path, most: int) -> Groups:
    """At most so many rows of each group, by the pipeline of the folder, each row decided by itself."""
    opened = DeploymentUnderTest.open(folder)
    try:
        samples = load_samples(folder, opened.artifacts.contract)
        return asyncio.run(_grouped(opened, samples, most))
    finally:
        opened.artifacts.close()


async def _grouped(opened: DeploymentUnderTest, samples: Samples, most: int) -> Groups:
    groups: dict[str, list[Tensors]] = {name: [] for pair in PAIRS.values() for name in pair}
    for row in _rows(samples):
        if (name := await _group(opened, row)) and len(groups[name]) < most:
            groups[name].append(row)
        if all(len(rows) == most for rows in groups.values()):
            break
    return groups


def _rows(samples: Samples) -> Iterator[Tensors]:
    """Good rows, and among them rows of outliers, one at a time."""
    for family in (samples.clean, *samples.families.values()):
        for i in range(len(next(iter(family.values())))):
            yield {name: column[i : i + 1] for name, column in family.items()}


async def _group(opened: DeploymentUnderTest, row: Tensors) -> str | None:
    """The group that a row belongs to, if any."""
    models = {rung.name: rung.model for rung in opened.pipeline.rungs}
    batch = Batch(("row",), ("row",), row, (asyncio.get_running_loop().time() + DEADLINE_S,))
    (decision,) = await opened.pipeline.decide(batch)
    if isinstance(decision.outcome, Served):
        squeezes = [
            stage.full.guard
            for stage in opened.pipeline.guards
            if isinstance(stage, FeatureStage) and isinstance(stage.full.guard, SqueezeGuard)
        ]
        triggers = [
            (await one.first_pass(batch.with_models(models)))[0, 0] >= one.squeeze.trigger_cut
            for one in squeezes
        ]
        return SQUEEZED if any(triggers) else NOT_SQUEEZED
    if isinstance(decision.outcome, Deferred):
        guards = {guard.name for guard in opened.pipeline.guards}
        objecting = {f.stage for f in decision.findings if f.enforced and f.verdict > Verdict.ALLOW}
        return BY_GUARD if objecting & guards else BY_CHECK
    return None


@contextmanager
def served_with_grid(folder: Path, grid_ms: int) -> Iterator[Target]:
    """A copy of the deployment that serves with this grid."""
    with TemporaryDirectory(prefix="side-channels-") as scratch:
        changed = Path(scratch) / "policy" / folder.name
        changed.parent.mkdir()
        changed.mkdir()
        for one in folder.iterdir():
            if one.is_file():
                (changed / one.name).symlink_to(one.resolve())
        (changed / "gateway.yaml").unlink()
        policy = yaml.safe_load((folder / "gateway.yaml").read_text("utf-8"))
        policy.setdefault("serving", {})["release_grid_ms"] = grid_ms
        (changed / "gateway.yaml").write_text(yaml.safe_dump(policy), "utf-8")
        with serve_copy(changed, Path(scratch), frozenset({"infer"})) as server:
            yield server.target


def observe(target: Target, groups: Groups, repetitions: int, seed: int) -> dict[str, tuple[F8, F8, F8]]:
    """What an ordinary caller observes, by group: own clock and statistics, both seconds, and bytes.

    Each is float64[rows, repetitions].
    """
    outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in target.contract.outputs]
    bodies = [
        (name, i, *infer_body(target.contract.inputs, row, {"outputs": outputs}, binary=True))
        for name, rows in groups.items()
        for i, row in enumerate(rows)
    ]
    seen = {
        name: tuple(np.zeros((len(rows), repetitions)) for _ in range(3)) for name, rows in groups.items()
    }
    rng = np.random.default_rng(seed)
    url = f"http://{target.origin.authority}{target.path}"
    with httpx.Client(headers={"x-api-key": target.key or ""}) as client:
        for repetition in range(repetitions):
            for at in rng.permutation(len(bodies)):
                name, i, body, head = bodies[at]
                before_ns = _spent_ns(client, url)
                start_s = time.perf_counter()
                reply = client.post(
                    f"{url}/infer", content=body, headers={"inference-header-content-length": str(head)}
                )
                elapsed_s = time.perf_counter() - start_s
                spent_s = (_spent_ns(client, url) - before_ns) / 1e9
                length = len(reply.content) + sum(len(value) for value in reply.headers.values())
                for array, value in zip(seen[name], (elapsed_s, spent_s, length), strict=True):
                    array[i, repetition] = value
    return {name: (clock, spent, size) for name, (clock, spent, size) in seen.items()}


def _spent_ns(client: httpx.Client, url: str) -> int:
    """Every duration in the statistics of the model, which this caller alone uses."""
    (one,) = client.get(f"{url}/stats").json()["model_stats"]
    return sum(part["ns"] for part in one["inference_stats"].values())


def told(seen: Mapping[str, tuple[F8, F8, F8]], grid_ms: int) -> Iterator[Told]:
    """What each channel tells of each pair. Pairs of which a group has no row are left out."""
    for pair, (first, second) in PAIRS.items():
        a, b = seen[first], seen[second]
        if not (len(a[0]) and len(b[0])):
            continue
        n, m = len(a[0]), len(b[0])
        error = float(np.sqrt((n + m + 1) / (12 * n * m)))
        least = [(x.min(1), y.min(1)) for x, y in zip(a, b, strict=True)]
        columns = ((a[0][:, 0], b[0][:, 0]), *least)
        for channel, (x, y) in zip(CHANNELS, columns, strict=True):
            area = auroc(x, y)
            medians = (float(np.median(a[0]) * 1e3), float(np.median(b[0]) * 1e3))
            yield Told(pair, channel, grid_ms, max(area, 1 - area), error, medians)


def table(found: Sequence[Told]) -> Table:
    grids = sorted({one.grid_ms for one in found})
    made = Table("what is told apart", "by", *(f"grid {ms} ms" if ms else "no grid" for ms in grids))
    for pair in PAIRS:
        for channel in CHANNELS:
            of = [one for one in found if (one.pair, one.channel) == (pair, channel)]
            if of:
                made.add_row(pair, channel, *(f"{one.area:.3f}" for one in of))
        if lines := [one for one in found if (one.pair, one.channel) == (pair, CHANNELS[0])]:
            spans = (f"{one.median_ms[0]:.1f} and {one.median_ms[1]:.1f}" for one in lines)
            made.add_row("", "median milliseconds", *spans, end_section=True)
    made.caption = f"areas under the ROC curve; by chance within {2 * found[0].error:.2f} of 0.5"
    return made


@app.command()
def side_channels(
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/fashion"),
    grid_ms: Annotated[int, typer.Option(min=1, help="The grid that is compared with none.")] = 20,
    rows: Annotated[int, typer.Option(min=10, help="Of each group, at most.")] = 100,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each row.")] = 15,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """What time, statistics and sizes tell an ordinary caller, without a release grid and with one."""
    console, found = output.console(out), list[Told]()
    try:
        with console.status("finding rows"):
            groups = grouped(folder, rows)
        for ms in (0, grid_ms):
            with console.status(f"grid {ms} ms"), served_with_grid(folder, ms) as target:
                found += told(observe(target, groups, repetitions, seed=ms), ms)
    except WrongInput as error:
        output.wrong_input(str(error))
    console.print({name: len(found) for name, found in groups.items()})
    console.print(table(found))
    output.write(out, {"machine": machine(), "told": found})
    sys.exit(1 if any(one.too_much for one in found if one.grid_ms) else 0)


if __name__ == "__main__":
    app(prog_name="python -m bench.side_channels")
