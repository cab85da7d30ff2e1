"""Whether time or size tells a suspect that it got an earlier answer: `python -m bench.replay_times`.

A copy of a deployment with a guard of kind `queries` is served, and one caller searches until it is a
suspect. Then it sends two groups of rows, again and again in random order: rows that are near an earlier one
and get the answer of that, and rows that get their own. The table has the area under the ROC curve of the
best that the caller can make of each channel, as in `bench.side_channels`: 0.5 tells nothing, 1 everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer
from rich.table import Table

from bench import output
from bench.machine import machine
from bench.requests import Target
from bench.roc import auroc
from bench.side_channels import observe, served_with_grid
from gateway.cli.infer_body import infer_body
from gateway.cli.samples import load_samples
from gateway.core.decision import Tensors
from gateway.core.rows import F8
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment

EARLIER, OWN = "an earlier answer", "its own"
CHANNELS = ("own clock, once", "own clock, least of all", "statistics, least of all", "size of the reply")
SEARCH = 60
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Channel:
    """The area under the ROC curve of one channel, and its standard error at 0.5."""

    channel: str
    area: float
    error: float


@app.command()
def replay_times(
    folder: Annotated[Path, typer.Argument(help="A deployment with a guard of kind queries.")],
    rows: Annotated[int, typer.Option(min=10, help="Of each group, at most.")] = 100,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each row.")] = 15,
    grid_ms: Annotated[int, typer.Option(min=0, help="The release grid; 0: none.")] = 0,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """What time, statistics and sizes tell a suspect."""
    console = output.console(out)
    clean = _clean(folder)
    with console.status("asking"), served_with_grid(folder, grid_ms) as target:
        groups = _groups(target, clean, rows)
        seen = observe(target, groups, repetitions, seed=0)
    found = _told(seen[EARLIER], seen[OWN])
    sizes = {name: len(of) for name, of in groups.items()}
    console.print(_table(folder.name, grid_ms, sizes, found))
    output.write(out, {"machine": machine(), "grid_ms": grid_ms, "rows": sizes, "channels": found})


def _clean(folder: Path) -> Tensors:
    artifacts = load_artifacts(Deployment.read(folder))
    try:
        return load_samples(folder, artifacts.contract).clean
    finally:
        artifacts.close()


def _groups(target: Target, clean: Tensors, most: int) -> dict[str, list[Tensors]]:
    """Makes the caller a suspect; then rows of both groups, as far as they are served."""
    n = len(next(iter(clean.values())))
    rng = np.random.default_rng(0)
    with httpx.Client(headers={"x-api-key": target.key or ""}) as client:
        for _ in range(SEARCH):
            _ask(client, target, _near(_row(clean, n - 1), rng))
        earlier: list[Tensors] = []
        for i in range(n // 2):
            base, near = _row(clean, i), _near(_row(clean, i), rng)
            first, second = _ask(client, target, base), _ask(client, target, near)
            if first is not None and first == second and len(earlier) < most:
                earlier.append(near)
        own = [
            _row(clean, i) for i in range(n // 2, n - 1) if _ask(client, target, _row(clean, i)) is not None
        ]
    return {EARLIER: earlier, OWN: own[: len(earlier)]}


def _row(clean: Tensors, i: int) -> Tensors:
    return {name: column[i : i + 1] for name, column in clean.items()}


def _near(row: Tensors, rng: np.random.Generator) -> Tensors:
    """A row of numbers one step, or a little noise, away."""
    (name, x), *_ = row.items()
    moved = x.copy()
    if np.array_equal(x, np.rint(x)):
        at = rng.integers(x.size)
        moved.flat[at] += -1 if moved.flat[at] > 0 else 1
    else:
        moved = np.clip(x + rng.normal(0, 0.01, x.shape), x.min(), x.max()).astype(x.dtype)
    return {**row, name: moved}


def _ask(client: httpx.Client, target: Target, row: Tensors) -> bytes | None:
    """The answer's bytes; None if the row was not served."""
    outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in target.contract.outputs]
    body, head = infer_body(target.contract.inputs, row, {"outputs": outputs}, binary=True)
    url = f"http://{target.origin.authority}{target.path}/infer"
    reply = client.post(url, content=body, headers={"inference-header-content-length": str(head)})
    if reply.headers.get("x-failsafe-outcome") != "served":
        return None
    return reply.content[int(reply.headers["inference-header-content-length"]) :]


def _told(earlier: tuple[F8, F8, F8], own: tuple[F8, F8, F8]) -> list[Channel]:
    n, m = len(earlier[0]), len(own[0])
    error = float(np.sqrt((n + m + 1) / (12 * n * m)))
    least = [(a.min(1), b.min(1)) for a, b in zip(earlier, own, strict=True)]
    columns = ((earlier[0][:, 0], own[0][:, 0]), *least)
    areas = [auroc(a, b) for a, b in columns]
    return [Channel(what, max(area, 1 - area), error) for what, area in zip(CHANNELS, areas, strict=True)]


def _table(name: str, grid_ms: int, sizes: dict[str, int], found: list[Channel]) -> Table:
    grid = f"a grid of {grid_ms} ms" if grid_ms else "no grid"
    table = Table("by", "area under the ROC curve", title=f"{name}, {grid}: an earlier answer or its own")
    for one in found:
        table.add_row(one.channel, f"{one.area:.3f}")
    table.caption = (
        f"{sizes[EARLIER]} and {sizes[OWN]} rows; by chance within {2 * found[0].error:.2f} of 0.5"
    )
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench.replay_times")
