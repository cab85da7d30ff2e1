"""Whether a row's answer depends on that row alone: held to each other for a few real rows, in several ways.

Rows of different callers share a pass, so a model whose rows change each other's answers would let one caller
move another's numbers: its rows are run apart. A model that answers one row differently each time has no
answer that could be certified: it is refused. (Files with random operators, or that were exported while they
trained, do not come so far: the airlock refuses them by operator.)

Calibration compares rows and certifies answers as they will be given, and the certificate names the models
whose rows are run apart. A start compares again, with the rows that calibration kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.onnx import OnnxModel
from fallbacks.predictor import LoadedModel
from fallbacks.roles import ConvertedModel
from gateway.core.decision import Tensors
from gateway.core.errors import PolicyError
from gateway.core.rows import content_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.interval_model import IntervalModel

COMPARED_ROWS = 8
RTOL = {2: 1e-2, 4: 1e-4, 8: 1e-7}
"""How far rounding may move a number with the size of a batch, of its output's largest; by its bytes."""
log = logging.getLogger(__name__)


def separate_rows(deployment: Deployment, models: Mapping[str, LoadedModel], x: Tensors) -> None:
    """Has the rows run apart of every model file in which they change each other's answers, and warns of it.

    Args:    models: of all rungs, or of some. x: the inputs by name, of real rows; a few of them are asked.
    Raises:  PolicyError naming every rung that answers one row differently each time, and every model in
             another server whose rows change each other's answers: that server makes batches of its own.
    Cost:    about twelve passes of one to eight rows a model; blocks.
    """
    few = _different_rows(x)
    problems = [
        deployment.problem(("rungs", i, "model"), what)
        for i, rung in enumerate(deployment.policy.rungs)
        if rung.name in models and (what := _separated(rung.name, models[rung.name], few))
    ]
    if problems:
        raise PolicyError(problems)


def in_files(models: Mapping[str, LoadedModel]) -> dict[str, LoadedModel]:
    """The models that are files of the deployment; those in other servers are compared as stored."""
    return {name: model for name, model in models.items() if isinstance(_unwrapped(model), OnnxModel)}


def _separated(rung: str, model: LoadedModel, x: Tensors) -> str:
    """What forbids to serve a model, empty if nothing does; has its rows run apart where they must be."""
    own = _unwrapped(model)
    try:
        if _differ(model.run(x), model.run(x), 0.0 if isinstance(own, OnnxModel) else 1.0):
            return f"{rung!r} answers one row differently each time; export it for inference"
        mixing = _mixes(model, x)
    except Exception:  # noqa: BLE001 - it is tried with these rows elsewhere, and what fails is said there
        return ""
    if not mixing:
        return ""
    if not isinstance(own, OnnxModel):
        mend = "export it for inference, or set serving: {max_batch_rows: 1}"
        return f"{rung!r} answers a row differently among others; {mend}"
    _run_apart(rung, own)
    return ""


def run_apart(models: Mapping[str, LoadedModel], rungs: Iterable[str]) -> None:
    """Has the rows run apart of the models of which calibration found that they must be; warns of it."""
    for rung in rungs:
        own = _unwrapped(models[rung])
        if isinstance(own, OnnxModel):
            _run_apart(rung, own)


def rungs_apart(models: Mapping[str, LoadedModel]) -> list[str]:
    """The rungs whose rows are run apart, for the certificate."""
    own = {name: _unwrapped(model) for name, model in models.items()}
    return [name for name, model in own.items() if isinstance(model, OnnxModel) and model.rows_apart]


def _run_apart(rung: str, model: OnnxModel) -> None:
    model.run_rows_apart()
    log.warning(
        "rung %s: the rows of a batch change each other's answers, so they are run one at a time; "
        "export it for inference, so that each row is answered by itself",
        rung,
    )


def _unwrapped(model: LoadedModel) -> LoadedModel:
    return _unwrapped(model.model) if isinstance(model, ConvertedModel | IntervalModel) else model


def _different_rows(x: Tensors) -> Tensors:
    """The first few rows that differ from each other, in their order."""
    n = len(next(iter(x.values())))
    seen: dict[bytes, int] = {}
    for i in range(n):
        seen.setdefault(b"\0".join(content_of(array[i : i + 1]) for array in x.values()), i)
        if len(seen) == COMPARED_ROWS:
            break
    at = list(seen.values())
    return {name: array[at] for name, array in x.items()}


def _mixes(model: LoadedModel, x: Tensors) -> bool:
    """Whether a row has another answer among others, or in another order, than alone."""
    n = len(next(iter(x.values())))
    rows = [model.run({name: array[i : i + 1] for name, array in x.items()}) for i in range(n)]
    alone = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    backwards = model.run({name: array[::-1].copy() for name, array in x.items()})
    return _differ(alone, model.run(x)) or _differ(alone, {name: a[::-1] for name, a in backwards.items()})


def _differ(one: Tensors, other: Tensors, tolerance: float = 1.0) -> bool:
    """Whether two answers to the same rows differ by more than rounding, of which `tolerance` is allowed.

    A label follows from scores, and two that are all but equal may change places by rounding: so values that
    are no floats are compared in the rows whose floats are the same to the bit.
    """
    n = len(next(iter(one.values())))
    same = np.ones(n, bool)
    for name, array in one.items():
        if array.dtype.kind == "f":
            if array.shape != other[name].shape or not _close(array, other[name], tolerance):
                return True
            same &= (array == other[name]).reshape(n, -1).all(axis=1)
    return any(
        array.shape != other[name].shape or bool((array[same] != other[name][same]).any())
        for name, array in one.items()
        if array.dtype.kind != "f"
    )


def _close(one: NDArray[Any], other: NDArray[Any], tolerance: float) -> bool:
    wide, others = one.astype(np.float64), other.astype(np.float64)
    finite = np.abs(wide[np.isfinite(wide)])
    scale = tolerance * RTOL[min(one.itemsize, 8)] * float(finite.max(initial=0.0))
    return bool(np.allclose(wide, others, rtol=0.0, atol=scale, equal_nan=True))
