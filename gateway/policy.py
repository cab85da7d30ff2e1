"""The policy: one YAML file that says what is measured, where it is cut, what happens when it fails.

One schema. Unknown fields are refused, duplicate keys are refused, and every problem is reported with its
file, line and field, what is wrong, and the nearest valid choice. Nothing here opens a model.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import PolicyError, Problem

POLICY_FILE = "gateway.yaml"

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=60)]
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
AnyVerdict: TypeAlias = Literal["allow", "degrade", "defer", "refuse"]
CheckVerdict: TypeAlias = Literal["allow", "degrade"]
Loc: TypeAlias = tuple[int | str, ...]


class Strict(BaseModel):
    """Unknown fields are refused and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RatePolicy(Strict):
    """At most `per_s` rows a second and `burst` at once, for each caller and each replica."""

    name: Name
    kind: Literal["rate"]
    per_s: Annotated[float, Field(gt=0)]
    burst: Annotated[float, Field(ge=1)]
    cuts: dict[Literal["refuse"], Annotated[float, Field(ge=1, le=1)]] = {"refuse": 1.0}
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
    cuts: Annotated[dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(max_length=1)]
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
    cuts: Annotated[dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(max_length=1)]
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


class RungPolicy(Strict):
    """One step of the ladder."""

    name: Name
    model: OnnxPolicy
    budget_s: Seconds
    checks: list[ConfidencePolicy] = []


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


class Rounded(Strict):
    rounded: Annotated[int, Field(ge=1, le=6)]


class Top(Strict):
    top: Annotated[int, Field(ge=1)]


Tier: TypeAlias = Literal["full", "label"] | Rounded | Top


class Serving(Strict):
    """Where and how wide. A bind outside loopback needs `trusted_proxies`."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    max_batch_rows: Annotated[int, Field(ge=1, le=1024)] = 128
    max_queued_rows: Annotated[int, Field(ge=1)] = 4096
    anonymous: Literal["loopback", "nobody"] = "nobody"
    trusted_proxies: list[str] = []


class Policy(Strict):
    """The whole of `gateway.yaml`."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
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
    disclosure: dict[str, Tier] = {}
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
                    "path": r.model.path,
                    "checks": [c.model_dump(exclude={"budget_s", "on_error"}) for c in r.checks],
                }
                for r in self.rungs
            ],
        }


def load_policy(folder: Path) -> Policy:
    """Reads and validates `gateway.yaml`. Raises PolicyError with every problem found."""
    path = folder / POLICY_FILE
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise PolicyError([Problem("", f"cannot be read: {error.strerror}", str(path))]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = 0 if mark is None else mark.line + 1
        raise PolicyError(
            [Problem("", f"is not YAML: {getattr(error, 'problem', error)}", str(path), line)]
        ) from error
    twice = [Problem(key, "appears twice", str(path), line) for key, line in _duplicates(root)]
    if twice:
        raise PolicyError(twice)
    try:
        policy = Policy.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise PolicyError([_explain(e, path, root) for e in error.errors(include_url=False)]) from error
    crossed = [Problem(dotted(at), what, str(path), line_of(root, at)) for at, what in _cross_check(policy)]
    if crossed:
        raise PolicyError(crossed)
    return policy


def locate(folder: Path, at: Loc, what: str, nearest: str = "") -> Problem:
    """A problem at a place of the policy file, found after it was read (a missing model, say)."""
    path = folder / POLICY_FILE
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return Problem(dotted(at), what, str(path), line_of(root, at), nearest)


def dotted(at: Loc) -> str:
    """`("guards", 0, "per_s")` as `guards[0].per_s`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")


def line_of(root: yaml.Node | None, at: Loc) -> int:
    """The line (from 1) of the deepest part of `at` that exists; union tags, being no keys, are skipped."""
    node, line = root, 1
    for part in at:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    node, line = value, key.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield str(key.value), key.start_mark.line + 1
            seen.add(str(key.value))
            yield from _duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _duplicates(child)


_PARTS: tuple[type[Strict], ...] = (
    Policy, RatePolicy, OodPolicy, SqueezePolicy, ConfidencePolicy, OnnxPolicy, RungPolicy, ReviewPolicy,
    Range, Rounded, Top, Serving,
)  # fmt: skip
_KNOWN = {field.alias or name for part in _PARTS for name, field in part.model_fields.items()}


def _explain(error: Any, path: Path, root: yaml.Node | None) -> Problem:
    """One pydantic error in the words of somebody who has to mend it."""
    tags = {"rate", "ood", "squeeze"}
    at = tuple(part for i, part in enumerate(error["loc"]) if not (part in tags and i == 2))
    got, context = error.get("input"), error.get("ctx", {})
    what, nearest = error["msg"][0].lower() + error["msg"][1:], ""
    match error["type"]:
        case "extra_forbidden":
            what, nearest = "is not a field here", closest(str(at[-1]), _KNOWN)
        case "missing":
            what = "is missing"
            if at[-1] == "on_error":
                what += (
                    ": say allow (fail open), degrade, defer or refuse (fail closed); it is never inferred"
                )
        case "literal_error":
            what += f", not {got!r}"
            nearest = closest(str(got), re.findall(r"'([^']*)'", str(context.get("expected"))))
        case "union_tag_invalid":
            choices = re.findall(r"'([^']*)'", str(context.get("expected_tags")))
            at, what = (*at, "kind"), f"must be one of {', '.join(choices)}, not {context.get('tag')!r}"
            nearest = closest(str(context.get("tag")), choices)
        case _ if not isinstance(got, dict | list):
            what += f", not {got!r}"
    return Problem(dotted(at), what, str(path), line_of(root, at), nearest)


def closest(word: str, choices: Sequence[str] | set[str]) -> str:
    """The choice most like `word`, or nothing if none is."""
    return next(iter(difflib.get_close_matches(word, sorted(choices), n=1)), "")


def _cross_check(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Rules that span fields."""
    names = [g.name for g in policy.guards] + [r.name for r in policy.rungs]
    names += [c.name for r in policy.rungs for c in r.checks]
    for name, times in Counter(names).items():
        if times > 1:
            yield ("guards",), f"the name {name!r} is used {times} times; stage names are unique"
    for i, guard in enumerate(policy.guards):
        if isinstance(guard, OodPolicy):
            repeated = [d for d, times in Counter(guard.detectors).items() if times > 1]
            if repeated:
                yield ("guards", i, "detectors"), f"names {repeated[0]} twice"
            if guard.without_features == "input_only" and not guard.input_only:
                yield ("guards", i, "detectors"), "needs raw or noise, or without_features: defer"
    spent_s = sum(g.budget_s for g in policy.guards) + sum(r.budget_s for r in policy.rungs)
    spent_s += sum(c.budget_s for r in policy.rungs for c in r.checks)
    spent_s += policy.review.budget_s if policy.review else 0.0
    if spent_s > policy.deadline_s:
        what = f"{policy.deadline_s} s is less than the {spent_s:.3f} s that all budgets can take together"
        yield ("deadline_s",), what + "; a part that hangs would cost the answer"
