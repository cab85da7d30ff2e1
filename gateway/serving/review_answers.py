"""A reviewer's answer: how it is stored, and the outcome that the row's caller gets of it.

    | stored             | said                     | the caller gets                                    |
    |--------------------|--------------------------|----------------------------------------------------|
    | `{"label": i}`     | class i, counted from 0  | it, in the outputs `probabilities` and `label`     |
    | `{"value": x}`     | the number x             | it, in the outputs `value`, `lower` and `upper`    |
    | `{"none": true}`   | none of the classes      | what the policy's `none_of_these` says             |
    | `{"unsure": true}` | cannot tell              | a refusal, as `abstained`                          |

An answer is read by the contract in force when its caller fetches it. If a reload has changed the contract so
that the answer fits no longer (a class that is gone, a number where classes are), the row is refused.
"""

from __future__ import annotations

from typing import Any, assert_never

import numpy as np
import orjson

from fallbacks.oip.tensors import Array
from fallbacks.review.cases import CaseRecord, CaseState
from fallbacks.roles import LABEL, LOWER, PROBABILITIES, UPPER, VALUE
from gateway.core.decision import Degraded, Outcome, Reason, Refused
from gateway.policy.review import REFUSE, ReviewPolicy
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.endings import BY_REVIEW
from gateway.protocol.targets import Classes, NoForm, Number, Target
from gateway.protocol.tensors import blank


def answer_with_label(label: int) -> str:
    """The stored answer of a reviewer who names a class."""
    return orjson.dumps({"label": label}).decode()


def answer_with_value(value: float) -> str:
    """The stored answer of a reviewer who gives a number, which is finite."""
    return orjson.dumps({"value": value}).decode()


def answer_none() -> str:
    """The stored answer of a reviewer for whom the row is none of the classes."""
    return orjson.dumps({"none": True}).decode()


def answer_unsure() -> str:
    """The stored answer of a reviewer who cannot tell: the row is refused."""
    return orjson.dumps({"unsure": True}).decode()


def outcome_of(record: CaseRecord, contract: Contract, review: ReviewPolicy | None) -> Outcome | None:
    """How a case ended for its caller, in the form of the model's own outputs; None while it waits.

    Outputs that the answer does not determine, such as `logits`, are blank; if that is
    all of them, the row is refused.
    """
    if record.state is CaseState.EXPIRED:
        return Refused(Reason.UNAVAILABLE)
    if record.state is not CaseState.DECIDED or record.answer is None:
        return None
    known = _known_outputs(orjson.loads(record.answer), contract, review)
    if known is None:
        return Refused(Reason.ABSTAINED)
    outputs = {
        spec.name: known[spec.name] if spec.name in known else blank(spec, _one_row(spec))
        for spec in contract.outputs
    }
    return Degraded(outputs, BY_REVIEW, Reason(orjson.loads(record.why)["reason"]))


def answerable(contract: Contract) -> Target:
    """What a person may answer: the contract's target, nothing where no exposed output could hold it."""
    exposed = {spec.name for spec in contract.outputs}
    match contract.target:
        case Classes(values=values):
            return contract.target if PROBABILITIES in exposed or (values and LABEL in exposed) else NoForm()
        case Number():
            return contract.target if number_specs(contract) else NoForm()
        case NoForm():
            return contract.target
        case _:
            assert_never(contract.target)


def _known_outputs(
    answer: dict[str, Any], contract: Contract, review: ReviewPolicy | None
) -> dict[str, Array] | None:
    """The outputs that the answer determines, one row each; None if it is no answer under this contract."""
    target = answerable(contract)
    match target:
        case Classes() as classes:
            label = _class_of(answer, classes, review)
            return None if label is None else _class_outputs(label, classes, contract)
        case Number():
            return _number_outputs(answer.get("value"), contract)
        case NoForm():
            return None
        case _:
            assert_never(target)


def _class_of(answer: dict[str, Any], classes: Classes, review: ReviewPolicy | None) -> int | None:
    """The class that the answer means, None if it means none that there is."""
    if answer.get("none") is True:
        name = REFUSE if review is None else review.none_of_these
        return None if name == REFUSE or name not in classes.names else classes.names.index(name)
    label = answer.get("label")
    return label if isinstance(label, int) and 0 <= label < len(classes.names) else None


def _class_outputs(label: int, classes: Classes, contract: Contract) -> dict[str, Array] | None:
    """`probabilities`, 1 at the class, and `label`, its value; None if neither can hold the class."""
    found: dict[str, Array] = {}
    specs = contract.outputs_by_name
    if PROBABILITIES in specs and len(specs[PROBABILITIES].shape) > 1:
        spec = specs[PROBABILITIES]
        shape = (*_one_row(spec)[:-1], spec.shape[-1] or len(classes.names))
        if label >= shape[-1]:
            return None
        found[PROBABILITIES] = np.zeros(shape, spec.dtype)
        found[PROBABILITIES][..., label] = 1
    if LABEL in specs and classes.values:
        found[LABEL] = _filled(specs[LABEL], classes.values[label])
    return found or None


def _number_outputs(value: object, contract: Contract) -> dict[str, Array] | None:
    """The number as `value` and as both ends of its interval; None if there is no place for it."""
    specs = number_specs(contract)
    if not isinstance(value, int | float) or not all(can_hold(spec, value) for spec in specs):
        return None
    return {spec.name: _filled(spec, value) for spec in specs} or None


def number_specs(contract: Contract) -> list[TensorSpec]:
    """The exposed outputs that hold a reviewer's number."""
    return [spec for spec in contract.outputs if spec.name in (VALUE, LOWER, UPPER)]


def can_hold(spec: TensorSpec, value: float) -> bool:
    """Whether a tensor can hold this finite number: integers exactly, floats rounded, within its range."""
    if spec.dtype.kind == "f":
        return abs(value) <= float(np.finfo(spec.dtype).max)
    if spec.dtype.kind not in "iu" or not float(value).is_integer():
        return False
    return bool(np.iinfo(spec.dtype).min <= int(value) <= np.iinfo(spec.dtype).max)


def _one_row(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one row; an open size is 1."""
    return (1, *(size or 1 for size in spec.shape[1:]))


def _filled(spec: TensorSpec, item: float | bytes) -> Array:
    """One row of nothing but this item."""
    row: Array = np.empty(_one_row(spec), spec.dtype)
    row.fill(int(item) if spec.dtype.kind in "iu" else item)
    return row
