"""The wire contract of a deployment: the inputs and outputs of its models, checked against the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from fallbacks.predictor import LoadedModel, ModelTensor
from fallbacks.roles import LOGITS, LOWER, PROBABILITIES, UPPER
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.deployment.interval_model import declared_outputs, without_value
from gateway.policy.locate import closest
from gateway.policy.schema import InputPolicy, InputSlices, OipPolicy, OnnxPolicy, Policy
from gateway.protocol.contract import ONNX_PLATFORM, UPSTREAM_PLATFORM, Contract, TensorSpec
from gateway.protocol.targets import NO_FORM, Classes, Target

Sizes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The sizes of one row of each input, as the calibration rows have them."""


def contract_of(
    deployment: Deployment,
    models: Mapping[str, LoadedModel],
    sizes: Sizes | None = None,
    target: Target = NO_FORM,
) -> Contract:
    """The deployment's inputs and outputs on the wire.

    Args:    sizes: for axes that models and policy leave open; without them such axes stay open. target: what
             a person may answer.
    Raises:  PolicyError where the models do not fit each other or the policy.
    """
    policy = deployment.policy
    primary = models[policy.rungs[0].name]
    problems = list(_rungs_that_differ(deployment, models)) or list(_wrong_labels(deployment, primary))
    problems += [*_unknown_inputs(deployment, primary), *_unknown_slices(deployment, primary)]
    if problems := problems or list(_unreadable(deployment, models)):
        raise PolicyError(problems)
    own = declared_outputs(policy.rungs[0], primary)
    outputs = tuple(TensorSpec(s.name, s.dtype, s.shape, bf16=s.bf16) for s in own if s.name in policy.expose)
    return Contract(
        policy.name,
        tuple(_input_spec(policy, spec, models, sizes or {}) for spec in primary.inputs),
        outputs,
        policy.serving.max_batch_rows,
        policy.version,
        _class_names(target),
        UPSTREAM_PLATFORM if isinstance(policy.rungs[0].model, OipPolicy) else ONNX_PLATFORM,
        target,
        withheld_rows=policy.serving.withheld_rows,
    )


def _class_names(target: Target) -> tuple[str, ...]:
    """The names of the classes, unless they are only their numbers."""
    if not isinstance(target, Classes) or target.names == tuple(map(str, range(len(target.names)))):
        return ()
    return target.names


def _input_spec(
    policy: Policy, spec: ModelTensor, models: Mapping[str, LoadedModel], sizes: Sizes
) -> TensorSpec:
    one = policy.inputs.get(spec.name, InputPolicy())
    all_onnx = all(isinstance(rung.model, OnnxPolicy) for rung in policy.rungs)
    return TensorSpec(
        spec.name,
        spec.dtype,
        (None, *_row_shape(spec.name, one, models, sizes)),
        one.low,
        one.high,
        spec.bf16,
        missing=one.missing == "allow",
        utf8=all_onnx and spec.dtype.kind == "O",
    )


def _row_shape(
    name: str, one: InputPolicy, models: Mapping[str, LoadedModel], sizes: Sizes
) -> tuple[int | None, ...]:
    """The sizes of one row: as a model fixes them, else as the policy, else as the calibration rows."""
    declared = [spec.shape[1:] for model in models.values() for spec in model.inputs if spec.name == name]
    fixed = [next((size for size in axis if size is not None), None) for axis in zip(*declared, strict=True)]
    given: Sequence[int | None] = sizes.get(name, fixed)
    if one.shape is not None:
        given = [None if size == -1 else size for size in one.shape]
    return tuple(size if known is None else known for known, size in zip(fixed, given, strict=True))


