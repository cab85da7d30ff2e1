"""The certificate of calibration, bound to the digests of everything it depends on.

It is a statement about a population: for rows exchangeable with the samples of the calibration data, each
promise holds with probability at least 1 - delta over the draw of that data (`promises.py` says each in a
sentence, and what holds of all together). It speaks of rows as the compiled pipeline ends them while every
guard and check returns a number in time and the policy's `mode` is `enforce`.

It is checked at start against the loaded policy, models and guards; a mismatch refuses to start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import orjson
from pydantic import BeforeValidator, Field

from fallbacks.regular_file import read_regular
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.deployment import Deployment
from gateway.policy.fields import Strict, refuse_bool
from gateway.policy.schema import Policy

CERTIFICATE_FILE = "certificate.json"
GUARDS_FILE = "guards.npz"
SCORES_FILE = "scores.npz"
Condition: TypeAlias = Annotated[float, Field(gt=0)] | str
"""A time budget in seconds, which may be longer, or a word, which may not differ."""
MOST_BYTES = 16 * 2**20


class SliceCut(Strict):
    """The cut of one slice of the rows: those of some predicted classes, or some values of an input."""

    values: list[str]
    n: int
    k: int
    cut: float


class FalseAlarm(Strict):
    """The k-th largest of n calibration risks as the cut: P(false-alarm rate > budget) <= delta.

    slices: where the policy asks for a cut a slice, all of them; each row is in exactly one, and one without
    values holds every other row. Their budgets hold together with probability 1 - delta; n and k are then
    sums, and `cut` is the one that the slices' cuts are shifted to. promised: not if every row is stopped for
    another reason.
    """

    budget: float
    delta: float
    n: int
    k: int
    cut: float
    slices: list[SliceCut]
    promised: bool = True


class Selective(Strict):
    """Learn then Test: with probability 1 - delta at most `risk` of the accepted rows is wrong.

    n: the labelled rows that reach it; accepted, errors: of these; bound: of the error at level delta.
    while_gone: the rungs that gave no answer; none: every model works.
    """

    risk: float
    delta: float
    cut: float
    n: int
    accepted: int
    errors: int
    bound: float
    coverage: float
    while_gone: list[str]


class MeanError(Strict):
    """With probability 1 - delta the absolute error of what is answered is at most `mean` on average.

    mean, clip: of the policy; n: the answered rows; average: of their errors, each at most `clip`; bound: of
    the expectation at level delta.
    """

    mean: float
    clip: float
    delta: float
    n: int
    average: float
    bound: float


class ClassNames(Strict):
    """The classes of the model, in the order of its probabilities.

    values: what output `label` holds for each, or none; by_name: whether the rows name classes by these
    names, so that another order of labels would be another certificate; unseen: those of which there were no
    rows.
    """

    kind: Literal["classes"]
    names: list[str]
    values: list[int] | list[str]
    by_name: bool
    unseen: list[str]


class NumberRange(Strict):
    """The range of the true values of the rows."""

    kind: Literal["number"]
    low: float
    high: float


class NoTarget(Strict):
    """Rows without true values."""

    kind: Literal["none"]


class ParityFinding(Strict):
    """How far the model is from its original: the finding, and the warning if it is another model."""

    finding: str
    warning: str | None


CertifiedTarget: TypeAlias = Annotated[ClassNames | NumberRange | NoTarget, Field(discriminator="kind")]


class SampleCounts(Strict):
    """What the data's rows count as: by rows, by equal copies of them, or by the file's groups.

    unused: the arrays or columns of the file that nothing takes.
    """

    rows: int
    counted: int
    by: Literal["rows", "equal copies", "distinct rows", "groups"]
    warning: str | None
    unused: list[str]


class Confidence(Strict):
    """How sure the promises are: each alone, all `promises` of them together, and over all attempts.

    attempts: how many calibrations have read these rows, this one included; a calibration that is repeated
    until it passes certifies the luckiest draw, so `over_attempts` counts each of them.
    """

    each: float
    promises: int
    together: float
    attempts: int
    over_attempts: float


class Digests(Strict):
    """sha256 of what the certificate is bound to."""

    policy: str
    models: dict[str, str]
    guards: str
    scores: str
    data: str


class Certificate(Strict, populate_by_name=True):
    """The whole of `certificate.json`.

    rows: samples in each fold. false_alarm: of all certified guards together, also those that are only
    observed; without_features: of their input-only forms. selective: by rung, where its check acts;
    unpromised_cuts: by rung, of checks without a promise. answered: over all rungs; absolute_error: the same,
    of a regressor's numbers. target: what the rows' true values are. unguarded: the inputs that no guard
    reads, and why. parity: where the file has the original's own outputs. not_promised: what this policy or
    these rows leave without a promise, one sentence each. conditions: the values of fields of the policy that
    may change without a new calibration, and withdraw every promise if they do (`promises.py`). rows_apart:
    the rungs whose rows are run one at a time, since they change each other's answers.
    """

    schema_: Annotated[Literal[4], BeforeValidator(refuse_bool), Field(alias="schema")]
    deployment: str
    population: str
    samples: SampleCounts
    rows: dict[str, int]
    false_alarm: FalseAlarm | None
    without_features: FalseAlarm | None
    selective: dict[str, Selective]
    unpromised_cuts: dict[str, float]
    answered: Selective | None
    absolute_error: MeanError | None
    target: CertifiedTarget
    unguarded: dict[str, str]
    parity: ParityFinding | None
    confidence: Confidence
    not_promised: list[str]
    conditions: dict[str, Condition]
    rows_apart: list[str] = Field(default_factory=list)
    digests: Digests

    def cut_of(self, rung: str) -> float | None:
        """The cut of a rung's check, promised or not; None if there is none."""
        promised = self.selective.get(rung)
        return self.unpromised_cuts.get(rung) if promised is None else promised.cut

    def write(self, folder: Path) -> None:
        """Writes `certificate.json`, readable, with sorted keys; without `rows_apart` if that is empty."""
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        without = set() if self.rows_apart else {"rows_apart"}
        fields = self.model_dump(by_alias=True, exclude=without)
        (folder / CERTIFICATE_FILE).write_bytes(orjson.dumps(fields, option=options))


