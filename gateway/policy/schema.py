"""The policy: one YAML file that says what is measured, where it is cut, what happens when it fails.

One schema. Unknown fields are refused, duplicate keys are refused, and every problem is reported with its
file, line and field, what is wrong, and the nearest valid choice. Nothing here opens a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, assert_never

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fallbacks.oip.address import UpstreamAddress
from gateway.core.errors import PolicyError, Problem
from gateway.policy.locate import Loc, closest, dotted, duplicates, explain, line_of

__all__ = ["Policy", "closest", "load_policy", "locate"]

POLICY_FILE = "gateway.yaml"

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=60)]
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
AnyVerdict: TypeAlias = Literal["allow", "degrade", "defer", "refuse"]
CheckVerdict: TypeAlias = Literal["allow", "degrade"]


class Strict(BaseModel):
    """Unknown fields are refused, nothing is converted (yes is no number), and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


CertifiedCut: TypeAlias = Annotated[
    dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(min_length=1, max_length=1)
]


class RatePolicy(Strict):
    """At most `per_s` rows a second and `burst` at once, for each caller and each replica."""

    name: Name
    kind: Literal["rate"]
    per_s: Annotated[float, Field(gt=0)]
    burst: Annotated[float, Field(ge=1)]
    cuts: Annotated[dict[Literal["refuse"], Annotated[float, Field(ge=1, le=1)]], Field(min_length=1)] = {
        "refuse": 1.0
    }
    budget_s: Seconds
    on_error: AnyVerdict
    enforce: bool = True


class OodPolicy(Strict):
    """Is this input like those the model was calibrated on? Cut by the certificate.

    `share` weighs how much of the one false-alarm budget this guard may spend, beside the others.
    """

    name: Name
    kind: Literal["ood"]
    detectors: Annotated[
        list[Literal["gen", "fdbd", "rmd", "residual", "knn", "noise", "raw"]], Field(min_length=1)
    ]
    cuts: Annotated[
        dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(min_length=1, max_length=1)
    ]
    without_features: Literal["input_only", "defer"] = "input_only"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    budget_s: Seconds
    on_error: AnyVerdict
    enforce: bool = True

    @property
    def input_only(self) -> list[str]:
        """The detectors that need the input alone."""
        return [name for name in self.detectors if name in ("noise", "raw")]


class SqueezePolicy(Strict):
    """Does the answer change when the image is squeezed? Cut by the certificate."""

    name: Name
    kind: Literal["squeeze"]
    cuts: Annotated[
        dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(min_length=1, max_length=1)
    ]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    budget_s: Seconds
    on_error: AnyVerdict
    enforce: bool = True


GuardPolicy: TypeAlias = Annotated[RatePolicy | OodPolicy | SqueezePolicy, Field(discriminator="kind")]


class ConfidencePolicy(Strict):
    """Is this rung sure enough? Certifies that at most `selective_error` of what it answers is wrong."""

    name: Name
    kind: Literal["confidence"]
    selective_error: Share
    budget_s: Seconds
    on_error: CheckVerdict
    enforce: bool = True


class OnnxPolicy(Strict):
    """A model in this folder, run by ONNX Runtime in the replica."""

    kind: Literal["onnx"]
    path: str


class OipPolicy(Strict):
    """A model in a server that speaks the Open Inference Protocol: Triton, KServe, MLServer, this gateway.

    `names`: our name of an input or output, to the server's. `encoder`: a model in this folder that answers
    the same rows beside it, for guards that need features. `token_env`: the variable that holds a token.
    """

    kind: Literal["oip"]
    url: str
    model: Annotated[str, Field(min_length=1, max_length=256)]
    version: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    names: dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]] = {}
    encoder: str | None = None
    token_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None


ModelPolicy: TypeAlias = Annotated[OnnxPolicy | OipPolicy, Field(discriminator="kind")]


