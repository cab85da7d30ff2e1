"""The policy: one YAML file that states the guards, their cuts, and what happens when they fail.

One schema. Unknown fields are refused; `locate.py` finds the line of a problem, `read.py` reads the file. The
kinds of guards and checks are in `kinds/`, one file each. Nothing here opens a model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias, assert_never

from pydantic import Discriminator, Field, Tag, model_validator

from gateway.policy.circuit import CircuitPolicy
from gateway.policy.fields import Name, SchemaOne, Seconds, Share, Strict
from gateway.policy.kinds import CheckPolicy, GuardPolicy
from gateway.policy.review import ReviewPolicy
from gateway.policy.serving import Serving

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
    retries: Annotated[int, Field(ge=0, le=3)] = 1
    """How often a call is sent again that no model answered: the connection was refused or reset, or the
    server says that it is unavailable. Within `budget_s`, and with hedges at most 20 % of the recent calls.
    What the server answers is never asked for again."""
    hedge: bool = False
    """Whether a call that is slower than 95 % of the recent ones is sent a second time beside the first, and
    the first answer taken. For a `url` behind which several servers stand; it costs them up to 5 % more."""


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
    the next rung. Five failures in a row open the rung's circuit for 5 s, unless one caller had a part in
    all of them and the model answers a row that calibration kept."""
    circuit: CircuitPolicy = CircuitPolicy()
    """When too many of its recent calls have failed or were slow, so that the circuit opens as well."""
    checks: Annotated[list[CheckPolicy], Field(max_length=1)] = []
    """What judges each answer of this rung before it leaves. A row whose answer does not pass goes on to the
    next rung; without a check every answer passes, and counts in `answered_error`."""


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
    """The queue to human reviewers. Without it every row that needs review is refused: as `abstained` (422)
    where a guard or a check has stopped it, as `unavailable` (503) where something failed."""
    waivers: dict[str, Annotated[str, Field(pattern=r"\S")]] = {}
    """Why a guard or check may fail open, by its name: `{ood: a demo without consequences}`. `gateway check`
    refuses one that is enforced, says `on_error: allow` and has no entry. A `rate` needs none: the guards
    judge the rows that a broken limit lets through."""
    expose: Annotated[list[str], Field(min_length=1)]
    """The model outputs that callers may see. Every rung has them, with equal datatype and shape. The others,
    such as `features` and `logits`, never leave the gateway. Errors were counted of these outputs, so others
    take a new calibration."""
    disclosure: dict[str, TierPolicy] = {}
    """How exactly each tier of callers sees floating outputs, by the tier's name: `anonymous`, and the names
    that `gateway key --tier` gives to keys. A tier without an entry gets `{rounded: 2}`."""
    serving: Serving = Serving()
    """Which callers are let in, and how much each replica takes."""

    def certified_part(self) -> dict[str, Any]:
        """The fields that the certificate binds: a change of any needs a new calibration.

        `conditions.py` has those whose change withdraws the promises instead. What is in neither cannot
        weaken a promise; `tests/deployment/test_every_field.py` names each of them, with the reason.
        """
        return {
            "name": self.name,
            "false_alarm_budget": self.false_alarm_budget,
            "false_alarm_by": None if self.false_alarm_by is None else self.model_dump()["false_alarm_by"],
            "task": self.task,
            "answered_error": self.answered_error,
            "absolute_error": None if self.absolute_error is None else self.absolute_error.model_dump(),
            "inputs": {name: one.model_dump() for name, one in self.inputs.items()},
            "labels": self.labels,
            "expose": self.expose,
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
