"""The policy: one YAML file that states the guards, their cuts, and what happens when they fail.

One schema. Unknown fields are refused; `locate.py` finds the line of a problem, `read.py` reads the file. The
kinds of guards and checks are in `kinds/`, one file each. Nothing here opens a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, TypeAlias, assert_never

from pydantic import Discriminator, Field, Tag, model_validator

from fallbacks.oip.address import UpstreamAddress
from gateway.policy.fields import Name, SchemaOne, Seconds, Share, Strict
from gateway.policy.kinds import CheckPolicy, GuardPolicy
from gateway.policy.locate import Loc

TensorNames: TypeAlias = dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]
"""This deployment's names of inputs and outputs, mapped to the model's own."""


class OnnxPolicy(Strict):
    """A model in this folder, run by ONNX Runtime in the replica."""

    kind: Literal["onnx"]
    """A model file in the deployment folder."""
    path: str
    """The ONNX file, relative to the deployment folder, loaded at start and tried on rows that calibration
    kept. The certificate binds its content too: another model needs `gateway calibrate`."""
    names: TensorNames = {}
    """This deployment's name of an input or output, mapped to the file's: `{probabilities: output-0}`. Names
    that are equal on both sides may be left out. Guards, checks and reviewers know outputs by their role:
    `probabilities`, `logits`, `label`, `features`, `value`, `lower`, `upper`."""


class OipPolicy(Strict):
    """A model in a server that speaks the Open Inference Protocol: Triton, KServe, MLServer, this gateway."""

    kind: Literal["oip"]
    """A model in another server."""
    url: str
    """Where the server is: `http://host:port`, `https://host`, `grpc://host:port` or `grpcs://host:port`;
    over HTTP a path prefix may follow. No user, password, query or fragment. The server may move: the
    certificate knows it by its answers, which `gateway calibrate` keeps in `upstreams.json`."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """The model's name at the server."""
    version: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The model's version at the server; without one, the version that the server chooses."""
    names: TensorNames = {}
    """The same as of a model in a file: this deployment's names, mapped to the server's."""
    encoder: str | None = None
    """An ONNX file in the deployment folder that answers the same rows beside the server. Its outputs,
    `features` and `logits` for instance, stand beside the server's, for guards that need what the server does
    not return."""
    token_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    """The environment variable that holds the bearer token for the server: printable ASCII without spaces.
    Without it no token is sent. It is read whenever the policy is loaded."""


ModelPolicy: TypeAlias = Annotated[OnnxPolicy | OipPolicy, Field(discriminator="kind")]


class RungPolicy(Strict):
    """One model of the ladder, with the time it has and the check of its answers."""

    name: Name
    """The rung's name: in replies (`fs_served_by`), metrics, audit log and certificate. Unique among guards,
    rungs and checks."""
    model: ModelPolicy
    """The model of this rung. All rungs take the same inputs."""
    budget_s: Seconds
    """Seconds that the model may take for one batch. At the limit its answer is dropped and the rows go on to
    the next rung. Five failures in a row open the rung's circuit for 5 s."""
    checks: Annotated[list[CheckPolicy], Field(max_length=1)] = []
    """What judges each answer of this rung before it leaves. A row whose answer does not pass goes on to the
    next rung; without a check every answer passes, and counts in `answered_error`."""


REFUSE = "refuse"
"""What `none_of_these` says where no label is meant, even if one is called so."""


