"""What calibration certifies, bound to the digests of everything it depends on.

A certificate is a statement about a population: for rows exchangeable with the calibration data, with
probability at least 1 - delta over the draw of that data,

* the guards together stop at most `budget` of good rows (`false_alarm`), and so does their input-only form,
  which takes over when the primary is gone (`without_features`);
* at most `risk` of what a rung answers is wrong (`selective`), and of everything answered (`answered`).

It is checked at start against the loaded policy, models and guards; a mismatch refuses to start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import orjson
from pydantic import ValidationError

from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.deployment import Deployment
from gateway.policy.fields import SchemaOne, Strict
from gateway.policy.schema import Policy

CERTIFICATE_FILE = "certificate.json"
GUARDS_FILE = "guards.npz"


class FalseAlarm(Strict):
    """The k-th largest of n calibration risks as the cut: P(false-alarm rate > budget) <= delta."""

    budget: float
    delta: float
    n: int
    k: int
    cut: float


class Selective(Strict):
    """Fixed-sequence Learn-then-Test: with probability 1 - delta at most `risk` of the accepted is wrong."""

    risk: float
    delta: float
    cut: float
    n: int
    accepted: int
    errors: int
    bound: float
    coverage: float


class Digests(Strict):
    """sha256 of what the certificate is bound to."""

    policy: str
    models: dict[str, str]
    guards: str
    data: str


class Certificate(Strict, populate_by_name=True):
    """The whole of `certificate.json`."""

    schema_: SchemaOne
    deployment: str
    population: str
    rows: dict[str, int]
    false_alarm: FalseAlarm | None
    without_features: FalseAlarm | None
    selective: dict[str, Selective]
    answered: Selective | None
    digests: Digests

    def write(self, folder: Path) -> None:
        """Writes `certificate.json`, readable and with sorted keys."""
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        (folder / CERTIFICATE_FILE).write_bytes(orjson.dumps(self.model_dump(by_alias=True), option=options))


def policy_digest(policy: Policy) -> str:
    """sha256 of the part of the policy that the certificate binds."""
    return hashlib.sha256(orjson.dumps(policy.certified_part(), option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_certificate(folder: Path) -> Certificate:
    """Reads `certificate.json`. Raises ArtifactError if it is missing or not of this form."""
    path = folder / CERTIFICATE_FILE
    try:
        return Certificate.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        what = "is missing: run `gateway calibrate` with held-out data"
        raise ArtifactError([Problem("", what, str(path))]) from error
    except (OSError, ValidationError) as error:
        what = "is not a certificate of this version: run `gateway calibrate` again"
        raise ArtifactError([Problem("", what, str(path))]) from error


def verify(certificate: Certificate, deployment: Deployment, models: Mapping[str, str], guards: str) -> None:
    """Refuses a certificate of another policy, model or guard file. Raises ArtifactError."""
    wrong: dict[str, str] = {}
    if certificate.digests.policy != policy_digest(deployment.policy):
        wrong["digests.policy"] = "the guards, checks or budgets in gateway.yaml have changed"
    for name, digest in models.items():
        if certificate.digests.models.get(name) != digest:
            wrong[f"digests.models.{name}"] = f"the model of rung {name!r} is not the one that was certified"
    if certificate.digests.guards != guards:
        wrong["digests.guards"] = f"{GUARDS_FILE} is not the one that was certified"
    if wrong:
        hint, path = "; run `gateway calibrate` again", str(deployment.folder / CERTIFICATE_FILE)
        raise ArtifactError([Problem(field, what + hint, path) for field, what in wrong.items()])


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