def policy_digest(policy: Policy) -> str:
    """sha256 of the part of the policy that the certificate binds."""
    return hashlib.sha256(orjson.dumps(policy.certified_part(), option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_certificate(folder: Path) -> Certificate:
    """Reads `certificate.json`. Raises ArtifactError if it is missing or not of this form."""
    path = folder / CERTIFICATE_FILE
    if not path.exists():
        what = "is missing: run `gateway calibrate` with held-out data"
        raise ArtifactError([Problem("", what, str(path))])
    try:
        return Certificate.model_validate_json(read_regular(path, MOST_BYTES, "no certificate is so large"))
    except ValueError as error:
        what = "is not a certificate of this version: run `gateway calibrate` again"
        raise ArtifactError([Problem("", what, str(path))]) from error


def verify(
    certificate: Certificate, deployment: Deployment, models: Mapping[str, str], guards: str, scores: str
) -> None:
    """Raises ArtifactError if the certificate is of another policy or model, or of other files' digests."""
    mismatches: dict[str, str] = {}
    if certificate.digests.policy != policy_digest(deployment.policy):
        mismatches["digests.policy"] = (
            "the guards, checks, ranges, labels or budgets in gateway.yaml have changed"
        )
    for name, digest in models.items():
        if certificate.digests.models.get(name) != digest:
            mismatches[f"digests.models.{name}"] = (
                f"the model of rung {name!r} is not the one that was certified"
            )
    if certificate.digests.guards != guards:
        mismatches["digests.guards"] = f"{GUARDS_FILE} is not the one that was certified"
    if certificate.digests.scores != scores:
        mismatches["digests.scores"] = f"{SCORES_FILE} is not the one that was certified"
    if mismatches:
        hint, path = "; run `gateway calibrate` again", str(deployment.folder / CERTIFICATE_FILE)
        raise ArtifactError([Problem(field, what + hint, path) for field, what in mismatches.items()])


def sha256(path: Path) -> str:
    """The digest of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