class ReviewPolicy(Strict):
    """The queue of rows that wait for a reviewer's answer."""

    store: Annotated[str, Field(pattern=r"^sqlite:///.+")]
    """The queue's SQLite file: `sqlite:///` and a path relative to the deployment folder (`sqlite:////` and
    an absolute path). Made where it is missing, shared by the replicas. A change needs a restart."""
    capacity: Annotated[int, Field(ge=1)]
    """Cases that may be open or leased at the same time. Rows beyond that are refused as `unavailable`."""
    expire_after_s: Annotated[float, Field(ge=1)]
    """Seconds from a case's arrival until it expires undecided. A reload applies a new value to new cases."""
    on_expire: Literal["refuse"] = "refuse"
    """What the caller of an expired case gets: a refusal as `unavailable`. There is no other choice."""
    none_of_these: Annotated[str, Field(min_length=1)] = REFUSE
    """How a row ends of which a reviewer says that it is none of the classes: `refuse` (as `abstained`), or
    one of `labels`, such as `other`, which is then the answer. A reload applies it to answers of before."""
    budget_s: Seconds = 0.25
    """Seconds that storing the rows of one batch may take. At the limit the rows are refused as
    `unavailable`."""


class InputPolicy(Strict):
    """What the values of one input may be."""

    low: float | None = None
    """The least value, inclusive."""
    high: float | None = None
    """The greatest value, inclusive; not below `low`."""
    shape: Annotated[list[Annotated[int, Field(ge=-1)]], Field(max_length=7)] | None = None
    """The sizes of one row, where the model leaves axes open: `[3, 48, 192]`. `-1` keeps an axis open, and
    the input unguarded. Without it, an input that guards read has the sizes of the calibration rows, and
    another may have any."""
    missing: Literal["allow", "refuse"] = "refuse"
    """`allow`: NaN, and `null` in JSON, is a missing value, which the model takes and guards judge as such.
    `refuse`: the request is invalid (400). Floats only; a text is missing where it is empty."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class AbsoluteError(Strict):
    """The expected absolute error of a regressor's answers."""

    mean: Annotated[float, Field(gt=0)]
    """The absolute error that answers may have on average, in the unit of `value`."""
    clip: Annotated[float, Field(gt=0)]
    """The most that a single error counts, in the same unit: an average of unbounded errors cannot be
    certified. Above `mean`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.clip <= self.mean:
            raise ValueError(f"clip {self.clip} is not above mean {self.mean}")
        return self


class InputSlices(Strict):
    """One slice for each value of an input."""

    input: Annotated[str, Field(min_length=1)]
    """The input: one value a row, text or a number."""


def _slices_arm(value: Any) -> str:
    """The arm of `SlicesPolicy` that a value of the file, or a validated one, belongs to."""
    return "input" if isinstance(value, (dict, InputSlices)) else "word"


SlicesPolicy: TypeAlias = Annotated[
    Annotated[Literal["predicted_class"], Tag("word")] | Annotated[InputSlices, Tag("input")],
    Discriminator(_slices_arm),
]


class RoundedTier(Strict):
    """Outputs rounded to a number of digits."""

    rounded: Annotated[int, Field(ge=1, le=6)]
    """Digits after the decimal point. Where rounding ties the largest value with one before it, the largest
    goes one step up, so that the first largest value stays the same."""


class TopTier(Strict):
    """Each row's largest values alone."""

    top: Annotated[int, Field(ge=1)]
    """How many of a row's largest values are shown. The others become 0, or the datatype's lowest number
    where 0 would not be smaller."""


def _tier_arm(value: Any) -> str:
    """The arm of `TierPolicy` that a value of the file, or a validated one, belongs to."""
    match value:
        case RoundedTier() | {"rounded": _}:
            return "rounded"
        case TopTier() | {"top": _}:
            return "top"
        case _:
            return "word"


TierPolicy: TypeAlias = Annotated[
    Annotated[Literal["full", "label"], Tag("word")]
    | Annotated[RoundedTier, Tag("rounded")]
    | Annotated[TopTier, Tag("top")],
    Discriminator(_tier_arm),
]


class TlsFiles(Strict):
    """The two PEM files of TLS."""

    certificate: Annotated[str, Field(min_length=1)]
    """The certificate, followed by its chain if it has one: a PEM file, relative to the deployment folder."""
    key: Annotated[str, Field(min_length=1)]
    """The certificate's private key without a password: a PEM file, relative to the deployment folder."""


