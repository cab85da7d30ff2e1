"""What a policy names, loaded and checked against the certificate: models, fitted guards, wire contract.

PolicyError and ArtifactError are raised here and in `compile`, and nowhere later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from fallbacks.predictor import LoadedModel
from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.certificate import (
    CERTIFICATE_FILE,
    GUARDS_FILE,
    Certificate,
    load_certificate,
    sha256,
    verify,
)
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import check_upstreams, read_upstreams
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.locate import closest
from gateway.policy.schema import OipPolicy, Policy
from gateway.protocol.contract import ONNX_PLATFORM, UPSTREAM_PLATFORM, Contract, TensorSpec
from guards import arrays


@dataclass(frozen=True, slots=True, eq=False)
class Artifacts:
    """Everything that a policy names, loaded and verified."""

    models: Mapping[str, LoadedModel]
    contract: Contract
    guards: Mapping[str, FittedGuard]
    certificate: Certificate
    tag: str

    def close(self) -> None:
        """Ends the models' threads, and begins to end their connections."""
        for model in self.models.values():
            model.close()

    async def closed(self) -> None:
        """Waits until what `close` began has ended."""
        for model in self.models.values():
            await model.closed()


def load_artifacts(deployment: Deployment) -> Artifacts:
    """Models, guards and certificate, checked against each other. Raises PolicyError or ArtifactError."""
    models = load_models(deployment, read_upstreams(deployment))
    try:
        return _verified(deployment, models)
    except Problems:
        for model in models.values():
            model.close()
        raise


def _verified(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Artifacts:
    folder, policy = deployment.folder, deployment.policy
    contract = contract_of(deployment, models)
    certificate = load_certificate(folder)
    path = folder / GUARDS_FILE
    if not path.is_file():
        raise ArtifactError([Problem("", "is missing: run `gateway calibrate`", str(path))])
    digests = {name: model.digest for name, model in models.items()}
    verify(certificate, deployment, digests, sha256(path))
    guards = _load_guards(policy, path)
    check_upstreams(deployment, models)
    whole = policy.model_dump(mode="json") | {"certificate": sha256(folder / CERTIFICATE_FILE)}
    short = hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    return Artifacts(models, contract, guards, certificate, f"{policy.name}@{policy.version}#{short}")


def save_guards(path: Path, guards: Mapping[str, FittedGuard]) -> None:
    """Writes `guards.npz`: the state of every fitted guard, under its name."""
    packed = [guard.pack() for guard in guards.values()]
    arrays.save(path, {key: array for part in packed for key, array in part.items()})


def _load_guards(policy: Policy, path: Path) -> dict[str, FittedGuard]:
    """What `save_guards` wrote. Raises ArtifactError naming the key that is missing or wrong."""
    try:
        packed = arrays.load(path)
        return {guard.name: guard.load(packed) for guard in policy.guards if guard.certified}
    except ValueError as error:
        raise ArtifactError([Problem("", str(error), str(path))]) from error


def contract_of(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Contract:
    """The deployment's inputs and outputs on the wire. Raises PolicyError where the models do not fit."""
    policy = deployment.policy
    primary = models[policy.rungs[0].name]
    problems: list[Problem] = []
    for i, (name, model) in enumerate(models.items()):
        if set(model.inputs) != set(primary.inputs):
            problems.append(
                deployment.problem(("rungs", i, "model"), "takes other inputs than the first rung")
            )
        given = {spec.name: spec for spec in model.outputs}
        wanted = {spec.name: spec for spec in primary.outputs}
        for j, output in enumerate(policy.expose):
            if output not in given or given[output] != wanted.get(output, given[output]):
                nearest = closest(output, set(given))
                what = f"{output!r} is no such output of rung {name!r}"
                problems.append(deployment.problem(("expose", j), what, nearest))
    classes = {
        spec.shape[-1] for spec in primary.outputs if spec.name in policy.expose and len(spec.shape) > 1
    }
    if not problems and policy.labels and classes and not classes & {None, len(policy.labels)}:
        what = f"names {len(policy.labels)} labels, but the model has {min(c or 0 for c in classes)} classes"
        problems.append(deployment.problem(("labels",), what))
    for name in policy.inputs.keys() - {spec.name for spec in primary.inputs}:
        nearest = closest(name, {spec.name for spec in primary.inputs})
        problems.append(deployment.problem(("inputs", name), "is not an input of the first rung", nearest))
    if problems := problems or list(_unreadable(deployment, models)):
        raise PolicyError(problems)
    ranges = {name: (r.low, r.high) for name, r in policy.inputs.items()}
    inputs = tuple(
        TensorSpec(s.name, s.dtype, s.shape, low, high, s.bf16)
        for s in primary.inputs
        for low, high in (ranges.get(s.name, (None, None)),)
    )
    outputs = tuple(
        TensorSpec(s.name, s.dtype, s.shape, bf16=s.bf16) for s in primary.outputs if s.name in policy.expose
    )
    is_upstream = isinstance(policy.rungs[0].model, OipPolicy)
    return Contract(
        policy.name,
        inputs,
        outputs,
        policy.serving.max_batch_rows,
        policy.version,
        tuple(policy.labels),
        UPSTREAM_PLATFORM if is_upstream else ONNX_PLATFORM,
    )


def _unreadable(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Iterator[Problem]:
    """Guards and checks that cannot read the inputs or outputs of the models."""
    policy = deployment.policy
    first = models[policy.rungs[0].name].inputs[0]
    for i, guard in enumerate(policy.guards):
        for at, what in guard.unfit(first):
            yield deployment.problem(("guards", i, *at), what)
    for i, rung in enumerate(policy.rungs):
        for j, check in enumerate(rung.checks):
            for at, what in check.unfit(models[rung.name].outputs):
                yield deployment.problem(("rungs", i, "checks", j, *at), what)
