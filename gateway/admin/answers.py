"""The form that a reviewer fills in for a case, and the answer that comes back, by what a person may answer.

| target    | the form                                     | an answer                                   |
|-----------|----------------------------------------------|---------------------------------------------|
| `Classes` | a button a class, none of these, unsure      | `label`: a name or number; `none`; `unsure` |
| `Number`  | a field for a number, unsure                 | `value`: a number; `unsure`                 |
| `NoForm`  | seen                                         | `unsure`                                    |
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, assert_never

from gateway.policy.review import REFUSE, ReviewPolicy
from gateway.protocol.contract import Contract
from gateway.protocol.targets import Classes, NoForm, Number
from gateway.serving.review_answers import (
    answer_none,
    answer_unsure,
    answer_with_label,
    answer_with_value,
    answerable,
    can_hold,
    number_specs,
)
from gateway.serving.review_summary import format_number

DIGITS = "123456789"
MAX_LISTED = 20
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class InvalidAnswer(ValueError):
    """An answer that the form does not allow. Its text says which field, what is wrong and what is right."""


def form_of(contract: Contract, review: ReviewPolicy | None) -> dict[str, Any]:
    """The form as the API and the page show it; `kind` is `class`, `number` or `none`."""
    target = answerable(contract)
    match target:
        case Classes():
            return {"kind": "class", "none_of_these": REFUSE if review is None else review.none_of_these}
        case Number(low, high) as number:
            least, most = accepted(number)
            return {"kind": "number", "low": low, "high": high, "min": least, "max": most}
        case NoForm():
            return {"kind": "none"}
        case _:
            assert_never(target)


def accepted(number: Number) -> tuple[float, float]:
    """The least and the largest number that a reviewer may give: one width beyond the calibration range.

    The width is that of the range; where calibration saw one value alone, that value's size, or 1 if it is 0.
    """
    width = number.high - number.low or abs(number.high) or 1.0
    return number.low - width, number.high + width


def keyed(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each label with the key that picks it, or with no key.

    A label that is a digit has that digit, so that no key picks another number than it shows. The others get
    the keys 1 to 9 that are left, in order.
    """
    own = {name for name in names if len(name) == 1 and name in "0" + DIGITS}
    free = iter([digit for digit in DIGITS if digit not in own])
    return [(name, name if name in own else next(free, "")) for name in names]


def read_answer(fields: dict[str, Any], contract: Contract) -> str:
    """The answer as it is stored. Raises InvalidAnswer.

    A page sends a class by name, so that a reload between page and answer cannot change what it means.
    """
    if fields.get("unsure") in (True, "1"):
        return answer_unsure()
    target = answerable(contract)
    match target:
        case Classes(names):
            return answer_none() if fields.get("none") in (True, "1") else _read_class(fields, names)
        case Number() as number:
            return answer_with_value(_read_number(fields.get("value"), number, contract))
        case NoForm():
            raise InvalidAnswer("unsure: must be true: no exposed output has a place for a class or a number")
        case _:
            assert_never(target)


def _read_class(fields: dict[str, Any], names: Sequence[str]) -> str:
    label = fields.get("label")
    if isinstance(label, str) and label in names:
        return answer_with_label(names.index(label))
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        return answer_with_label(label)
    listed = ", ".join(names[:MAX_LISTED])
    listed += f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    raise InvalidAnswer(f"label: must be one of {listed}, or its number; or say none: true or unsure: true")


def _read_number(given: object, number: Number, contract: Contract) -> float:
    value = _parsed(given)
    least, most = accepted(number)
    if not least <= value <= most:
        limits = f"{format_number(least)} to {format_number(most)}"
        seen = f"calibration saw {format_number(number.low)} to {format_number(number.high)}"
        raise InvalidAnswer(f"value: {value:.12g} is not from {limits} ({seen})")
    for spec in number_specs(contract):
        if not can_hold(spec, value):
            whole = "a whole number, " if spec.dtype.kind in "iu" else ""
            raise InvalidAnswer(f"value: must be {whole}what output {spec.name!r} can hold ({spec.datatype})")
    return value


def _parsed(given: object) -> float:
    """A finite number from JSON or from a form. A decimal comma is refused, because it may mean thousands."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        value = float(given)
    elif not isinstance(given, str) or not given.strip():
        raise InvalidAnswer("value: type a number, such as 12.5; or say that you are unsure")
    elif "," in given:
        raise InvalidAnswer(
            "value: write a decimal point and no comma: 12.5 instead of 12,5, 1000 instead of 1,000"
        )
    elif _DECIMAL.fullmatch(given.strip()) is None:
        raise InvalidAnswer(
            f"value: {given.strip()[:40]!r} is not a number; write digits, as in 12.5 or -3e6"
        )
    else:
        value = float(given)
    if not math.isfinite(value):
        raise InvalidAnswer("value: must be finite")
    return value