class Serving(Strict):
    """Which callers are let in, and how much one replica takes: each limit is for one replica."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve under Ray, each with the limits of this block. `--replicas` overrides it;
    `--local` serves one. A change needs a restart."""
    max_batch_rows: Annotated[int, Field(ge=1, le=1024)] = 128
    """Rows that one request may have, and rows of several requests that are decided together. A request with
    more is invalid (400). Must not exceed what upstream servers take."""
    withheld_rows: Literal["refuse_request", "mark"] = "refuse_request"
    """What a request gets of which some rows are answered and some withheld. `refuse_request`: the end of its
    worst row and no outputs, unless it asks for `fs_row_outcome`. `mark`: 200 (OK) with the withheld rows
    blank (NaN, the type's minimum, empty; `null` in JSON), and how each row ended in `fs_row_outcomes`. For
    deployments whose every client reads that parameter: a blank row is no answer. A request whose every row
    is withheld ends as its worst row in either case."""
    max_queued_rows: Annotated[int, Field(ge=1)] = 4096
    """Rows that may wait for a batch or for the review queue's disk. At the limit a request is refused as
    `unavailable` at once, to be sent again after a second."""
    max_connections: Annotated[int, Field(ge=1, le=65_536)] = 2048
    """Open connections over HTTP, and as many again over gRPC; fewer where the limit of open files is too
    low, which the log says. At the limit the HTTP connection that has been idle longest gives way. Read at
    start only: a change needs a restart."""
    max_connections_per_caller: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Open HTTP connections of one caller; not counted behind `trusted_proxies`, whose connections are
    shared. Read at start only: a change needs a restart."""
    max_in_flight: Annotated[int, Field(ge=1)] = 4096
    """Requests under way at the same time over both protocols, those that wait for a reviewer's answer
    included. At the limit a request is refused as `unavailable`."""
    max_in_flight_per_caller: Annotated[int, Field(ge=1)] = 256
    """The same for one caller. At the limit the caller's request is refused as `rate_limited`."""
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """A prefix that URLs may have before `/v2`, such as `/team/a`; URLs without it work as well. A change
    needs a restart."""
    anonymous: Literal["loopback", "nobody"] = "nobody"
    """Which callers without a key are let in: those from loopback addresses (`loopback`) or none (`nobody`).
    Each address is a caller of its own, with the disclosure tier `anonymous` and the scope `infer`."""
    trusted_proxies: list[str] = []
    """Proxies whose `X-Forwarded-For` is believed: addresses, networks (`10.0.0.0/8`) and names, or only `*`
    for every peer. A caller's address is the rightmost one that is no trusted proxy. A change needs a
    restart."""
    tls: TlsFiles | None = None
    """The certificate and key of both data ports, TLS 1.2 and later; without it they speak plain text. Read
    at start only: a renewed certificate needs a restart."""


