"""`kind: ood`: is this input like those that the model was calibrated on? (`guards/ood.py`)

Fitted twice where `without_features: input_only`: once with every detector, and once with those that need the
input alone, which judge the rows for which the model gave no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fallbacks.predictor import ModelTensor
from gateway.core.batch import Batch
from gateway.core.decision import Reason, Verdict
from gateway.core.rows import F8
from gateway.core.stage import Guard
from gateway.policy.fields import VERDICT_OF, AnyVerdict, BudgetShare, CertifiedCuts, Name, Seconds, Strict
from gateway.policy.kinds.column import Column
from gateway.policy.kinds.kind import FieldProblem, GuardColumns
from gateway.policy.kinds.rows import FittingFolds
from gateway.policy.observation import ObservePolicy
from guards import arrays
from guards.arrays import Arrays
from guards.ood import Ood
from guards.row_view import is_picture
from guards.rows import Signals

INPUT_ONLY_DETECTORS = ("noise", "raw")
READS = {
    "gen": ("logits",),
    "fdbd": ("features", "logits"),
    "rmd": ("features",),
    "residual": ("features",),
    "knn": ("features",),
}
"""The outputs of the first rung that each detector reads."""


class OodPolicy(Strict):
    """Is this input like those the model was calibrated on? Cut by the certificate."""

    certified: ClassVar[Literal[True]] = True
    reason: ClassVar[Reason] = Reason.ABSTAINED
    on_canary: ClassVar[bool] = True
    unbound: ClassVar[frozenset[str]] = frozenset({"budget_s", "on_error", "observe"})
    example: ClassVar[str] = (
        "{name: ood, kind: ood, detectors: [rmd, knn, raw], cuts: {defer: certified}, budget_s: 0.05,"
        " on_error: defer}"
    )

    name: Name
    """The stage's name in metrics, audit log and certificate. Unique among guards, rungs and checks."""
    kind: Literal["ood"]
    """Selects this guard."""
    detectors: Annotated[
        list[Literal["gen", "fdbd", "rmd", "residual", "knn", "noise", "raw"]], Field(min_length=1)
    ]
    """The scores that are joined into one, each at most once. `gen` reads logits, `fdbd` features and logits,
    `rmd`, `residual` and `knn` features, `noise` an image, `raw` an image and all other inputs, as columns of
    one table."""
    cuts: CertifiedCuts
    """What a row gets whose score reaches the certified cut: `{degrade: certified}`, `{defer: certified}` or
    `{refuse: certified}`."""
    without_features: Literal["input_only", "defer"] = "input_only"
    """How a row is judged for which the primary gives no answer: by the detectors that read the input alone,
    with a certified cut of their own (`input_only`; needs `raw` or `noise`), or not at all (`defer`: it goes
    to review)."""
    share: BudgetShare = 1.0
    """The part of the false-alarm budget that this guard may spend beside the others: alone it stops about
    `share` times as many good rows as with 1. All guards together keep to the budget, whatever the shares
    are."""
    budget_s: Seconds
    """Seconds that the guard may take for one batch, the primary's forward pass not included. At the limit
    `on_error` applies."""
    on_error: AnyVerdict
    """What a row gets when the guard raises, exceeds its budget or returns no number: `allow` fails open,
    `refuse` fails closed. Required, never inferred. The input-only form falls back to it as well."""
    enforce: bool = True
    """Whether its verdicts act. `false`: they are only measured and recorded, and the rows that it would have
    stopped pass."""
    observe: ObservePolicy | None = None
    """Until when it is only measured: `{until: 2027-01-31}`. From then on it is enforced. The promises of the
    certificate do not hold meanwhile; no new calibration is needed."""

    @property
    def input_only(self) -> list[str]:
        """The detectors that need the input alone."""
        return [name for name in self.detectors if name in INPUT_ONLY_DETECTORS]

    @property
    def verdict(self) -> Verdict:
        return VERDICT_OF[next(iter(self.cuts))]

    @property
    def without_answer(self) -> Verdict:
        return Verdict.DEFER

    def contradictions(self) -> Iterable[FieldProblem]:
        repeated = [name for name in dict.fromkeys(self.detectors) if self.detectors.count(name) > 1]
        if repeated:
            yield ("detectors",), f"names {repeated[0]} twice"
        if self.without_features == "input_only" and not self.input_only:
            yield ("detectors",), "needs raw or noise, or without_features: defer"

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        has = {spec.name for spec in outputs}
        for name in self.detectors:
            lacking = [output for output in READS.get(name, ()) if output not in has]
            if lacking:
                what = (
                    f"{name} reads the output {lacking[0]!r}, and the first rung has {', '.join(sorted(has))}"
                )
                yield ("detectors",), what + "; leave it out, or map a name to it (names)"
        if "noise" in self.detectors and not any(map(is_picture, inputs)):
            yield ("detectors",), "noise reads a picture, and no input is one; leave it out"

    def reviewer_sentence(self, form: str) -> str:
        how = " (judged by the input alone: the model was gone)" if form == "input_only" else ""
        return f"it does not look like the data this model was calibrated on{how}"

    def fit(self, folds: FittingFolds) -> FittedOod:
        full = self._fit(self.detectors, folds)
        alone = self._fit(self.input_only, folds) if self.without_features == "input_only" else None
        return FittedOod(self.name, full, None if alone is None else InputOnlyOod(alone))

    def _fit(self, detectors: Sequence[str], folds: FittingFolds) -> Ood:
        return Ood.fit(detectors, folds.fit.signals, folds.fit.y, folds.tail.signals, folds.seed)

    def load(self, packed: Arrays) -> FittedOod:
        full = arrays.unpack(Ood, self.name, packed)
        if self.without_features == "defer":
            return FittedOod(self.name, full, None)
        return FittedOod(self.name, full, InputOnlyOod(arrays.unpack(Ood, _input_only(self.name), packed)))


@dataclass(frozen=True, slots=True, eq=False)
class InputOnlyOod:
    """The detectors that need the input alone, with tails of their own."""

    ood: Ood

    def score(self, s: Signals) -> F8:
        return self.ood.score(Signals(s.x, s.t))


@dataclass(frozen=True, slots=True, eq=False)
class FittedOod:
    """The fitted state of one guard: in `guards.npz` under its name, and under `NAME.input_only`."""

    name: str
    full: Ood
    input_only: InputOnlyOod | None

    def pack(self) -> Arrays:
        packed = arrays.pack(self.name, self.full)
        if self.input_only is not None:
            packed |= arrays.pack(_input_only(self.name), self.input_only.ood)
        return packed

    def input_columns(self, s: Signals) -> Sequence[F8]:
        """The scores of the detectors that need the input alone."""
        return [one.score(s) for one in self.full.detectors if not one.needs_features]

    def answer_columns(
        self, s: Signals, answer: Mapping[str, Any], input_scores: Sequence[Any]
    ) -> Sequence[F8]:
        """One column: the rarity of all detectors' scores together."""
        known = iter(input_scores)
        scores = [one.score(s) if one.needs_features else next(known) for one in self.full.detectors]
        return [self.full.composite.rarity(scores)]

    def guard(self, columns: GuardColumns) -> Guard[Batch]:
        return Column(columns.read, columns.first)


def _input_only(name: str) -> str:
    return f"{name}.input_only"


def novelty_guards(guards: Iterable[object]) -> tuple[str, ...]:
    """The names of the guards of a policy whose scores say how new a row is: those of this kind."""
    return tuple(guard.name for guard in guards if isinstance(guard, OodPolicy))
