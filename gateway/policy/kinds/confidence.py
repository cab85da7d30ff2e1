"""`kind: confidence`: is the rung's answer confident enough? (`guards/confidence.py`)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from fallbacks.predictor import ModelTensor
from gateway.core.batch import Answered
from gateway.core.decision import Reason, Tensors
from gateway.core.rows import F8
from gateway.core.stage import Guard
from gateway.policy.fields import CheckVerdict, Name, Seconds, Share, Strict
from gateway.policy.kinds.kind import FieldProblem
from guards.confidence import Confidence, uncertainty

OUTPUT = Confidence().output


class ConfidencePolicy(Strict):
    """Is this rung sure enough? Certifies that at most `selective_error` of what it answers is wrong."""

    reason: ClassVar[Reason] = Reason.ABSTAINED
    objection: ClassVar[str] = "not sure enough"
    unbound: ClassVar[frozenset[str]] = frozenset({"budget_s", "on_error"})
    task: ClassVar[str] = "classification"
    most: ClassVar[float] = 1.0
    example: ClassVar[str] = (
        "{name: confidence, kind: confidence, selective_error: 0.05, budget_s: 0.01, on_error: degrade}"
    )

    name: Name
    """The check's name in metrics and audit log. Unique among guards, rungs and checks."""
    kind: Literal["confidence"]
    """Selects this check."""
    selective_error: Share
    """The share of this rung's answers that may be wrong. `gateway calibrate` finds the confidence from which
    that is certified."""
    budget_s: Seconds
    """Seconds that the check may take for one batch. At the limit `on_error` applies."""
    on_error: CheckVerdict
    """What an answer gets when the check raises, exceeds its budget or returns no number: `allow` lets it
    leave, `degrade` asks the next rung. Required, never inferred."""
    enforce: bool = True
    """Whether its verdicts act. `false`: answers that it would stop leave all the same."""

    def unreadable(self, outputs: Sequence[ModelTensor]) -> Iterable[FieldProblem]:
        read = next((spec for spec in outputs if spec.name == OUTPUT), None)
        if read is None or read.dtype.kind != "f" or len(read.shape) != 2:
            named = ", ".join(f"{spec.name} ({spec.dtype}, {len(spec.shape)} axes)" for spec in outputs)
            what = f"reads {OUTPUT!r}, a float for each class, and the model has {named}"
            yield (), what + "; map the name of such an output (names), or leave the check out"

    def suspicion(self, answer: Tensors) -> F8:
        return uncertainty(answer[OUTPUT])

    def guard(self) -> Guard[Answered]:
        return Confidence()
