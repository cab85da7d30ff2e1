"""What is fitted for a budget in rows, and whether it holds on rows that calibration never saw.

    configs/letters/train.py --data-only --out /tmp/letters
    python -m bench.fitted_prices configs/letters /tmp/letters/var

Calibrates a copy of the deployment with `honest: {rows: 1000, per_s: 2}`, with its review queue and without,
on `calibration.npz`, and prints what it found. Then honest callers of the rows of `heldout_test.npz`, each
with a mixture of classes of its own, are charged by the budget that serves: how many are ever refused a row.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.calibration.calibrate import calibrate
from gateway.calibration.served import with_long_budgets
from gateway.calibration.told_prices import prices_told
from gateway.core.batch import Batch
from gateway.core.decision import Decision, Refused
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import load_guards
from gateway.policy.kinds.information import InformationBudget, told
from guards.fitted_prices import FittedPrices
from guards.gcra import Buckets
from guards.honest_callers import CONCENTRATION
from guards.priced import PricedBudget
from guards.selective import clopper_pearson_upper

ROWS, PER_S, CALLERS = 1000, 2.0, 10_000
REQUEST_ROWS: Final = 20
GUARD = (
    f"  - {{name: extraction, kind: budget, honest: {{rows: {ROWS}, per_s: {PER_S:g}}}, budget_s: 0.002, "
    "on_error: refuse}\n"
)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Accepts:
    async def put(self, cases: Sequence[Any], /) -> Sequence[bool | Refused]:
        return [True] * len(cases)


def copy_of(source: Path, to: Path, *, review: bool) -> Path:
    """A deployment with the budget in front, without a memory of queries, and with its queue or without."""
    folder = to / ("with" if review else "without")
    shutil.copytree(source, folder)
    path = folder / "gateway.yaml"
    text = re.sub(r"  - name: queries .*?on_error: allow\n", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"waivers: \{queries: .*\}\n\n", "", text)
    text = text if review else re.sub(r"review: .*\n", "", text)
    path.write_text(text.replace("guards:\n", f"guards:\n{GUARD}"))
    return folder


async def decisions_on(folder: Path, x: dict[str, Any], *, review: bool) -> tuple[Any, list[Decision]]:
    """The budget that serves, and the decisions on rows."""
    deployment = Deployment.read(folder)
    artifacts = load_artifacts(deployment)
    stores = Stores(_Accepts() if review else None, lambda principal: None, {})
    pipeline = compile_policy(with_long_budgets(deployment.policy), artifacts, stores)
    n, found = len(next(iter(x.values()))), list[Decision]()
    for first in range(0, n, 500):
        part = {name: array[first : first + 500] for name, array in x.items()}
        ids = tuple(map(str, range(len(next(iter(part.values()))))))
        found += await pipeline.decide(Batch(ids, ids, part, (1e12,) * len(ids)))
    artifacts.close()
    budget = next(stage.budget for stage in pipeline.budgets if stage.name == "extraction")
    return budget, found


def throttled(budget: InformationBudget, decisions: list[Decision], y: Any) -> int:
    """How many of `CALLERS` are refused a row: a burst in requests of 20, then 20 rows each time."""
    rng, clock, count = np.random.default_rng(1), _Clock(), 0
    classes = [np.flatnonzero(y == label) for label in np.unique(y)]
    share = np.array([len(of) for of in classes]) / len(y)
    told_of = [told([one], budget.novelty_guards) for one in decisions]
    old, at_admission = budget.budget, budget.budget.prices_of("ada")
    costs = np.array([budget.prices.in_the_end(at_admission, one) for one in told_of])
    priced = PricedBudget(Buckets(), old.limit, old.prices_of, clock)
    for caller in range(CALLERS):
        clock.now += 1e9
        mixture = rng.dirichlet(CONCENTRATION * share)
        of = rng.multinomial(4 * ROWS, mixture)
        sent = np.concatenate([rng.choice(one, m) for one, m in zip(classes, of, strict=True)])
        rng.shuffle(sent)
        for first in range(0, 4 * ROWS, REQUEST_ROWS):
            clock.now += 0.0 if first < ROWS else REQUEST_ROWS / PER_S
            scores = priced.charge(str(caller), REQUEST_ROWS)
            if scores[-1] >= 1:
                count += 1
                break
            paid = costs[sent[first : first + REQUEST_ROWS]].sum()
            priced.settle(str(caller), at_admission * REQUEST_ROWS, float(paid))
    return count


def test_rows(path: Path) -> tuple[dict[str, Any], Any]:
    """The inputs, multiplied by the file's `scale` if it has one, and the classes."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    y, scale = arrays.pop("y"), arrays.pop("scale", None)
    x = arrays if scale is None else {k: np.asarray(a * scale, np.float32) for k, a in arrays.items()}
    return x, y


def main(source: Path, data: Path) -> None:
    x, y = test_rows(data / "heldout_test.npz")
    for review in (True, False):
        with tempfile.TemporaryDirectory() as to:
            folder = copy_of(source, Path(to), review=review)
            began_s = time.perf_counter()
            calibrate(Deployment.read(folder), data / "calibration.npz")
            took_s = time.perf_counter() - began_s
            print(f"{source.name}, {'with' if review else 'without'} review: {took_s:.0f} s")
            budget, decisions = asyncio.run(decisions_on(folder, x, review=review))
            for line in prices_told("extraction", _fitted(folder)).lines():
                print("  ", line)
            over = throttled(budget, decisions, y)
        bound = clopper_pearson_upper(over, CALLERS, 0.05)
        print(f"   callers of test rows that are throttled: {over} of {CALLERS}, at most {bound:.3%}")


def _fitted(folder: Path) -> FittedPrices:

    fitted, _ = load_guards(Deployment.read(folder).policy, folder / "guards.npz")
    return fitted.prices["extraction"]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
