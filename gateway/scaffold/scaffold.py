"""Makes a deployment folder of a model: copies it, asks it a few rows, and writes the policy that fits it.

Everything is written into a folder beside, and moved when it is complete: a failure leaves nothing behind.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fallbacks.predictor import LoadedModel
from gateway.calibration.dataset import Dataset
from gateway.core.errors import PolicyError, Problem, Problems
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import record_upstreams
from gateway.policy.read import POLICY_FILE
from gateway.scaffold.draft import Draft, DraftModel, draft_inputs, exposed_outputs
from gateway.scaffold.observe import Observed, observe
from gateway.scaffold.policy_text import policy_text
from gateway.scaffold.promises import with_promises
from gateway.scaffold.sources import Sources, draft_models

SHOWN_UNUSED = 5


def scaffold(folder: Path, sources: Sources, data: Path | None) -> Draft:
    """Writes a policy and copies of the models into a folder that has no policy yet.

    Args:    data: held-out rows, as `gateway calibrate` takes them; None if there are none.
    Raises:  PolicyError, ArtifactError naming the file and what is wrong.
    Cost:    one pass of each model over at most 5,000 rows.
    """
    if (folder / POLICY_FILE).exists():
        what = "exists: choose another folder, or edit it and run `gateway check`"
        raise PolicyError([Problem("", what, str(folder / POLICY_FILE))])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".init-", dir=folder) as staged:
            try:
                draft = _write_all(Path(staged), _policy_name(folder), sources, data)
            except Problems as error:
                found = [_of_sources(one, staged, folder, sources, data) for one in error.problems]
                raise type(error)(found) from error
            for made in sorted(one for one in Path(staged).iterdir() if one.is_file()):
                made.replace(folder / made.name)
        return draft
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise PolicyError([Problem("", what, str(error.filename or folder))]) from error


def _of_sources(problem: Problem, staged: str, folder: Path, sources: Sources, data: Path | None) -> Problem:
    """The problem in terms of the files that were given: those in the staged folder will be gone."""
    models = [one for one in draft_models(sources) if one.path]
    what, file = problem.what, problem.file
    for model, source in zip(models, map(str, sources.files), strict=False):
        copy = f"{staged}/{model.path}"
        if what.startswith(f"{copy}: "):
            return Problem("", what.removeprefix(f"{copy}: ").replace(copy, source), source)
        what, file = what.replace(copy, source), source if file == model.path else file
    if data is not None and (what.startswith("y: ") or file == str(data)):
        in_policy = any(field in what for field in ("`labels", "`names", "(names)"))
        mend = "; `gateway init` without --data writes a policy in which to say so" * in_policy
        return Problem("", what + mend, str(data))
    if staged in file:
        return replace(problem, what=what, file=str(folder), line=0)
    return replace(problem, what=what, file=file)


def _write_all(folder: Path, name: str, sources: Sources, data: Path | None) -> Draft:
    models = draft_models(sources)
    for model, file in zip([one for one in models if one.path], sources.files, strict=True):
        if not file.is_file():
            raise PolicyError([Problem("", "is not a file: give the path of one .onnx file", str(file))])
        shutil.copyfile(file, folder / model.path)
    observed = observe(folder, models, data)
    draft = _draft(name, models, observed)
    deployment = _write(folder, draft)
    loaded = load_models(deployment, record_upstreams(deployment))
    try:
        contract_of(deployment, loaded)
        if observed.file is None:
            return draft
        draft = with_promises(draft, deployment.policy, loaded, observed.file)
        _write(folder, draft)
        return draft
    finally:
        _close(loaded)


def _write(folder: Path, draft: Draft) -> Deployment:
    (folder / POLICY_FILE).write_text(policy_text(draft), "utf-8")
    return Deployment.read(folder)


def _draft(name: str, models: tuple[DraftModel, ...], observed: Observed) -> Draft:
    """The draft before anything is promised."""
    guesses = observed.guesses
    first = guesses[0]
    for model, guess in zip(models[1:], guesses[1:], strict=True):
        if guess.task != first.task:
            what = f"answers as task: {guess.task}, and {models[0].name} as task: {first.task}"
            raise PolicyError([Problem("", f"the {model.name} {what}; a ladder has one", model.path)])
    named = tuple(
        replace(model, names=guess.names, budget_s=seconds, row_by_row=fixed)
        for model, guess, seconds, fixed in zip(
            models, guesses, observed.budgets_s, observed.row_by_row, strict=True
        )
    )
    file = observed.file
    return Draft(
        name,
        first.task,
        named,
        draft_inputs(observed.inputs, None if file is None else file.x, observed.index_uses),
        exposed_outputs(first.task, named, observed.shared_outputs),
        tuple(map(str, observed.classes)) if any(isinstance(one, str) for one in observed.classes) else (),
        rows=0 if file is None else len(next(iter(file.x.values()))),
        notes=tuple(_notes(file)),
    )


def _notes(file: Dataset | None) -> list[str]:
    if file is None or not file.unused:
        return []
    more = f" and {len(file.unused) - SHOWN_UNUSED} more" if len(file.unused) > SHOWN_UNUSED else ""
    return [f"The rows hold {', '.join(file.unused[:SHOWN_UNUSED])}{more}, which no input takes."]


def _policy_name(folder: Path) -> str:
    """The folder's name in the letters that a policy's name may have."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")
    name = name if name and name[0].isalpha() else f"model-{name}".strip("-")
    return name[:63] if name != "stats" else "model-stats"


def _close(models: Mapping[str, LoadedModel]) -> None:
    for model in models.values():
        model.close()
