"""Models, what was fitted, and the wire contract of a deployment, checked against the certificate.

PolicyError and ArtifactError are raised here and in `compile`, not while serving.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from fallbacks.predictor import LoadedModel
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, Problem, Problems
from gateway.deployment.certificate import (
    CERTIFICATE_FILE,
    GUARDS_FILE,
    SCORES_FILE,
    Certificate,
    load_certificate,
    sha256,
    verify,
)
from gateway.deployment.certification.fitted_scores import check_fitted
from gateway.deployment.certification.recompute import differences, recomputed
from gateway.deployment.certification.scores_file import load_scores
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import Fitted, inputs_of_one_size, load_guards, unguarded
from gateway.deployment.interval_model import with_intervals
from gateway.deployment.kept_rows import KeptRows
from gateway.deployment.model_files import TriedWith
from gateway.deployment.models import load_models, try_models
from gateway.deployment.row_independence import in_files, run_apart, separate_rows
from gateway.deployment.target import target_of
from gateway.deployment.upstreams import check_upstreams, read_upstreams
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract
from guards.arrays import MOST_BYTES

TRIED_ROWS = 3
KNOWN_ROWS = 3
"""More than one, so that a model that mixes the rows of a batch up is found out too."""


@dataclass(frozen=True, slots=True, eq=False)
class Artifacts:
    """All files and models that a policy names, loaded and verified. tag: `name@version#digest`.

    fitted: guards, view and intervals; kept: rows that calibration kept; known_answers: of each model that is
    a file to the first KNOWN_ROWS of them, as it gave them when it was loaded; empty while calibrating.
    """

    models: Mapping[str, LoadedModel]
    contract: Contract
    fitted: Fitted
    kept: KeptRows
    certificate: Certificate
    tag: str
    known_answers: Mapping[str, Tensors] = field(default_factory=dict)

    def close(self) -> None:
        """Stops the models' threads, and starts to close their connections."""
        for model in self.models.values():
            model.close()

    async def closed(self) -> None:
        """Waits until `close` has completed."""
        for model in self.models.values():
            await model.closed()


def load_artifacts(deployment: Deployment, state: Path | None = None) -> Artifacts:
    """Models, guards and certificate, checked against each other. Raises PolicyError or ArtifactError.

    state: for what the gateway writes; None: `var` of the deployment.
    """
    tried = TriedWith(deployment.folder / GUARDS_FILE, state or deployment.var)
    models = load_models(deployment, read_upstreams(deployment), tried)
    try:
        return _verified(deployment, models)
    except Problems:
        for model in models.values():
            model.close()
        raise


def _verified(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Artifacts:
    folder, policy = deployment.folder, deployment.policy
    contract_of(deployment, models)  # what does not fit is told before what is missing
    certificate = load_certificate(folder)
    path = folder / GUARDS_FILE
    if not path.is_file():
        what = "is no regular file" if path.exists() else "is missing"
        raise ArtifactError([Problem("", f"{what}: run `gateway calibrate`", str(path))])
    if (size := path.stat().st_size) > MOST_BYTES:
        what = f"has {size} bytes, over the {MOST_BYTES} allowed: run `gateway calibrate` again"
        raise ArtifactError([Problem("", what, str(path))])
    digests = {name: model.digest for name, model in models.items()}
    scores = folder / SCORES_FILE
    verify(certificate, deployment, digests, sha256(path), sha256(scores) if scores.is_file() else "")
    fitted, kept = load_guards(policy, path)
    _recompute(certificate, deployment, fitted, kept)
    sizes = kept.sizes(inputs_of_one_size(policy, fitted.view))
    contract = contract_of(deployment, models, sizes, target_of(policy, certificate.target))
    try_models(deployment, models, kept.first(TRIED_ROWS))
    run_apart(models, [name for name in certificate.rows_apart if name in models])
    separate_rows(deployment, in_files(models), kept.x)
    check_upstreams(deployment, models)
    files = in_files(models)
    models = with_intervals(policy, models, fitted.view, fitted.intervals)
    known_answers = {name: models[name].run(kept.first(KNOWN_ROWS)) for name in files}
    tag = tag_of(policy, sha256(folder / CERTIFICATE_FILE))
    return Artifacts(models, contract, fitted, kept, certificate, tag, known_answers)


def tag_of(policy: Policy, certificate_sha256: str) -> str:
    """`name@version#digest` of a policy with its certificate, which binds the files beside it."""
    bound = policy.model_dump(mode="json") | {"certificate": certificate_sha256}
    digest = hashlib.sha256(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    return f"{policy.name}@{policy.version}#{digest}"


def _recompute(certificate: Certificate, deployment: Deployment, fitted: Fitted, kept: KeptRows) -> None:
    """Raises ArtifactError if the certificate says anything else than the kept scores and guards do."""
    policy, path = deployment.policy, str(deployment.folder / CERTIFICATE_FILE)
    scores = load_scores(deployment.folder / SCORES_FILE, policy)
    check_fitted(fitted, kept, scores.fitted, str(deployment.folder / GUARDS_FILE))
    found = recomputed(policy, certificate, scores).model_copy(
        update={"deployment": policy.name, "unguarded": unguarded(policy, fitted.view)}
    )
    different = [
        Problem(field, f"{what}; run `gateway calibrate`", path)
        for field, what in differences(certificate, found)
    ]
    if different:
        raise ArtifactError(different)
