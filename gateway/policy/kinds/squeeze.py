"""`kind: squeeze`: does the answer change when the picture is simplified? (`guards/squeeze.py`)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fallbacks.predictor import ModelTensor
from gateway.core.batch import Batch
from gateway.core.decision import Reason, Verdict
from gateway.core.rows import F8
from gateway.core.stage import Guard
from gateway.policy.fields import VERDICT_OF, AnyVerdict, BudgetShare, CertifiedCuts, Name, Seconds, Strict
from gateway.policy.kinds.kind import FieldProblem, GuardColumns
from gateway.policy.kinds.rows import FittingFolds
from gateway.policy.observation import ObservePolicy
from guards import arrays
from guards.arrays import Arrays
from guards.row_view import is_picture
from guards.rows import Signals
from guards.squeeze import Squeeze, SqueezeGuard, squeezed_inputs

BITS = 4
COLUMNS = 3
"""The number of results of `Squeeze.first_pass`."""


class SqueezePolicy(Strict):
    """Does the answer change when the image is squeezed? Cut by the certificate."""

    certified: ClassVar[Literal[True]] = True
    reason: ClassVar[Reason] = Reason.ABSTAINED
    on_canary: ClassVar[bool] = False  # it may ask the model once more
    unbound: ClassVar[frozenset[str]] = frozenset(
        {"budget_s", "observe"}
    )  # on_error judges rows without an answer
    example: ClassVar[str] = (
        "{name: perturbation, kind: squeeze, cuts: {defer: certified}, budget_s: 0.1, on_error: degrade}"
    )

    name: Name
    """The stage's name in metrics, audit log and certificate. Unique among guards, rungs and checks."""
    kind: Literal["squeeze"]
    """Selects this guard."""
    cuts: CertifiedCuts
    """What a row gets whose score reaches the certified cut: `{degrade: certified}`, `{defer: certified}` or
    `{refuse: certified}`."""
    share: BudgetShare = 1.0
    """The part of the false-alarm budget that this guard may spend beside the others: alone it stops about
    `share` times as many good rows as with 1. All guards together keep to the budget, whatever the shares
    are."""
    budget_s: Seconds
    """Seconds that the guard may take for one batch. It asks the primary once more for about a tenth of good
    rows, so allow it about as long as the primary. At the limit `on_error` applies."""
    on_error: AnyVerdict
    """What a row gets when the guard raises, exceeds its budget or returns no number: `allow` fails open,
    `refuse` fails closed. Required, never inferred. It applies as well to rows for which the primary gives no
    answer: this guard has no input-only form."""
    enforce: bool = True
    """Whether its verdicts act. `false`: they are only measured and recorded, and the rows that it would have
    stopped pass."""
    observe: ObservePolicy | None = None
    """Until when it is only measured: `{until: 2027-01-31}`. From then on it is enforced. The promises of the
    certificate do not hold meanwhile; no new calibration is needed."""

    @property
    def verdict(self) -> Verdict:
        return VERDICT_OF[next(iter(self.cuts))]

    @property
    def without_answer(self) -> Verdict:
        return VERDICT_OF[self.on_error]

    def contradictions(self) -> Iterable[FieldProblem]:
        return ()

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        picture = next(filter(is_picture, inputs), None)
        if picture is None or picture.dtype != np.float32:
            what = "no input is one" if picture is None else f"{picture.name!r} is {picture.dtype}"
            yield ("kind",), f"squeezes a picture in FP32, and {what}; leave it out"
            return
        lacking = {"probabilities", "features"} - {spec.name for spec in outputs}
        if lacking:
            yield ("kind",), f"reads the output {min(lacking)!r}, which the first rung lacks; leave it out"

    def reviewer_sentence(self, form: str) -> str:
        return "the answer changes when the image is simplified"

    def fit(self, folds: FittingFolds) -> FittedSqueeze:
        fit, tail = folds.fit, folds.tail
        h, tail_h = fit.signals.h, tail.signals.h
        if h is None or tail_h is None:
            raise ValueError(f"{self.name}: the primary has no output named features")
        p = tail.answers[tail.primary]["probabilities"]
        assert tail.view.picture is not None, "unreadable otherwise"
        squeezed = tail.ask_primary(squeezed_inputs(tail.x, tail.view.picture, BITS))["probabilities"]
        return FittedSqueeze(
            self.name, Squeeze.fit(h, fit.y, tail_h, p, squeezed, seed=folds.seed, bits=BITS)
        )

    def load(self, packed: Arrays) -> FittedSqueeze:
        return FittedSqueeze(self.name, arrays.unpack(Squeeze, self.name, packed))


@dataclass(frozen=True, slots=True, eq=False)
class FittedSqueeze:
    """The fitted state of one guard: in `guards.npz` under its name."""

    name: str
    squeeze: Squeeze

    @property
    def input_only(self) -> None:
        return None

    def pack(self) -> Arrays:
        return arrays.pack(self.name, self.squeeze)

    def input_columns(self, s: Signals) -> Sequence[F8]:
        return ()

    def answer_columns(
        self, s: Signals, answer: Mapping[str, Any], input_scores: Sequence[Any]
    ) -> Sequence[F8]:
        return self.squeeze.first_pass(Signals(s.x, h=s.h, z=answer.get("probabilities")))

    def guard(self, columns: GuardColumns) -> Guard[Batch]:
        async def first_pass(batch: Batch) -> F8:
            found: F8 = (await columns.read(batch))[:, columns.first : columns.first + COLUMNS]
            return found

        assert columns.picture is not None, "unreadable otherwise"
        return SqueezeGuard(self.squeeze, first_pass, columns.model, columns.picture)
