"""What `gateway init` and `gateway inspect` print."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from fallbacks.onnx import OnnxModel
from fallbacks.onnx_file import read_once
from gateway.airlock.admit import refused
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.model_files import trial_of
from gateway.policy.serving import Serving
from gateway.scaffold.draft import Draft
from gateway.scaffold.inspection import inspected
from gateway.scaffold.observe import PROBE_BUDGET_S, TRIED_ROWS


def describe(path: Path) -> dict[str, Any]:
    """What a model file is. Raises PolicyError naming the file if it may not be opened, or cannot be."""
    try:
        content = read_once(path)
        trial = trial_of(path, content, Serving(max_batch_rows=TRIED_ROWS), PROBE_BUDGET_S)
        if problems := refused([trial], state=None):
            raise PolicyError([_problem(path, what) for what in problems[0]])
        model = OnnxModel(str(path), content, 1)
    except ValueError as error:
        raise PolicyError([_problem(path, str(error))]) from error
    try:
        return inspected(model)
    finally:
        model.close()


def _problem(path: Path, what: str) -> Problem:
    return Problem("", what.removeprefix(f"{path}: "), str(path))


def tensors_table(found: Mapping[str, Any], path: Path) -> Table:
    """Inputs and outputs, with how each is guarded or which role it has."""
    table = Table(title=escape(f"{path.name}: task: {found['task']}"), title_justify="left")
    for column in ("", "name", "type", "shape", "guarded, or role"):
        table.add_column(column)
    for one in found["inputs"]:
        table.add_row("input", escape(one["name"]), one["type"], str(one["shape"]), one["guarded"])
    for one in found["outputs"]:
        table.add_row("output", escape(one["name"]), one["type"], str(one["shape"]), one["role"] or "none")
    return table


def remarks(found: Mapping[str, Any], path: Path) -> Iterator[str]:
    """What else is known of the model, and the next command; one line each."""
    if found["classes"]:
        yield f"classes: {', '.join(found['classes'])}"
    if found["ignored_outputs"]:
        yield f"ignored, since they are no tensors: {', '.join(found['ignored_outputs'])}"
    yield f"batch: {found['batch']}"
    if not found["answers_zeros"]:
        yield "it refuses rows of zeros, so its answers are not known: `gateway init --data` tries real rows"
    yield f"detectors that it can feed: {', '.join(found['detectors'])}"
    yield from (f"can be promised: {one}" for one in found["promises"])
    yield f"next: gateway init DIR --model {shlex.quote(str(path))} --data ROWS"


def chosen(draft: Draft, folder: Path) -> Iterator[str]:
    """What `init` chose, one line each."""
    yield f"wrote {folder / 'gateway.yaml'}: task: {draft.task}"
    for model in draft.models:
        roles = ", ".join(role if role == name else f"{role} = {name}" for role, name in model.names.items())
        yield (
            f"{model.name}: {roles or 'opaque outputs'}"
            + "; its file fixes the batch: run row by row" * model.row_by_row
        )
    yield from draft.notes
