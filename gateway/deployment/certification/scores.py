"""What the guards and checks gave to the rows of the three folds that certify, as calibration keeps it.

Nothing here needs a model. `scores.npz` holds it (`scores_file.py`), so that a start can recompute every cut,
count and bound of the certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.rows import F8
from gateway.deployment.certification.paths import RungIndex, RungRows
from gateway.policy.conditions import Conditions
from gateway.policy.schema import InputSlices, Policy

SliceNames: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class FoldScores:
    """n rows of one fold.

    rows: n; full: float64[n] nats of every certified guard by name; input_only: of those with such a form;
    slices: str[n], the slice of each row where the policy asks for slices; rungs: in the order of the policy.
    """

    rows: int
    full: Mapping[str, F8]
    input_only: Mapping[str, F8]
    slices: SliceNames | None
    rungs: tuple[RungRows, ...]

    def __post_init__(self) -> None:
        arrays: list[NDArray[Any]] = [*self.full.values(), *self.input_only.values()]
        arrays += [one for rung in self.rungs for one in (rung.suspicion, rung.wrong) if one is not None]
        arrays += [] if self.slices is None else [self.slices]
        if any(one.shape != (self.rows,) for one in arrays):
            raise ValueError("the scores of a fold are not one for each of its rows")

    def __len__(self) -> int:
        return self.rows

    def slices_without_answer(self, policy: Policy) -> SliceNames | None:
        """The slices that can be told while the primary is gone: those by an input."""
        return self.slices if isinstance(policy.false_alarm_by, InputSlices) else None


@dataclass(frozen=True, slots=True, eq=False)
class CertifyingScores:
    """The three folds whose rows set or test a cut.

    answered_by: which rung of the compiled pipeline answers each row of `risk`, int64[n], while the first
    rungs are gone, one array for each number of them; absolute_errors: float64[n] of `risk` for each rung,
    None unless the policy asks for `absolute_error`; fitted: what the guards give to the kept rows
    (`fitted_scores.py`); conditions: of the policy that was calibrated.
    """

    tail: FoldScores
    cut: FoldScores
    risk: FoldScores
    answered_by: tuple[RungIndex, ...]
    absolute_errors: tuple[F8, ...] | None
    fitted: Mapping[str, F8]
    conditions: Conditions
