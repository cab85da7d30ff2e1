"""The model files of a policy, each read once: tried apart by the airlock, then loaded from those bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fallbacks.onnx_file import read_once
from fallbacks.regular_file import read_regular
from gateway.airlock.admit import refused
from gateway.airlock.request import ModelTrial
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.policy.locate import Loc, closest
from gateway.policy.schema import OnnxPolicy, RungPolicy
from gateway.policy.serving import Serving
from guards import arrays


@dataclass(frozen=True, slots=True)
class TriedWith:
    """rows: the file of rows that calibration kept, None for none; state: where passes are remembered.

    sizes: of one row of each input, for axes that the policy leaves open.
    """

    rows: Path | None
    state: Path | None
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


NO_ROWS = TriedWith(None, None)


@dataclass(frozen=True, slots=True)
class _ModelFile:
    """A model file that one rung names, at a place of the policy; names: as `OnnxModel` takes them."""

    at: Loc
    name: str
    names: Mapping[str, str]
    rung: RungPolicy


def admitted_files(deployment: Deployment, tried: TriedWith) -> tuple[dict[Loc, bytes], list[Problem]]:
    """The bytes of every model file that may be opened, by where the policy names it, and all problems."""
    contents: dict[Loc, bytes] = {}
    problems: list[Problem] = []
    for file in _model_files(deployment):
        try:
            contents[file.at] = _read(deployment, file)
        except ValueError as error:
            nearest = ""
            if not (deployment.folder / file.name).exists():
                nearest = closest(file.name, {path.name for path in deployment.folder.glob("*.onnx")})
            problems.append(deployment.problem(file.at, str(error), nearest))
    files = [file for file in _model_files(deployment) if file.at in contents]
    for file, found in _refused(deployment, files, contents, tried):
        del contents[file.at]
        problems += [deployment.problem(file.at, what) for what in found]
    return contents, problems


def refuse_at_sizes(deployment: Deployment, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Tries the model files again, with rows of the sizes that data have.

    Raises:  PolicyError for what is refused.
    """
    _, problems = admitted_files(deployment, TriedWith(None, None, sizes))
    if problems:
        raise PolicyError(problems)


def _model_files(deployment: Deployment) -> Iterator[_ModelFile]:
    for i, rung in enumerate(deployment.policy.rungs):
        if isinstance(rung.model, OnnxPolicy):
            yield _ModelFile(("rungs", i, "model", "path"), rung.model.path, rung.model.names, rung)
        elif rung.model.encoder is not None:
            yield _ModelFile(("rungs", i, "model", "encoder"), rung.model.encoder, {}, rung)


def _read(deployment: Deployment, file: _ModelFile) -> bytes:
    """Raises ValueError, what is wrong with the path or the file."""
    path = deployment.folder / file.name
    if path.is_dir():
        raise ValueError(f"{file.name!r} is a folder; give the path of one .onnx file")
    if not path.exists():
        raise ValueError(f"{file.name!r} does not exist")
    return read_once(path)


def _refused(
    deployment: Deployment, files: Sequence[_ModelFile], contents: Mapping[Loc, bytes], tried: TriedWith
) -> Iterator[tuple[_ModelFile, list[str]]]:
    try:
        trials = [_trial(deployment, file, contents[file.at], tried) for file in files]
        found = refused(trials, tried.state)
    except OSError as error:
        what = f"cannot be tried apart: {error.strerror or error}; nothing is opened untried"
        yield from ((file, [what]) for file in files)
        return
    yield from ((files[i], problems) for i, problems in found.items())


def _trial(deployment: Deployment, file: _ModelFile, content: bytes, tried: TriedWith) -> ModelTrial:
    policy = deployment.policy
    given = {
        name: [None if size == -1 else size for size in one.shape]
        for name, one in policy.inputs.items()
        if one.shape is not None
    }
    shapes: dict[str, list[int | None]] = {name: list(sizes) for name, sizes in tried.sizes.items()}
    shapes.update(given)
    rows, digest = _rows(tried.rows)
    alone = trial_of(deployment.folder / file.name, content, policy.serving, file.rung.budget_s)
    return replace(alone, names=dict(file.names), row_shapes=shapes, rows=rows, rows_sha256=digest)


def trial_of(path: Path, content: bytes, serving: Serving, budget_s: float) -> ModelTrial:
    """What is tried on a model file of which nothing else is known."""
    return ModelTrial(
        path=str(path),
        file=str(path.absolute()),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        names={},
        row_shapes={},
        max_rows=serving.max_batch_rows,
        rows="",
        rows_sha256="",
        budget_s=budget_s,
        memory_mib=serving.model_memory_mib,
    )


def _rows(path: Path | None) -> tuple[str, str]:
    """Where the kept rows are, and the digest of that file; empty if they cannot be read."""
    if path is None:
        return "", ""
    try:
        content = read_regular(path, arrays.MOST_BYTES, "calibrate again")
        return str(path.absolute()), hashlib.sha256(content).hexdigest()
    except ValueError:
        return "", ""  # what is wrong with it is told when it is loaded