class Policy(Strict):
    """The whole of `gateway.yaml`."""

    schema_: SchemaOne
    """The version of this file's format; there is one."""
    name: Name
    """The deployment's name, and the model's in URLs: `/v2/models/NAME/infer`. Not `stats`. A change needs a
    restart and a new calibration."""
    version: str = "1"
    """The model version in replies and URLs. A text: quote a number."""
    task: Literal["classification", "regression", "opaque"] = "classification"
    """What the models answer: `classification` a class (outputs `probabilities`, `logits` or `label`),
    `regression` a number (`value`, maybe `lower` and `upper`), `opaque` any tensors, of which errors cannot
    be counted: guards of the input, fallbacks and review without a form are what there is."""
    mode: Literal["enforce", "observe"] = "enforce"
    """`enforce`: guards and checks act. `observe`: they only measure and record, so every row gets the answer
    of the first rung that has one, and the promises of the certificate do not hold."""
    deadline_s: Seconds
    """Seconds from a request's arrival to its answer. At the limit every row that is still open is refused
    (`deadline`, 504). A client can only shorten it. At least the sum of all budgets, review included."""
    false_alarm_budget: Annotated[float, Field(gt=0, le=0.5)]
    """The share of good rows that all certified guards together may stop. `gateway calibrate` certifies it,
    and refuses a budget that the held-out rows cannot support. A budget of 0.02 takes 559 rows; `gateway
    calibrate --plan` says how many another one takes."""
    false_alarm_by: SlicesPolicy | None = None
    """Which rows get a false-alarm cut of their own, so that the budget holds for each slice of the rows and
    not only on average: those of each class that the primary predicts (`predicted_class`), or of each value
    of an input (`{input: NAME}`). Slices with too few held-out rows share one cut. While the primary is gone
    no class is predicted: one cut then holds for all rows. Without this field there is one cut."""
    answered_error: Share | None = None
    """The share of all answers that may be wrong while every model works, rungs without a check included. A
    number is wrong where the true value lies outside `lower` to `upper`. Certified on held-out rows; where no
    rung has a check and the rows do not show it, nothing is promised. Required but for `task: opaque`."""
    absolute_error: AbsoluteError | None = None
    """How far a regressor's answers may be off on average: `{mean: 3.0, clip: 30.0}`. Certified on held-out
    rows over everything answered while every model works. Only for `task: regression`."""
    delta: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """The probability, over the draw of the held-out rows, with which one promise of the certificate may be
    false: 0.05 is a confidence of 95 % in each. The certificate says what holds of all together."""
    inputs: dict[str, InputPolicy] = {}
    """What an input's values may be, by the input's name. A value outside is the caller's to correct: the
    request is invalid (400) and names it. Inputs without an entry take any finite value of their datatype."""
    labels: list[str] = []
    """The names of the classes, in the order of the model's output: for the review console, for `y` of the
    calibration rows where it is text, and for replies to the `classification` parameter. As many as the model
    has classes; empty: the names that the model's file has, or numbers."""
    guards: list[GuardPolicy]
    """What judges a request before a model's answer may leave. A row gets the most severe verdict of all
    enforced guards, so their order changes no outcome; a refused row skips the guards behind."""
    rungs: Annotated[list[RungPolicy], Field(min_length=1)]
    """The models, in the order in which they are asked. The first is the primary: its answers are `served`,
    and guards read its outputs. Answers of later rungs are `degraded`, by name."""
    review: ReviewPolicy | None = None
    """The queue to human reviewers. Without it every row that needs review is refused as `unavailable`."""
    expose: Annotated[list[str], Field(min_length=1)]
    """The model outputs that callers may see. Every rung has them, with equal datatype and shape. The others,
    such as `features` and `logits`, never leave the gateway."""
    disclosure: dict[str, TierPolicy] = {}
    """How exactly each tier of callers sees floating outputs, by the tier's name: `anonymous`, and the names
    that `gateway key --tier` gives to keys. A tier without an entry gets `{rounded: 2}`."""
    serving: Serving = Serving()
    """Which callers are let in, and how much each replica takes."""

    def certified_part(self) -> dict[str, Any]:
        """The fields that the certificate binds: a change of any needs a new calibration."""
        return {
            "name": self.name,
            "false_alarm_budget": self.false_alarm_budget,
            "false_alarm_by": None if self.false_alarm_by is None else self.model_dump()["false_alarm_by"],
            "task": self.task,
            "answered_error": self.answered_error,
            "absolute_error": None if self.absolute_error is None else self.absolute_error.model_dump(),
            "inputs": {
                name: one.model_dump(include={"shape", "missing"}) for name, one in self.inputs.items()
            },
            "delta": self.delta,
            "guards": [bound for g in self.guards if (bound := g.model_dump(exclude=set(g.unbound)))],
            "rungs": [
                {
                    "name": r.name,
                    **_certified_model(r.model),
                    "checks": [c.model_dump(exclude=set(c.unbound)) for c in r.checks],
                }
                for r in self.rungs
            ],
        }