def _rungs_that_differ(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Iterator[Problem]:
    """Rungs that take other inputs than the first, or lack an exposed output of its form."""
    policy = deployment.policy
    primary = models[policy.rungs[0].name]
    wanted = {spec.name: spec for spec in declared_outputs(policy.rungs[0], primary)}
    for i, rung in enumerate(policy.rungs):
        model = models[rung.name]
        if what := _other_inputs(primary, model):
            yield deployment.problem(("rungs", i, "model"), what)
        outputs = {spec.name: spec for spec in declared_outputs(rung, model)}
        for j, output in enumerate(policy.expose):
            if output not in outputs:
                what = f"{output!r} is no output of rung {rung.name!r}, which has {', '.join(outputs)}"
                nearest = closest(output, set(outputs))
                yield deployment.problem(("expose", j), what + _how_to_get(output, nearest), nearest)
            elif output in wanted and not _same_form(outputs[output], wanted[output]):
                what = f"{output!r} of rung {rung.name!r} is {_form(outputs[output])}"
                what += f", and of the first rung {_form(wanted[output])}; callers must get one form"
                yield deployment.problem(("expose", j), what)


def _how_to_get(output: str, nearest: str) -> str:
    """How a rung comes to an output that it lacks; nothing where another name is near."""
    if output in (LOWER, UPPER):
        return "; a check of kind: interval gives it"
    return "" if nearest else f"; if one of them is that, say so on its model: names: {{{output}: OUTPUT}}"


def _other_inputs(primary: LoadedModel, model: LoadedModel) -> str:
    """How the inputs of a model differ from the primary's; empty if they do not."""
    wanted, own = ({spec.name: spec for spec in one.inputs} for one in (primary, model))
    if set(own) != set(wanted):
        return f"takes the inputs {', '.join(own)}, and the first rung {', '.join(wanted)}"
    for name, spec in own.items():
        if not _same_form(spec, wanted[name]):
            return f"takes {name!r} as {_form(spec)}, and the first rung as {_form(wanted[name])}"
    return ""


def _same_form(one: ModelTensor, other: ModelTensor) -> bool:
    """Whether two tensors have one datatype, and shapes that can agree."""
    sizes = zip(one.shape, other.shape, strict=False)
    return (one.dtype, one.bf16, len(one.shape)) == (other.dtype, other.bf16, len(other.shape)) and all(
        a is None or b is None or a == b for a, b in sizes
    )


def _form(spec: ModelTensor) -> str:
    kind = "text" if spec.dtype.kind == "O" else str(spec.dtype)
    sizes = ["n", *("?" if size is None else str(size) for size in spec.shape[1:])]
    return f"{kind}[{', '.join(sizes)}]"


def _wrong_labels(deployment: Deployment, primary: LoadedModel) -> Iterator[Problem]:
    """More or fewer labels than the model has classes."""
    policy = deployment.policy
    named = {spec.name: spec.shape[-1] for spec in primary.outputs if len(spec.shape) > 1}
    classes = named.get(PROBABILITIES, named.get(LOGITS))
    if classes is None and primary.classes is not None:
        classes = len(primary.classes)
    if policy.labels and classes is not None and classes != len(policy.labels):
        what = f"names {len(policy.labels)} labels, but the model has {classes} classes"
        yield deployment.problem(("labels",), what)


def _unknown_inputs(deployment: Deployment, primary: LoadedModel) -> Iterator[Problem]:
    """What the policy says of inputs that the models do not have, or that cannot be so."""
    known = {spec.name: spec for spec in primary.inputs}
    for name, one in deployment.policy.inputs.items():
        spec = known.get(name)
        if spec is None:
            what = "is not an input of the first rung"
            yield deployment.problem(("inputs", name), what, closest(name, set(known)))
            continue
        if one.missing == "allow" and spec.dtype.kind != "f":
            what = "only a float can be missing; an empty text is a value of its own"
            yield deployment.problem(("inputs", name, "missing"), what)
        if one.shape is not None and not _fits(one.shape, spec.shape[1:]):
            what = f"{one.shape} are not sizes of one row of {_form(spec)}"
            yield deployment.problem(("inputs", name, "shape"), what)


def _fits(shape: Sequence[int], declared: tuple[int | None, ...]) -> bool:
    sizes = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and 0 not in shape and all(b is None or a == b for a, b in sizes)


def _unknown_slices(deployment: Deployment, primary: LoadedModel) -> Iterator[Problem]:
    """Slices of rows by what the models do not take or give."""
    by = deployment.policy.false_alarm_by
    if by is not None and not any(guard.certified for guard in deployment.policy.guards):
        yield deployment.problem(
            ("false_alarm_by",), "there is no guard whose cut is certified: leave it out"
        )
    if isinstance(by, InputSlices):
        known = {spec.name: spec for spec in primary.inputs}
        at = ("false_alarm_by", "input")
        if by.input not in known:
            what = f"{by.input!r} is not an input of the first rung"
            yield deployment.problem(at, what, closest(by.input, set(known)))
        elif any(size != 1 for size in known[by.input].shape[1:]):
            yield deployment.problem(at, f"{by.input!r} has more than one value a row")
    elif by is not None and PROBABILITIES not in {spec.name for spec in primary.outputs}:
        what = f"the first rung has no output named {PROBABILITIES}, so no class is predicted"
        yield deployment.problem(("false_alarm_by",), what)


def _unreadable(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Iterator[Problem]:
    """Guards and checks that cannot read the inputs or outputs of the models."""
    policy = deployment.policy
    first = models[policy.rungs[0].name]
    for field, what in without_value(policy, models):
        yield deployment.problem(field, what)
    for i, guard in enumerate(policy.guards):
        for at, what in guard.unreadable(first.inputs, first.outputs):
            yield deployment.problem(("guards", i, *at), what)
    for i, rung in enumerate(policy.rungs):
        for j, check in enumerate(rung.checks):
            for at, what in check.unreadable(models[rung.name].outputs):
                yield deployment.problem(("rungs", i, "checks", j, *at), what)
