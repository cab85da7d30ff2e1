"""What a model file is: inputs, outputs, guessed roles, what can be guarded and what can be promised."""

from __future__ import annotations

import math
from typing import Any

from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor
from gateway.scaffold.draft import Draft, DraftModel, draft_inputs
from gateway.scaffold.observe import answer_of
from gateway.scaffold.roles import Guess, guess_roles
from guards.row_view import is_picture
from guards.table import MOST_NUMBERS, MOST_TEXTS

MOST_SHOWN = 20


def inspected(model: OnnxModel) -> dict[str, Any]:
    """The fields that `gateway inspect` prints. The model is tried with rows of zeros."""
    answer, seconds = answer_of(model, None)
    guess = guess_roles(model.outputs, model.classes, answer, None)
    draft = _draft(model, guess)
    return {
        "task": guess.task,
        "inputs": [_tensor(spec) | {"guarded": _guarded(spec)} for spec in model.inputs],
        "outputs": [_tensor(spec) | {"role": _role(spec, guess)} for spec in model.outputs],
        "ignored_outputs": list(model.ignored_outputs),
        "classes": None if model.classes is None else [str(one) for one in model.classes[:MOST_SHOWN]],
        "batch": "any"
        if model.fixed_rows is None
        else f"{model.fixed_rows}, run {model.fixed_rows} at a time",
        "answers_zeros": answer is not None,
        "batch_of_32_s": seconds if answer is not None else None,
        "detectors": draft.detectors,
        "promises": promised(draft),
    }


def promised(draft: Draft) -> list[str]:
    """What calibration can certify for such a model, and what it cannot."""
    found = ["the share of good rows that guards stop"]
    if draft.task == "regression":
        found += ["the share of intervals that miss the true value", "the absolute error on average"]
    elif draft.checked(draft.models[0]):
        found += ["the share of wrong answers among those that a confidence gate lets pass"]
    elif draft.task == "classification":
        found += ["the share of wrong answers, without a confidence gate: the model gives labels alone"]
    else:
        found += ["nothing about errors: which answers of an opaque model are wrong is not known"]
    return found


def _draft(model: OnnxModel, guess: Guess) -> Draft:
    rung = DraftModel("primary", guess.names, 1.0, path=model.name)
    return Draft("model", guess.task, (rung,), draft_inputs(model.inputs, None, model.index_uses), ("?",))


def _role(spec: ModelTensor, guess: Guess) -> str | None:
    return next((role for role, name in guess.names.items() if name == spec.name), None)


def _tensor(spec: ModelTensor) -> dict[str, Any]:
    kind = "text" if spec.dtype.kind == "O" else "bf16" if spec.bf16 else str(spec.dtype)
    return {"name": spec.name, "type": kind, "shape": [-1 if size is None else size for size in spec.shape]}


def _guarded(spec: ModelTensor) -> str:
    """How guards read an input."""
    if is_picture(spec):
        return "as a picture"
    if spec.dtype.kind == "O":
        many = math.prod(size or 1 for size in spec.shape[1:]) > MOST_TEXTS
        return "not: too many texts" if many else "as categories or text"
    if None in spec.shape[1:]:
        return "as numbers, of the sizes of the calibration rows"
    width = math.prod(size or 1 for size in spec.shape[1:])
    if width > MOST_NUMBERS:
        return f"as a summary of {width} numbers"
    return f"as {width} numbers" if width > 1 else "as a number"
