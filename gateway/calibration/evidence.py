"""What calibration saw: the judged rows, their scores and where each of them ended. The report shows it.

The judged rows are those of the folds `cut` and `risk`: nothing was fitted on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gateway.core.rows import F8, Mask
from gateway.policy.kinds.rows import CalibrationRows


@dataclass(frozen=True, slots=True, eq=False)
class GuardEvidence:
    """One certified guard over n judged rows.

    scores: float64[n] nats; cut: on the same scale, from which a row gets `verdict`. input_only_*: the same
    for the form that judges while the primary is gone, None without one.
    """

    name: str
    kind: str
    verdict: str
    enforced: bool
    scores: F8
    cut: float
    input_only_scores: F8 | None
    input_only_cut: float | None


@dataclass(frozen=True, slots=True, eq=False)
class RungEvidence:
    """One rung over n judged rows.

    probabilities: float[n, k], None where the model has no such output. suspicion, cut: of its check, None
    without one; a row passes below the cut. enforced: whether the check acts.
    """

    name: str
    probabilities: NDArray[Any] | None
    suspicion: F8 | None
    cut: float | None
    enforced: bool


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything about the n judged rows.

    rows: inputs, labels and answers. tail: other held-out rows, disjoint from them, for a temperature.
    joint: float64[n], the risk that the false-alarm cut is set on, None without certified guards. stopped:
    bool[n], rows that the enforced certified guards stop. by: int64[n], the rung that answers while every
    model works, -1 where none does.
    """

    rows: CalibrationRows
    tail: CalibrationRows
    guards: tuple[GuardEvidence, ...]
    rungs: tuple[RungEvidence, ...]
    joint: F8 | None
    stopped: Mask
    by: NDArray[Any]
