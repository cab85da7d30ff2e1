"""What a policy names, loaded and checked against the certificate: models, fitted guards, wire contract.

PolicyError and ArtifactError are raised here and in `compile`, and nowhere later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from fallbacks.predictor import LoadedModel
from gateway.core.errors import ArtifactError, Problem, Problems
from gateway.deployment.certificate import (
    CERTIFICATE_FILE,
    GUARDS_FILE,
    Certificate,
    load_certificate,
    sha256,
    verify,
)
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import check_upstreams, read_upstreams
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract
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
