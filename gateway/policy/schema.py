"""The policy: one YAML file that says what is measured, where it is cut, what happens when it fails.

One schema. Unknown fields are refused; `locate.py` finds the line of a problem, `read.py` reads the file. The
kinds of guards and checks stand in `kinds/`, one file each. Nothing here opens a model.
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
    checks: Annotated[list[CheckPolicy], Field(max_length=1)] = []


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
    """Not where an upstream is: it is known by its answers, and may move."""
    match model:
        case OnnxPolicy():
            return {"path": model.path}
        case OipPolicy():
            return {"upstream": model.model_dump(include={"model", "version", "names", "encoder"})}
        case _:
            assert_never(model)


def contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Fields of a policy that contradict each other, with what is wrong."""
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
        for field, what in guard.contradictions():
            yield ("guards", i, *field), what
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


def _budgets_s(policy: Policy) -> Iterator[float]:
    yield from (guard.budget_s for guard in policy.guards)
    for rung in policy.rungs:
        yield from (rung.budget_s, *(check.budget_s for check in rung.checks))
    if policy.review is not None:
        yield policy.review.budget_s
