"""`kind: queries`: does a caller search, with rows that nearly repeat earlier ones?

What is near: `guards/query_memory.py`; the evidence: `guards/sequence.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from fallbacks.predictor import ModelTensor
from gateway.core.decision import Reason, Verdict
from gateway.policy.fields import VERDICT_OF, AnyVerdict, Name, Seconds, Share, Strict
from gateway.policy.kinds.kind import FieldProblem
from gateway.policy.kinds.rows import CalibrationRows, FittingFolds
from gateway.policy.observation import ObservePolicy
from guards import arrays
from guards.arrays import Arrays
from guards.coarse import F4
from guards.near_fit import NearCuts, NearFit
from guards.row_view import PICTURE, TABLE

Step: TypeAlias = Literal["replay", "coarsen", "degrade", "defer", "refuse"]
STEPS: tuple[Step, ...] = ("replay", "coarsen", "degrade", "defer", "refuse")
"""What a suspect gets, from the mildest to the most severe."""
DELTA = 0.05
SALT_OF_A_TRIAL = bytes(32)
"""Calibration tries whether the rows suffice. What serves has a secret salt of its own."""


class QueriesPolicy(Strict):
    """Does a caller search, with rows that nearly repeat earlier ones? Cut by evidence.

    The evidence against a caller is an e-value: an honest caller's ever reaches X with a probability of at
    most 1 / X, over all its rows. Callers whose rows nearly repeat each other's again and again count as one
    suspect.
    """

    certified: ClassVar[Literal[False]] = False
    reason: ClassVar[Reason] = Reason.RATE_LIMITED
    on_canary: ClassVar[bool] = False  # it would remember the row
    unbound: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "kind",
            "cuts",
            "honest_share",
            "retained",
            "most_margin",
            "budget_s",
            "on_error",
            "enforce",
            "observe",
        }
    )  # all fields: the cuts of near rows are certified anew at each start
    example: ClassVar[str] = (
        "{name: queries, kind: queries, cuts: {replay: 1000, coarsen: 100000}, budget_s: 0.02, "
        "on_error: allow}"
    )

    name: Name
    """The stage's name in metrics, audit log and `guards.npz`. Unique among guards, rungs and checks."""
    kind: Literal["queries"]
    """Selects this guard."""
    cuts: Annotated[
        dict[Step, Annotated[float, Field(ge=10, le=1e15)]],
        Field(min_length=1),
    ] = {"replay": 1000.0, "coarsen": 1e5}
    """The evidence from which a suspect gets less, of each step at least that of the one before. `replay`: a
    row that nearly repeats an earlier query gets that query's answer, unchanged. `coarsen`: labels alone.
    `degrade`, `defer`, `refuse`: as of every guard. Honest callers reach X with a probability of at most
    1 / X."""
    honest_share: Share = 0.05
    """The share of honest rows that may be near an earlier query. The smaller it is, the nearer rows have to
    be, and the more rows calibration needs."""
    retained: Annotated[int, Field(ge=2**12, le=2**22)] = 2**14
    """Queries that each replica remembers, of all callers: a power of two. The more there are, the nearer
    rows have to be, and the more rows calibration needs."""
    most_margin: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only rows near a query of at most this margin count as evidence: the difference of its two largest
    probabilities. 1: all. Callers that send slowly changing pictures may need less."""
    budget_s: Seconds
    """Seconds that the guard may take for one batch. At the limit `on_error` applies."""
    on_error: AnyVerdict
    """What a row gets when the guard raises, exceeds its budget or returns no number: `allow` fails open,
    `refuse` fails closed. Required, never inferred."""
    enforce: bool = True
    """Whether it acts. `false`: what it would have done is only recorded."""
    observe: ObservePolicy | None = None
    """Until when what it would do is only recorded: `{until: 2027-01-31}`. From then on it acts."""

    @property
    def verdicts(self) -> dict[Verdict, float]:
        """The cuts that are verdicts."""
        return {VERDICT_OF[step]: cut for step, cut in self.cuts.items() if step in VERDICT_OF}

    def contradictions(self) -> Iterable[FieldProblem]:
        if self.retained & (self.retained - 1):
            yield ("retained",), f"is {self.retained}, expected a power of two"
        for milder, step in pairwise(one for one in STEPS if one in self.cuts):
            if self.cuts[step] < self.cuts[milder]:
                yield ("cuts", step), f"is {self.cuts[step]:g}, below that of {milder}, which is milder"

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        return ()

    def promise(self) -> str:
        first = min(self.cuts.values())
        return f"At most {1 / first:.2g} of honest callers are ever taken for searching, over all their rows."

    def reviewer_sentence(self, form: str) -> str:
        return "its caller nearly repeats earlier queries, as a search for the model's boundary does"

    def fit(self, folds: FittingFolds) -> FittedQueries:
        """Raises ValueError if the rows cannot certify the cuts, with how many could."""
        rows = np.concatenate([_read(folds.fit), _read(folds.tail)])
        fitted = FittedQueries(self.name, NearFit.fit(rows))
        self.near_cuts(fitted, SALT_OF_A_TRIAL)
        return fitted

    def load(self, packed: Arrays) -> FittedQueries:
        return FittedQueries(self.name, arrays.unpack(NearFit, self.name, packed))

    def near_cuts(self, fitted: FittedQueries, salt: bytes) -> NearCuts:
        """What is near under this salt. Raises as `fit`. Cost: half a second."""
        return fitted.near.cuts(salt, self.retained, self.honest_share, DELTA)


@dataclass(frozen=True, slots=True, eq=False)
class FittedQueries:
    """The fitted state: in `guards.npz` under the guard's name."""

    name: str
    near: NearFit

    def pack(self) -> Arrays:
        return arrays.pack(self.name, self.near)


def _read(rows: CalibrationRows) -> F4:
    """What the guard reads of rows: the picture, or the table where there is none."""
    found = rows.view.arrays(rows.x)
    if not found:
        raise ValueError("no input can be read as a picture or a table; leave the guard out")
    return found[PICTURE if PICTURE in found else TABLE]