def _certified_model(model: ModelPolicy) -> dict[str, Any]:
    """The bound fields of a model. Not the address of an upstream, which may change."""
    match model:
        case OnnxPolicy():
            return {"path": model.path, "names": model.names}
        case OipPolicy():
            return {"upstream": model.model_dump(include={"model", "version", "names", "encoder"})}
        case _:
            assert_never(model)


def contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Fields of a policy that contradict each other, each with a message."""
    uses: dict[str, list[Loc]] = {}
    for i, guard in enumerate(policy.guards):
        uses.setdefault(guard.name, []).append(("guards", i, "name"))
    for i, rung in enumerate(policy.rungs):
        uses.setdefault(rung.name, []).append(("rungs", i, "name"))
        for j, check in enumerate(rung.checks):
            uses.setdefault(check.name, []).append(("rungs", i, "checks", j, "name"))
    if policy.name == "stats":
        yield ("name",), "is the path of the statistics of all models: choose another"
    for name, at in uses.items():
        if len(at) > 1:
            yield at[-1], f"the name {name!r} is used {len(at)} times; stage names are unique"
    for i, guard in enumerate(policy.guards):
        for field, what in guard.contradictions():
            yield ("guards", i, *field), what
    for i, rung in enumerate(policy.rungs):
        if isinstance(rung.model, OipPolicy):
            try:
                UpstreamAddress.parse(rung.model.url)
            except ValueError as error:
                yield ("rungs", i, "model", "url"), str(error)
    yield from _review_contradictions(policy)
    yield from _task_contradictions(policy)
    spent_s = math.fsum(_budgets_s(policy))
    if spent_s > policy.deadline_s + 1e-9:
        what = f"{policy.deadline_s} s is less than the {spent_s:.3f} s that all budgets can take together"
        yield ("deadline_s",), what + "; a part that hangs would cost the answer"


def _review_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """An end for a row of no class that is no label."""
    review = policy.review
    if review is not None and review.none_of_these not in (REFUSE, *policy.labels):
        what = f"{review.none_of_these!r} is not among `labels`: name one of them, or say {REFUSE}"
        yield ("review", "none_of_these"), what


def _task_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Promises and checks that the task cannot have, or lacks."""
    if policy.task == "opaque" and policy.answered_error is not None:
        yield (
            ("answered_error",),
            "has no meaning with task: opaque, whose errors cannot be counted: leave it out",
        )
    if policy.task != "opaque" and policy.answered_error is None:
        yield ("answered_error",), f"is missing: the share of wrong answers that task: {policy.task} may have"
    if policy.task != "regression" and policy.absolute_error is not None:
        yield ("absolute_error",), "is for task: regression alone: leave it out"
    for i, label in enumerate(policy.labels):
        if label in policy.labels[:i]:
            yield ("labels", i), f"{label!r} is there twice; a reviewer could not tell which class it names"
        elif not label.strip():
            yield ("labels", i), "is blank; name the class"
    if policy.task != "classification" and policy.labels:
        yield ("labels",), f"name classes, and task: {policy.task} has none: leave them out"
    if policy.task != "classification" and policy.false_alarm_by == "predicted_class":
        yield ("false_alarm_by",), f"no class is predicted with task: {policy.task}: leave it out"
    for i, rung in enumerate(policy.rungs):
        for j, check in enumerate(rung.checks):
            if check.task != policy.task:
                what = f"{check.kind} judges answers of task: {check.task}, and this is task: {policy.task}"
                yield ("rungs", i, "checks", j, "kind"), what


def _budgets_s(policy: Policy) -> Iterator[float]:
    yield from (guard.budget_s for guard in policy.guards)
    for rung in policy.rungs:
        yield from (rung.budget_s, *(check.budget_s for check in rung.checks))
    if policy.review is not None:
        yield policy.review.budget_s
