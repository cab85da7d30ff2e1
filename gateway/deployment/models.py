"""The models that a policy names, loaded: files of its folder, and models in other servers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import assert_never

from fallbacks.oip.stored_upstream import StoredUpstream
from fallbacks.oip.upstream import UpstreamModel
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import LoadedModel
from gateway.core.deadline import call_deadline
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.deployment.upstreams import UPSTREAMS_FILE, remote_of
from gateway.policy.locate import Loc, closest
from gateway.policy.schema import OipPolicy, OnnxPolicy


class _Unfit(Exception):
    """Why one model cannot be loaded."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def load_models(deployment: Deployment, upstreams: Mapping[str, StoredUpstream]) -> dict[str, LoadedModel]:
    """Every rung's model. upstreams: what is stored of those in other servers, by rung; none is called.

    Raises:  PolicyError naming every rung that cannot be loaded, and the nearest file if one is missing.
    """
    models: dict[str, LoadedModel] = {}
    problems: list[Problem] = []
    for i, rung in enumerate(deployment.policy.rungs):
        try:
            match rung.model:
                case OnnxPolicy(path=path):
                    models[rung.name] = _file(deployment, ("rungs", i, "model", "path"), path)
                case OipPolicy():
                    models[rung.name] = _upstream(deployment, i, rung.model, upstreams.get(rung.name))
                case _:
                    assert_never(rung.model)
        except _Unfit as unreadable:
            problems.append(unreadable.problem)
    if problems:
        for model in models.values():
            model.close()
        raise PolicyError(problems)
    return models


def _file(deployment: Deployment, at: Loc, name: str) -> OnnxModel:
    path = deployment.folder / name
    if not path.is_file():
        nearest = closest(name, {p.name for p in deployment.folder.glob("*.onnx")})
        raise _Unfit(deployment.problem(at, f"{name!r} does not exist", nearest))
    try:
        model = OnnxModel.load(path)
    except ValueError as error:
        raise _Unfit(deployment.problem(at, str(error))) from error
    try:
        model.run(model.canary(1))
    except Exception as error:
        model.close()
        # onnxruntime has a type of its own for each failure
        raise _Unfit(deployment.problem(at, f"{name!r} cannot answer a row of zeros: {error}")) from error
    return model


def _upstream(
    deployment: Deployment, i: int, named: OipPolicy, stored: StoredUpstream | None
) -> UpstreamModel:
    at = ("rungs", i, "model")
    if stored is None:
        what = f"{UPSTREAMS_FILE} does not hold this model: run `gateway calibrate`"
        raise _Unfit(deployment.problem(at, what))
    try:
        remote = remote_of(named)
    except ValueError as error:
        raise _Unfit(deployment.problem((*at, "token_env"), str(error))) from error
    encoder = None if named.encoder is None else _file(deployment, (*at, "encoder"), named.encoder)
    try:
        return UpstreamModel(
            remote,
            stored,
            names=named.names,
            encoder=encoder,
            max_rows=deployment.policy.serving.max_batch_rows,
            call_deadline=partial(call_deadline, deployment.policy.rungs[i].budget_s),
        )
    except ValueError as error:
        if encoder is not None:
            encoder.close()
        raise _Unfit(deployment.problem(at, str(error))) from error
