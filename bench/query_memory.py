"""The memory of queries: what it costs and finds, on `configs/fashion`: `python -m bench.query_memory`.

Cost: sketch, look-up and insertion of honest rows, in microseconds a row, with a full ring and a table of
150,000 queries; the least and the median of many short rounds, since other work on the machine only adds.
Coverage: the share of an attack's queries that nearly repeat an earlier one, and the first that does, for one
key, and for a new key each query. Honest: the share of other honest rows that match.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from bench import output
from bench.machine import machine
from bench.query_walks import F4, FASHION, WALKS, Target
from fallbacks.onnx import OnnxModel
from guards.coarse import Coarse
from guards.near_cut import NearCut, least_shared, near_cut
from guards.near_pairs import NEAR, Cuts
from guards.query_memory import QueryMemory
from guards.query_rings import RING
from guards.query_sketch import Sketcher
from guards.sequence import Bets

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

SALT = b"the salt of the bench, no secret"
SHARE, DELTA, ALPHA = 0.05, 0.05, 1e-3
FILL, ROUNDS, CALLS = 300, 400, 4
SIZES = (1, 32)


@dataclass(frozen=True, slots=True)
class Cost:
    """us a row: the least and the median round."""

    stage: str
    rows: int
    least_us: float
    median_us: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """own, other: shares of queries; first: the first that is near; alarm: the first at 1 / alpha."""

    walk: str
    own: float
    other: float
    first: float
    alarm: float


@dataclass(frozen=True, slots=True)
class QueryResults:
    machine: dict[str, str]
    costs: list[Cost]
    cut: NearCut
    coverage: list[Coverage]


@app.command()
def query_memory(
    queries: Annotated[int, typer.Option(help="Of each attack.")] = 300,
    attacks: Annotated[int, typer.Option(help="Pictures that are attacked by each; 0: costs alone.")] = 10,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures cost, coverage and honest matches."""
    console = output.console(out)
    with np.load(FASHION / "samples.npz") as samples:
        x = samples["image"].astype(np.float32) * samples["scale"]
    sketcher = Sketcher(Coarse.fit(x), SALT)
    sketches = sketcher.sketch(x)
    shared = least_shared(sketches, (RING,), SHARE, seed=0)
    cut = near_cut(sketches, RING, SHARE, DELTA, seed=0, least_shared=shared)
    cuts = Cuts(own=cut.cut, any=max(0, cut.cut // 2), shared=shared)
    console.print(f"{cut}, {shared} shared fingerprints")
    coverage = [_coverage(name, x, sketcher, cuts, queries, attacks) for name in WALKS if attacks]
    shown = Table("attack", "near, one key", "near, many keys", "first near query", "alarm at query")
    for found in coverage:
        shown.add_row(
            found.walk, f"{found.own:.0%}", f"{found.other:.0%}", f"{found.first:g}", f"{found.alarm:g}"
        )
    console.print(shown)
    costs = _costs(x, sketcher, cuts)
    shown = Table("stage", "rows", "least us a row", "median")
    for cost in costs:
        shown.add_row(cost.stage, str(cost.rows), f"{cost.least_us:.1f}", f"{cost.median_us:.1f}")
    console.print(shown)
    output.write(out, QueryResults(machine(), costs, cut, coverage))


def _coverage(name: str, x: F4, sketcher: Sketcher, cuts: Cuts, queries: int, attacks: int) -> Coverage:
    rng, owns, others, firsts, alarms = np.random.default_rng(0), [], [], [], []
    model = OnnxModel.load(FASHION / "primary.onnx")
    for i in range(attacks):
        sent = WALKS[name](Target(model), x[i], _of_another_class(model, x, i), queries, rng)
        own = _near(sketcher, cuts, sent, ["thief"] * len(sent))
        owns.append(own[1:].mean())
        others.append(_near(sketcher, cuts, sent, [f"key {j}" for j in range(len(sent))])[1:].mean())
        firsts.append(int(own.argmax()) + 1 if own.any() else len(sent))
        alarms.append(_alarm(own))
    return Coverage(name, *(float(median(some)) for some in (owns, others, firsts, alarms)))


def _of_another_class(model: OnnxModel, x: F4, i: int) -> F4:
    labels = model.run({"image": x})["probabilities"].argmax(1)
    other: F4 = x[int(np.flatnonzero(labels != labels[i])[i])]
    return other


def _near(
    sketcher: Sketcher, cuts: Cuts, sent: F4, principals: list[str]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each query, sent alone and in order, is near an earlier one."""
    memory = QueryMemory(cuts, SALT, sketcher.has_prints)
    near = np.zeros(len(sent), bool)
    for j, principal in enumerate(principals):
        rows = memory.rows(sketcher.sketch(sent[j : j + 1]), [principal])
        near[j] = memory.look_up(rows).kinds[0] == NEAR
        memory.insert(rows)
    return near


def _alarm(near: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """The query with which the evidence reaches 1 / alpha; infinite for none."""
    bets = Bets(SHARE, ALPHA)
    evidence = bets.new()
    for j, hit in enumerate(near.tolist()):
        evidence = bets.after(evidence, [hit])
        if bets.alarms(evidence):
            return j + 1
    return float("inf")


def _costs(x: F4, sketcher: Sketcher, cuts: Cuts) -> list[Cost]:
    memory, rng, costs = QueryMemory(cuts, SALT, sketcher.has_prints), np.random.default_rng(0), list[Cost]()
    for i in range(FILL):
        moved = np.roll(x[:500, :, :, :: rng.choice([-1, 1])], tuple(rng.integers(-9, 9, 2)), (2, 3))
        memory.insert(memory.rows(sketcher.sketch(moved), [f"p{i % 7}"] * len(moved)))
    for n in SIZES:
        at = iter(np.tile(np.arange(500, 1000 - n, n), 10_000).tolist())
        costs += _stages(x, sketcher, memory, n, lambda: next(at))  # noqa: B023 (called at once)
    return costs


def _stages(x: F4, sketcher: Sketcher, memory: QueryMemory, n: int, at: Callable[[], int]) -> list[Cost]:
    who = ["p1"] * n
    sketches = sketcher.sketch(x[500 : 500 + n])
    rows = memory.rows(sketches, who)

    def all_three() -> None:
        i = at()
        some = memory.rows(sketcher.sketch(x[i : i + n]), who)
        memory.look_up(some, memory.insert(some))

    stages = {
        "sketch": lambda: sketcher.sketch(x[500 : 500 + n]),
        "rows": lambda: memory.rows(sketches, who),
        "look-up": lambda: memory.look_up(rows),
        "insertion": lambda: memory.insert(rows),
        "all, other rows each time": all_three,
    }
    return [Cost(name, n, *_us(run, n)) for name, run in stages.items()]


def _us(run: Callable[[], object], n: int) -> tuple[float, float]:
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(CALLS):
            run()
        rounds.append((time.perf_counter() - begun) / (CALLS * n) * 1e6)
    return min(rounds), median(rounds)


if __name__ == "__main__":
    app()
