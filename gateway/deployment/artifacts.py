"""What a policy names, loaded and held against the certificate: models, fitted guards, the wire contract.

PolicyError and ArtifactError are raised here and in `compile`, and nowhere later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
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
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import check_upstreams, read_upstreams
from gateway.policy.schema import OodPolicy, Policy, RatePolicy, SqueezePolicy, closest, locate
from gateway.protocol.contract import Contract, TensorSpec
from guards import arrays
from guards.confidence import Confidence
from guards.ood import Ood
from guards.squeeze import Squeeze


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `guards.npz` holds, by stage name; an input-only form lies under `NAME.input_only`."""

    ood: Mapping[str, Ood]
    squeeze: Mapping[str, Squeeze]

    def save(self, path: Path) -> None:
        packed = [arrays.pack(name, part) for name, part in [*self.ood.items(), *self.squeeze.items()]]
        arrays.save(path, {key: array for part in packed for key, array in part.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Artifacts:
    """Everything that a policy names, loaded and verified."""

    models: Mapping[str, LoadedModel]
    contract: Contract
    fitted: Fitted
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


def load_artifacts(folder: Path, policy: Policy) -> Artifacts:
    """Models, guards and certificate, held against each other. Raises PolicyError or ArtifactError."""
    models = load_models(folder, policy, read_upstreams(folder, policy))
    try:
        return _verified(folder, policy, models)
    except Problems:
        for model in models.values():
            model.close()
        raise


def _verified(folder: Path, policy: Policy, models: Mapping[str, LoadedModel]) -> Artifacts:
    contract = contract_of(folder, policy, models)
    certificate = load_certificate(folder)
    path = folder / GUARDS_FILE
    if not path.is_file():
        raise ArtifactError([Problem("", "is missing: run `gateway calibrate`", str(path))])
    digests = {name: model.digest for name, model in models.items()}
    verify(certificate, folder, policy, digests, sha256(path))
    try:
        fitted = _unpack(policy, arrays.load(path))
    except ValueError as error:
        raise ArtifactError([Problem("", str(error), str(path))]) from error
    check_upstreams(folder, policy, models)
    whole = policy.model_dump(mode="json") | {"certificate": sha256(folder / CERTIFICATE_FILE)}
    short = hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    return Artifacts(models, contract, fitted, certificate, f"{policy.name}@{policy.version}#{short}")


def input_only(name: str) -> str:
    """What the second form of a stage is called in `guards.npz`."""
    return f"{name}.input_only"


def _unpack(policy: Policy, packed: arrays.Arrays) -> Fitted:
    ood: dict[str, Ood] = {}
    squeeze: dict[str, Squeeze] = {}
    for guard in policy.guards:
        match guard:
            case OodPolicy(name=name):
                ood[name] = arrays.unpack(Ood, name, packed)
                if guard.without_features == "input_only":
                    ood[input_only(name)] = arrays.unpack(Ood, input_only(name), packed)
            case SqueezePolicy(name=name):
                squeeze[name] = arrays.unpack(Squeeze, name, packed)
            case RatePolicy():
                pass
            case _:
                assert_never(guard)
    return Fitted(ood, squeeze)


def contract_of(folder: Path, policy: Policy, models: Mapping[str, LoadedModel]) -> Contract:
    """What the deployment takes and gives on the wire. Raises PolicyError where the models do not fit."""
    primary = models[policy.rungs[0].name]
    problems: list[Problem] = []
    for i, (name, model) in enumerate(models.items()):
        if set(model.inputs) != set(primary.inputs):
            problems.append(locate(folder, ("rungs", i, "model"), "takes other inputs than the first rung"))
        given = {spec.name: spec for spec in model.outputs}
        wanted = {spec.name: spec for spec in primary.outputs}
        for j, output in enumerate(policy.expose):
            if output not in given or given[output] != wanted.get(output, given[output]):
                nearest = closest(output, set(given))
                what = f"{output!r} is no such output of rung {name!r}"
                problems.append(locate(folder, ("expose", j), what, nearest))
    classes = {
        spec.shape[-1] for spec in primary.outputs if spec.name in policy.expose and len(spec.shape) > 1
    }
    if not problems and policy.labels and classes and not classes & {None, len(policy.labels)}:
        what = f"names {len(policy.labels)} labels, but the model has {min(c or 0 for c in classes)} classes"
        problems.append(locate(folder, ("labels",), what))
    for name in policy.inputs.keys() - {spec.name for spec in primary.inputs}:
        nearest = closest(name, {spec.name for spec in primary.inputs})
        problems.append(locate(folder, ("inputs", name), "is not an input of the first rung", nearest))
    if problems := problems or list(_unreadable(folder, policy, models)):
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
    return Contract(
        policy.name, inputs, outputs, policy.serving.max_batch_rows, policy.version, tuple(policy.labels)
    )


def _unreadable(folder: Path, policy: Policy, models: Mapping[str, LoadedModel]) -> Iterator[Problem]:
    """Guards and checks that cannot read what the models take or give."""
    first = models[policy.rungs[0].name].inputs[0]
    for i, guard in enumerate(policy.guards):
        if isinstance(guard, OodPolicy) and guard.input_only and first.dtype.kind == "O":
            what = f"{guard.input_only[0]} reads the first input as numbers, and {first.name!r} is text"
            what += "; keep the detectors that read features or logits, with without_features: defer"
            yield locate(folder, ("guards", i, "detectors"), what)
        elif isinstance(guard, SqueezePolicy) and first.dtype != np.float32:
            what = f"squeezes the first input as FP32, and {first.name!r} is {first.dtype}; leave it out"
            yield locate(folder, ("guards", i, "kind"), what)
    read = Confidence().output
    for i, rung in enumerate(policy.rungs):
        sure = next((spec for spec in models[rung.name].outputs if spec.name == read), None)
        if rung.checks and (sure is None or sure.dtype.kind != "f" or len(sure.shape) != 2):
            what = f"reads {read!r}, a float for each class, and the model has no such output"
            yield locate(folder, ("rungs", i, "checks", 0), what)