class RungPolicy(Strict):
    """One step of the ladder."""

    name: Name
    model: ModelPolicy
    budget_s: Seconds
    checks: Annotated[list[ConfidencePolicy], Field(max_length=1)] = []


class ReviewPolicy(Strict):
    """Where people answer. `expire_after_s` bounds how long a caller may wait for one."""

    store: Annotated[str, Field(pattern=r"^sqlite:///.+")]
    capacity: Annotated[int, Field(ge=1)]
    expire_after_s: Annotated[float, Field(ge=1)]
    on_expire: Literal["refuse"] = "refuse"
    budget_s: Seconds = 0.25


class Range(Strict):
    """What values an input may have; what lies outside is the caller's to mend."""

    low: float
    high: float

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class RoundedTier(Strict):
    rounded: Annotated[int, Field(ge=1, le=6)]


class TopTier(Strict):
    top: Annotated[int, Field(ge=1)]


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


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("literal_error", "Input should be 1")
    return value


SchemaOne: TypeAlias = Annotated[Literal[1], BeforeValidator(_no_bool), Field(alias="schema")]


class TlsFiles(Strict):
    """Two PEM files, relative to the deployment folder; the certificate's may hold its chain."""

    certificate: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]


class Serving(Strict):
    """Where and how wide, each limit for one replica. A public bind needs `tls` or `trusted_proxies`.

    max_connections: of HTTP, and as many again of gRPC; max_connections_per_caller: of HTTP; behind
    `trusted_proxies` the connections are the proxies' and only the first holds. max_in_flight: requests of
    either. base_path: what may stand before `/v2` in a URL, such as `/models`; paths without it work as well.
    """

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    max_batch_rows: Annotated[int, Field(ge=1, le=1024)] = 128
    max_queued_rows: Annotated[int, Field(ge=1)] = 4096
    max_connections: Annotated[int, Field(ge=1, le=65_536)] = 2048
    max_connections_per_caller: Annotated[int, Field(ge=1, le=65_536)] = 256
    max_in_flight: Annotated[int, Field(ge=1)] = 4096
    max_in_flight_per_caller: Annotated[int, Field(ge=1)] = 256
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    anonymous: Literal["loopback", "nobody"] = "nobody"
    trusted_proxies: list[str] = []
    tls: TlsFiles | None = None


class Policy(Strict):
    """The whole of `gateway.yaml`."""

    schema_: SchemaOne
    name: Name
    version: str = "1"
    mode: Literal["enforce", "observe"] = "enforce"
    deadline_s: Seconds
    false_alarm_budget: Annotated[float, Field(gt=0, le=0.5)]
    answered_error: Share
    delta: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    inputs: dict[str, Range] = {}
    labels: list[str] = []
    guards: list[GuardPolicy]
    rungs: Annotated[list[RungPolicy], Field(min_length=1)]
    review: ReviewPolicy | None = None
    expose: Annotated[list[str], Field(min_length=1)]
    disclosure: dict[str, TierPolicy] = {}
    serving: Serving = Serving()

    def certified_part(self) -> dict[str, Any]:
        """What the certificate speaks of: change any of it and calibration must run again."""
        return {
            "name": self.name,
            "false_alarm_budget": self.false_alarm_budget,
            "answered_error": self.answered_error,
            "delta": self.delta,
            "guards": [
                g.model_dump(include={"name", "kind", "detectors", "without_features", "share"})
                for g in self.guards
                if not isinstance(g, RatePolicy)
            ],
            "rungs": [
                {
                    "name": r.name,
                    **_certified_model(r.model),
                    "checks": [c.model_dump(exclude={"budget_s", "on_error"}) for c in r.checks],
                }
                for r in self.rungs
            ],
        }


def _certified_model(model: ModelPolicy) -> dict[str, Any]:
    """Not where an upstream is: it is known by its answers, and may move."""
    match model:
        case OnnxPolicy():
            return {"path": model.path}
        case OipPolicy():
            return {"upstream": model.model_dump(include={"model", "version", "names", "encoder"})}
        case _:
            assert_never(model)


