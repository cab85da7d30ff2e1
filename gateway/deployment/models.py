"""The models that a policy names, loaded: files of its folder, and models in other servers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import assert_never

from fallbacks.oip.stored_upstream import StoredUpstream
from fallbacks.oip.upstream import UpstreamModel
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import LoadedModel
from fallbacks.roles import with_roles
from gateway.core.deadline import call_deadline
from gateway.core.decision import Tensors
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.deployment.model_files import NO_ROWS, TriedWith, admitted_files
from gateway.deployment.upstreams import UPSTREAMS_FILE, remote_of
from gateway.policy.locate import Loc
from gateway.policy.schema import OipPolicy, OnnxPolicy


class _LoadFailed(Exception):
    """Why one model cannot be loaded."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def load_models(
    deployment: Deployment, upstreams: Mapping[str, StoredUpstream], tried: TriedWith = NO_ROWS
) -> dict[str, LoadedModel]:
    """Every rung's model, with the outputs that follow from its own, such as probabilities from logits.

    Each file is tried in a confined process before it is opened in this one, and loaded from the same bytes.

    Args:    upstreams: the stored identity of those in other servers, by rung. tried: with what files are
             tried apart. Here no model is called (`try_models`).
    Raises:  PolicyError naming every rung that cannot be loaded, and the nearest file if one is missing.
    """
    models: dict[str, LoadedModel] = {}
    contents, problems = admitted_files(deployment, tried)
    for i, rung in enumerate(deployment.policy.rungs):
        try:
            match rung.model:
                case OnnxPolicy(path=path, names=names):
                    at = ("rungs", i, "model", "path")
                    if at not in contents:
                        continue
                    model: LoadedModel = _load_file(deployment, at, path, names, contents)
                case OipPolicy(encoder=encoder):
                    if encoder is not None and ("rungs", i, "model", "encoder") not in contents:
                        continue
                    model = _load_upstream(deployment, i, rung.model, upstreams.get(rung.name), contents)
                case _:
                    assert_never(rung.model)
            models[rung.name] = with_roles(model) if deployment.policy.task == "classification" else model
        except _LoadFailed as failed:
            problems.append(failed.problem)
    if problems:
        for model in models.values():
            model.close()
        raise PolicyError(problems)
    return models


def try_models(deployment: Deployment, models: Mapping[str, LoadedModel], rows: Tensors) -> None:
    """Asks every model in a file for a few real rows, so that one that cannot answer is not called ready.

    Args:    rows: the inputs by name, as contract and data have them.
    Raises:  PolicyError naming every rung that cannot answer, with what its runtime says.
    Cost:    one pass a model; blocks.
    """
    problems: list[Problem] = []
    for i, rung in enumerate(deployment.policy.rungs):
        if isinstance(rung.model, OnnxPolicy):
            try:
                _try_model(models[rung.name], rung.model.path, rows)
            except ValueError as error:
                problems.append(deployment.problem(("rungs", i, "model", "path"), str(error)))
    if problems:
        raise PolicyError(problems)


def _try_model(model: LoadedModel, path: str, rows: Tensors) -> None:
    """Raises ValueError (what is wrong) if the model does not answer the rows, one answer a row."""
    n = len(next(iter(rows.values())))
    try:
        answer = model.run(rows)
    except Exception as error:
        # onnxruntime has a type of its own for each failure
        raise ValueError(f"{path!r} cannot answer a row of the calibration data: {error}") from error
    for name, array in answer.items():
        if array.shape[:1] != (n,):
            what = f"{path!r} answers {n} rows with {name!r} of shape {list(array.shape)}"
            raise ValueError(f"{what}; its first axis must be the row")


def _load_file(
    deployment: Deployment, at: Loc, name: str, names: Mapping[str, str], contents: Mapping[Loc, bytes]
) -> OnnxModel:
    try:
        return OnnxModel(str(deployment.folder / name), contents[at], 1, names)
    except ValueError as error:
        raise _LoadFailed(deployment.problem(at, str(error))) from error


def _load_upstream(
    deployment: Deployment,
    i: int,
    model_policy: OipPolicy,
    stored: StoredUpstream | None,
    contents: Mapping[Loc, bytes],
) -> UpstreamModel:
    at = ("rungs", i, "model")
    if stored is None:
        what = f"{UPSTREAMS_FILE} does not hold this model: run `gateway calibrate`"
        raise _LoadFailed(deployment.problem(at, what))
    try:
        remote = remote_of(model_policy)
    except ValueError as error:
        raise _LoadFailed(deployment.problem((*at, "token_env"), str(error))) from error
    encoder = (
        None
        if model_policy.encoder is None
        else _load_file(deployment, (*at, "encoder"), model_policy.encoder, {}, contents)
    )
    try:
        return UpstreamModel(
            remote,
            stored,
            names=model_policy.names,
            encoder=encoder,
            max_rows=deployment.policy.serving.max_batch_rows,
            call_deadline=partial(call_deadline, deployment.policy.rungs[i].budget_s),
        )
    except ValueError as error:
        if encoder is not None:
            encoder.close()
        raise _LoadFailed(deployment.problem(at, str(error))) from error
