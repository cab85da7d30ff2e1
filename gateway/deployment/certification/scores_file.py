"""`scores.npz`: the scores that the certificate's numbers are computed from, some 50 bytes a held-out row.

It holds no input and no answer: scores of guards and checks, whether an answer was wrong, and the names of
slices, which the certificate holds as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.certification.alarms import certified_guards
from gateway.deployment.certification.paths import NO_RUNG, RungRows
from gateway.deployment.certification.scores import CertifyingScores, FoldScores
from gateway.policy.conditions import Conditions
from gateway.policy.schema import Policy
from guards import arrays
from guards.arrays import Arrays

FOLDS, FITTED, CONDITIONS = ("tail", "cut", "risk"), "fitted.", "conditions"


def save_scores(path: Path, policy: Policy, scores: CertifyingScores) -> None:
    """Writes `scores.npz`. Raises OSError."""
    packed: Arrays = {}
    for fold, one in zip(FOLDS, (scores.tail, scores.cut, scores.risk), strict=True):
        packed |= _packed_fold(fold, policy, one)
    packed |= {f"risk.answered_by/{d}": by.astype(np.int8) for d, by in enumerate(scores.answered_by)}
    for rung, errors in zip(policy.rungs, scores.absolute_errors or (), strict=False):
        packed[f"risk.absolute_error/{rung.name}"] = errors
    packed |= {f"{FITTED}{name}": one for name, one in scores.fitted.items()}
    packed[CONDITIONS] = np.array(orjson.dumps(scores.conditions, option=orjson.OPT_SORT_KEYS).decode())
    arrays.save(path, packed)


def load_scores(path: Path, policy: Policy) -> CertifyingScores:
    """Reads what `save_scores` wrote for this policy. Raises ArtifactError naming what is wrong."""
    if not path.is_file():
        raise ArtifactError([Problem("", "is missing: run `gateway calibrate`", str(path))])
    try:
        return _unpacked(arrays.load(path), policy)
    except ValueError as error:
        raise ArtifactError([Problem("", str(error).removeprefix(f"{path}: "), str(path))]) from error


def _packed_fold(fold: str, policy: Policy, scores: FoldScores) -> Arrays:
    packed: Arrays = {f"{fold}.rows": np.array(scores.rows)}
    packed |= {f"{fold}.guard/{name}": one for name, one in scores.full.items()}
    packed |= {f"{fold}.input_only/{name}": one for name, one in scores.input_only.items()}
    if scores.slices is not None:
        packed[f"{fold}.slices"] = scores.slices
    for rung, rows in zip(policy.rungs, scores.rungs, strict=True):
        if rows.suspicion is not None:
            packed[f"{fold}.suspicion/{rung.name}"] = rows.suspicion
        if rows.wrong is not None:
            packed[f"{fold}.wrong/{rung.name}"] = rows.wrong
    return packed


def _unpacked(packed: Arrays, policy: Policy) -> CertifyingScores:
    tail, cut, risk = (_fold(fold, packed, policy) for fold in FOLDS)
    depths, n = len(policy.rungs), risk.rows
    by = [_array(packed, f"risk.answered_by/{d}", "i", n) for d in range(depths)]
    if any(((one < NO_RUNG) | (one >= depths)).any() for one in by):
        raise ValueError("risk.answered_by: names a rung that the policy does not have; calibrate again")
    errors = None
    if policy.absolute_error is not None:
        errors = tuple(_array(packed, f"risk.absolute_error/{rung.name}", "f", n) for rung in policy.rungs)
    answered_by = tuple(one.astype(np.int64) for one in by)
    fitted = {key.removeprefix(FITTED): one for key, one in packed.items() if key.startswith(FITTED)}
    return CertifyingScores(tail, cut, risk, answered_by, errors, fitted, _conditions(packed))


def _conditions(packed: Mapping[str, NDArray[Any]]) -> Conditions:
    found = orjson.loads(str(_array(packed, CONDITIONS, "U", None)))
    if not isinstance(found, dict) or not all(isinstance(one, float | str) for one in found.values()):
        raise ValueError(f"{CONDITIONS}: holds no conditions; calibrate again")
    return found


def _fold(fold: str, packed: Arrays, policy: Policy) -> FoldScores:
    n = int(_array(packed, f"{fold}.rows", "i", None))
    full = {g.name: _array(packed, f"{fold}.guard/{g.name}", "f", n) for g in certified_guards(policy)}
    alone = {
        name: _array(packed, key, "f", n) for name in full if (key := f"{fold}.input_only/{name}") in packed
    }
    rungs = []
    for rung in policy.rungs:
        suspicion, wrong = f"{fold}.suspicion/{rung.name}", f"{fold}.wrong/{rung.name}"
        rungs.append(
            RungRows(
                _array(packed, suspicion, "f", n) if rung.checks else None,
                _array(packed, wrong, "b", n) if wrong in packed else None,
            )
        )
    slices = _array(packed, f"{fold}.slices", "U", n) if policy.false_alarm_by is not None else None
    return FoldScores(n, full, alone, slices, tuple(rungs))


def _array(packed: Mapping[str, NDArray[Any]], key: str, kind: str, n: int | None) -> NDArray[Any]:
    """One array, of this kind of dtype and n numbers; one number where n is None."""
    found = packed.get(key)
    if found is None:
        raise ValueError(f"{key}: missing from the file; calibrate again")
    if found.dtype.kind != kind or found.shape != (() if n is None else (n,)):
        raise ValueError(f"{key}: holds {found.dtype}{list(found.shape)}; calibrate again")
    if kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{key}: holds NaN or infinity; calibrate again")
    return found
