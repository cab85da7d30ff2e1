"""What the models are and do, before there is a policy: tensors, rows, a few answers, and the time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fallbacks.onnx import OnnxModel
from fallbacks.onnx_indices import IndexUse
from fallbacks.predictor import LoadedModel, ModelTensor, zeros
from gateway.calibration.dataset import Dataset
from gateway.calibration.folds import read_rows
from gateway.core.decision import Tensors
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.deployment.index_ranges import uses_by_input
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import record_upstreams
from gateway.policy.schema import Policy
from gateway.scaffold.draft import DraftModel, budget_s
from gateway.scaffold.roles import Guess, guess_roles

TRIED_ROWS = 32
"""As many rows as a batch has by the policy that is written."""

PROBE_BUDGET_S = 10.0
"""Seconds that a model whose time is not known yet may take for a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Of each model in order: guesses, budgets_s, row_by_row; inputs and classes of the first.

    index_uses: how inputs are read as an index, a size or a divisor.

    file: the rows, None without. shared_outputs: the outputs that every model has.
    """

    inputs: tuple[ModelTensor, ...]
    classes: tuple[int | str, ...]
    shared_outputs: tuple[str, ...]
    file: Dataset | None
    guesses: tuple[Guess, ...]
    budgets_s: tuple[float, ...]
    row_by_row: tuple[bool, ...]
    index_uses: Mapping[str, IndexUse]


def observe(folder: Path, models: Sequence[DraftModel], data: Path | None) -> Observed:
    """Loads the models as they are and asks each a few rows: of the data, else zeros if it takes them.

    Raises:  PolicyError, ArtifactError.
    """
    probe = Deployment(folder, _probe_policy(models, [], []), None)
    loaded = load_models(probe, record_upstreams(probe))
    try:
        first = loaded[models[0].name]
        _refuse_other_inputs(loaded)
        shared = [s.name for s in first.outputs if all(s.name in _names(one) for one in loaded.values())]
        file = None
        if data is not None:
            alone = Deployment(folder, _probe_policy(models[:1], first.inputs, [first.outputs[0].name]), None)
            file = read_rows(alone, {models[0].name: first}, data, expected=False)
        tried = {name: answer_of(model, file) for name, model in loaded.items()}
        y = None if file is None else file.y
        return Observed(
            first.inputs,
            first.classes or (),
            tuple(shared),
            file,
            tuple(guess_roles(m.outputs, m.classes, tried[name][0], y) for name, m in loaded.items()),
            tuple(budget_s(seconds) for _, seconds in tried.values()),
            tuple(isinstance(m, OnnxModel) and m.fixed_rows is not None for m in loaded.values()),
            uses_by_input(loaded.values()),
        )
    finally:
        for model in loaded.values():
            model.close()


def _refuse_other_inputs(loaded: Mapping[str, LoadedModel]) -> None:
    """Raises PolicyError for a model that names its inputs otherwise than the first."""
    (first, model), *others = loaded.items()
    wanted = [spec.name for spec in model.inputs]
    for name, other in others:
        own = [spec.name for spec in other.inputs]
        if set(own) != set(wanted):
            example = f", such as {{{wanted[0]!r}: {own[0]!r}}}" if len(own) == len(wanted) == 1 else ""
            what = f"takes the inputs {', '.join(own)}, and {first} {', '.join(wanted)}; begin without it, "
            what += f"and add it to rungs by hand with `names` on its model{example}"
            raise PolicyError([Problem("", f"the {name} {what}", f"{name}.onnx")])


def _names(model: LoadedModel) -> set[str]:
    return {spec.name for spec in model.outputs}


def _probe_policy(
    models: Sequence[DraftModel], inputs: Sequence[ModelTensor], expose: Sequence[str]
) -> Policy:
    """A policy that takes any rows and knows no role: enough to load models and to read a file."""
    rungs = [{"name": one.name, "model": _model(one), "budget_s": PROBE_BUDGET_S} for one in models]
    missing = {spec.name: {"missing": "allow"} for spec in inputs if spec.dtype.kind == "f"}
    values: Mapping[str, object] = {
        "schema": 1,
        "name": "probe",
        "task": "opaque",
        "deadline_s": 60.0,
        "false_alarm_budget": 0.5,
        "inputs": missing,
        "guards": [],
        "rungs": rungs,
        "expose": list(expose) or ["unknown"],
        "serving": {"max_batch_rows": TRIED_ROWS},
    }
    return Policy.model_validate(values)


def _model(one: DraftModel) -> dict[str, str]:
    if one.url:
        return {"kind": "oip", "url": one.url, "model": one.server_model}
    return {"kind": "onnx", "path": one.path}


def answer_of(model: LoadedModel, file: Dataset | None) -> tuple[Tensors | None, float]:
    """The outputs for a few rows, None if the model does not take them, and the seconds of a full batch."""
    x = zeros(model.inputs, TRIED_ROWS)
    if file is not None:
        x = {name: array[:TRIED_ROWS] for name, array in file.x.items()}
    with suppress(Exception):  # a row of zeros suits few models; of a real row calibration says what is wrong
        answer = model.run(x)
        start_s = time.perf_counter()
        model.run(x)
        return answer, time.perf_counter() - start_s
    return None, 0.0
