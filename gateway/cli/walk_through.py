"""What the demo sends, scene by scene, and how its rows must end.

A deployment that brings samples has strict scenes: each states the least share of its rows for some outcomes.
Of any other deployment little is known, so its scenes state what must hold for all: every request ends in an
outcome and none is rejected, rows that calibration kept are mostly answered, a broken model serves nothing.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from rich.progress import track

from fallbacks.roles import LABEL, LOWER, PROBABILITIES, UPPER, VALUE
from gateway.access.callers import add_key
from gateway.cli.demo_client import Client, Ending
from gateway.cli.outliers import noise, take
from gateway.cli.samples import Samples
from gateway.cli.scene import LeastShares, Scene
from gateway.core.decision import Tensors
from gateway.deployment.certificate import Certificate
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.rate import RatePolicy
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract
from gateway.protocol.targets import Classes, NoForm, Number

CLEAN_ROWS, OUTLIER_ROWS, BURST_ROWS = 100, 50, 60
BURST_PER_S, BURST_AT_ONCE, BURST_BY_ROW = 5.0, 10.0, 0.2
"""Rows a second that the caller who is too fast may send: at most the first; few enough that only ten pass at
once, and that the limit grows by a fifth of a row while the model answers one."""
MIN_STOPPED_SHARE = {
    "digits": 0.6,
    "perturbed": 0.8,
    "perturbed_small": 0.1,
    "shuffled": 0.3,
    "uniform": 0.95,
    "fractional": 0.9,
}
"""The least share of each family that must be deferred; lower for families that the guards rarely detect."""
MOSTLY = 0.5
"""Of the share of rows that calibration saw answered, so much must be answered: time budgets may be short."""

KEY_WITHIN_S = 1.0
"""A running gateway honours a new key within this time."""


@dataclass(frozen=True, slots=True, eq=False)
class WalkThrough:
    """All scenes of one running deployment. certificate: says what share of rows is answered."""

    client: Client
    deployment: Deployment
    contract: Contract
    certificate: Certificate
    samples: Samples

    @property
    def policy(self) -> Policy:
        return self.deployment.policy

    def scenes(self) -> Iterator[Scene]:
        """One after the other."""
        return self._strict() if self.samples.prepared else self._of_any()

    def _strict(self) -> Iterator[Scene]:
        few, families = first(self.samples.clean, OUTLIER_ROWS), self.samples.families
        odd = noise(self.contract.inputs, few, seed=0)
        yield self._reviewed("a person answers", first(odd, 1))
        yield self._send("clean test rows", first(self.samples.clean, CLEAN_ROWS), {"served": 0.8})
        for name, rows in families.items():
            least = {"deferred": MIN_STOPPED_SHARE.get(name, 0.5)}
            yield self._send(f"outliers: {name}", first(rows, OUTLIER_ROWS), least)
        yield self._send("outliers: noise", odd, {"deferred": 0.95})
        yield from self._burst()
        primary = self.policy.rungs[0].name
        with self.client.isolated([primary]):
            yield self._send(f"{primary} just broken", few, {"degraded": 0.1, "degraded|deferred": 1.0})
        yield self._send(f"{primary} mended", few, {"served": 0.8})

    def _of_any(self) -> Iterator[Scene]:
        few, answered = first(self.samples.clean, OUTLIER_ROWS), self._answered()
        with self.client.isolated([rung.name for rung in self.policy.rungs]):
            yield self._reviewed("all broken: a person answers", first(few, 1))
        title = "rows kept by calibration" if self.samples.kept else "rows of the file"
        yield self._send(title, first(self.samples.clean, CLEAN_ROWS), answered)
        for name, rows in self.samples.families.items():
            yield self._send(f"outliers: {name}", first(rows, OUTLIER_ROWS))
        yield from self._burst()
        primary = self.policy.rungs[0].name
        with self.client.isolated([primary]):
            yield self._send(f"{primary} just broken", few, never=("served",))
        yield self._send(f"{primary} mended", few, answered)

    def _answered(self) -> LeastShares:
        """The least share of the good rows that must be answered; none of rows that calibration never saw."""
        if not self.samples.kept:
            return {}
        found = self.certificate.answered
        share = 1 - self.policy.false_alarm_budget if found is None else found.accepted / max(found.n, 1)
        return {"served|degraded": MOSTLY * share}

    def _send(
        self,
        title: str,
        x: Tensors,
        least_shares: LeastShares | None = None,
        *,
        never: Sequence[str] = (),
        key: str | None = None,
    ) -> Scene:
        """Sends the rows one by one."""
        endings: Counter[Ending] = Counter()
        quiet = not sys.stdout.isatty()
        for i in track(range(rows_of(x)), description=f"{title:34}", transient=True, disable=quiet):
            ending, _ = self.client.ask(take(x, np.array([i])), key)
            endings[ending] += 1
        return Scene(title, endings, least_shares or {}, never)

    def _reviewed(self, title: str, row: Tensors) -> Scene:
        """Sends a row that no model may answer, answers it as a reviewer, and asks again as its caller."""
        review = self.policy.review
        room = review is not None and self.client.room_for_cases(review.quotas.principal.cases)
        ending, url = self.client.ask(row)
        endings = Counter([ending])
        if not room:  # no person can be asked
            return Scene(title, endings, {"refused:unavailable": 1.0})
        if url:
            self.client.answer(url, self.contract.target)
            endings[self.client.reviewed(url)] += 1
        end = "degraded" if has_place_for_answer(self.contract) else "refused:abstained"
        return Scene(title, endings, {"deferred": 0.5, end: 0.5})

    def _burst(self) -> Iterator[Scene]:
        """A caller that is too fast, where the policy has a limit."""
        limits = [guard for guard in self.policy.guards if isinstance(guard, RatePolicy) and guard.enforce]
        if not limits or self.policy.mode != "enforce":
            return
        row = first(self.samples.clean, 1)
        start_s = time.monotonic()
        self.client.ask(row)
        row_s = time.monotonic() - start_s
        per_s = min(BURST_PER_S, BURST_AT_ONCE * limits[0].per_s / limits[0].burst, BURST_BY_ROW / row_s)
        infer = frozenset({"infer"})
        key = add_key(self.deployment.var, "demo-burst", tier="anonymous", per_s=per_s, scopes=infer)
        time.sleep(KEY_WITHIN_S)
        rows = take(row, np.zeros(BURST_ROWS, np.intp))
        yield self._send("a burst of one caller", rows, {"refused:rate_limited": 0.3}, key=key)


def has_place_for_answer(contract: Contract) -> bool:
    """Whether an exposed output can hold what a person answers; if none can, the row is refused."""
    exposed = contract.outputs_by_name
    match contract.target:
        case Classes(values=values):
            return PROBABILITIES in exposed or (LABEL in exposed and bool(values))
        case Number():
            return not exposed.keys().isdisjoint((VALUE, LOWER, UPPER))
        case NoForm():
            return False
        case _:
            assert_never(contract.target)


def first(x: Tensors, n: int) -> Tensors:
    """At most n of the rows."""
    return {name: array[:n] for name, array in x.items()}


def rows_of(x: Tensors) -> int:
    """How many rows there are."""
    return len(next(iter(x.values())))
