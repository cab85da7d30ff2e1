"""The wire contract of a deployment: the inputs and outputs of its models, checked against the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from fallbacks.predictor import LoadedModel
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.deployment.slices import PROBABILITIES
from gateway.policy.locate import closest
from gateway.policy.schema import InputSlices, OipPolicy
from gateway.protocol.contract import ONNX_PLATFORM, UPSTREAM_PLATFORM, Contract, TensorSpec
from gateway.protocol.targets import LABEL, Classes, NoForm, Target


def contract_of(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Contract:
    """The deployment's inputs and outputs on the wire. Raises PolicyError where the models do not fit."""
    policy = deployment.policy
    primary = models[policy.rungs[0].name]
    problems = list(_rungs_that_differ(deployment, models)) or list(_wrong_labels(deployment, primary))
    problems += [*_unknown_inputs(deployment, primary), *_unknown_slices(deployment, primary)]
    if problems := problems or list(_unreadable(deployment, models)):
        raise PolicyError(problems)
    ranges = {name: (r.low, r.high) for name, r in policy.inputs.items()}
    inputs = tuple(
        TensorSpec(s.name, s.dtype, s.shape, low, high, s.bf16)
        for s in primary.inputs
        for low, high in (ranges.get(s.name, (None, None)),)
    )
    outputs = tuple(
        TensorSpec(s.name, s.dtype, s.shape, bf16=s.bf16) for s in primary.outputs if s.name in policy.expose
    )
    is_upstream = isinstance(policy.rungs[0].model, OipPolicy)
    return Contract(
        policy.name,
        inputs,
        outputs,
        policy.serving.max_batch_rows,
        policy.version,
        tuple(policy.labels),
        UPSTREAM_PLATFORM if is_upstream else ONNX_PLATFORM,
        _target(policy.labels, primary, {spec.name for spec in outputs}),
    )


def _target(labels: Sequence[str], primary: LoadedModel, exposed: Set[str]) -> Target:
    """The classes of the first rung: the policy's labels, then numbers where it has too few."""
    outputs = {spec.name: spec for spec in primary.outputs}
    if PROBABILITIES not in outputs or len(outputs[PROBABILITIES].shape) < 2:
        return NoForm()
    if not exposed & {PROBABILITIES, LABEL}:
        return NoForm()
    classes = outputs[PROBABILITIES].shape[-1] or len(labels)
    names = tuple(labels[i] if i < len(labels) else str(i) for i in range(classes))
    numbered = LABEL in outputs and outputs[LABEL].dtype.kind in "iu"
    return Classes(names, tuple(range(classes)) if numbered else ()) if names else NoForm()


def _rungs_that_differ(deployment: Deployment, models: Mapping[str, LoadedModel]) -> Iterator[Problem]:
    """Rungs that take other inputs than the first, or lack an exposed output of its form."""
    policy = deployment.policy
    primary = models[policy.rungs[0].name]
    wanted = {spec.name: spec for spec in primary.outputs}
    for i, (name, model) in enumerate(models.items()):
        if set(model.inputs) != set(primary.inputs):
            yield deployment.problem(("rungs", i, "model"), "takes other inputs than the first rung")
        outputs = {spec.name: spec for spec in model.outputs}
        for j, output in enumerate(policy.expose):
            if output not in outputs or outputs[output] != wanted.get(output, outputs[output]):
                what = f"{output!r} is no such output of rung {name!r}"
                yield deployment.problem(("expose", j), what, closest(output, set(outputs)))


def _wrong_labels(deployment: Deployment, primary: LoadedModel) -> Iterator[Problem]:
    """More or fewer labels than the model has classes."""
    policy = deployment.policy
    exposed = [spec for spec in primary.outputs if spec.name in policy.expose and len(spec.shape) > 1]
    classes = {spec.shape[-1] for spec in exposed}
    if policy.labels and classes and not classes & {None, len(policy.labels)}:
        what = f"names {len(policy.labels)} labels, but the model has {min(c or 0 for c in classes)} classes"
        yield deployment.problem(("labels",), what)


def _unknown_inputs(deployment: Deployment, primary: LoadedModel) -> Iterator[Problem]:
    """Ranges of inputs that the models do not have."""
    known = {spec.name for spec in primary.inputs}
    for name in deployment.policy.inputs.keys() - known:
        what = "is not an input of the first rung"
        yield deployment.problem(("inputs", name), what, closest(name, known))


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
    first = models[policy.rungs[0].name].inputs[0]
    for i, guard in enumerate(policy.guards):
        for at, what in guard.unreadable(first):
            yield deployment.problem(("guards", i, *at), what)
    for i, rung in enumerate(policy.rungs):
        for j, check in enumerate(rung.checks):
            for at, what in check.unreadable(models[rung.name].outputs):
                yield deployment.problem(("rungs", i, "checks", j, *at), what)