def load_policy(folder: Path) -> Policy:
    """Reads and validates `gateway.yaml`. Raises PolicyError with every problem found."""
    path = folder / POLICY_FILE
    root, held = _read(path)
    try:
        policy = Policy.model_validate(held)
    except ValidationError as error:
        raise PolicyError(
            [explain(e, path, root, Policy) for e in error.errors(include_url=False)]
        ) from error
    crossed = [Problem(dotted(at), what, str(path), line_of(root, at)) for at, what in _cross_check(policy)]
    if crossed:
        raise PolicyError(crossed)
    return policy


def locate(folder: Path, at: Loc, what: str, nearest: str = "") -> Problem:
    """A problem at a place of the policy file, found after it was read (a missing model, say)."""
    path = folder / POLICY_FILE
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return Problem(dotted(at), what, str(path), line_of(root, at), nearest)


def _read(path: Path) -> tuple[yaml.Node | None, Any]:
    """The file as nodes, which know their lines, and as values. Aliases can unfold for ever: refused."""
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise PolicyError([Problem("", "aliases are not taken", str(path), line)])
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        held = yaml.safe_load(text)
    except OSError as error:
        raise PolicyError([Problem("", f"cannot be read: {error.strerror}", str(path))]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        what = f"is not YAML: {getattr(error, 'problem', None) or error}"
        raise PolicyError([Problem("", what, str(path), line)]) from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:  # a date that is none, say
        raise PolicyError(
            [Problem("", f"holds a value that YAML cannot make: {error}", str(path), 1)]
        ) from error
    if twice := [Problem(key, "appears twice", str(path), line) for key, line in duplicates(root)]:
        raise PolicyError(twice)
    return root, held


def _cross_check(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Rules that span fields."""
    places: dict[str, list[Loc]] = {}
    for i, guard in enumerate(policy.guards):
        places.setdefault(guard.name, []).append(("guards", i, "name"))
    for i, rung in enumerate(policy.rungs):
        places.setdefault(rung.name, []).append(("rungs", i, "name"))
        for j, check in enumerate(rung.checks):
            places.setdefault(check.name, []).append(("rungs", i, "checks", j, "name"))
    if policy.name == "stats":
        yield ("name",), "is the path of the statistics of all models: choose another"
    for name, at in places.items():
        if len(at) > 1:
            yield at[-1], f"the name {name!r} is used {len(at)} times; stage names are unique"
    for i, guard in enumerate(policy.guards):
        if isinstance(guard, OodPolicy):
            yield from _check_detectors(guard, ("guards", i, "detectors"))
    for i, rung in enumerate(policy.rungs):
        if isinstance(rung.model, OipPolicy):
            try:
                UpstreamAddress.parse(rung.model.url)
            except ValueError as error:
                yield ("rungs", i, "model", "url"), str(error)
    spent_s = math.fsum(_budgets_s(policy))
    if spent_s > policy.deadline_s + 1e-9:
        what = f"{policy.deadline_s} s is less than the {spent_s:.3f} s that all budgets can take together"
        yield ("deadline_s",), what + "; a part that hangs would cost the answer"


def _check_detectors(guard: OodPolicy, at: Loc) -> Iterator[tuple[Loc, str]]:
    repeated = [name for name in dict.fromkeys(guard.detectors) if guard.detectors.count(name) > 1]
    if repeated:
        yield at, f"names {repeated[0]} twice"
    if guard.without_features == "input_only" and not guard.input_only:
        yield at, "needs raw or noise, or without_features: defer"


def _budgets_s(policy: Policy) -> Iterator[float]:
    yield from (guard.budget_s for guard in policy.guards)
    for rung in policy.rungs:
        yield from (rung.budget_s, *(check.budget_s for check in rung.checks))
    if policy.review is not None:
        yield policy.review.budget_s
