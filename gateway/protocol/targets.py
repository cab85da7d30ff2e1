"""What a person may answer for a row: one of the model's classes, a number, or nothing.

It follows from the policy's task and from calibration, which knows the classes and the range of the true
values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes that the model tells apart, in the order of its probabilities.

    names: the text of each; values: what output `label` holds for each, integers or bytes, or none if the
    model has no such output.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] | tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Number:
    """A number. low, high: the range of the true values of the calibration rows, in the unit of `value`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class NoForm:
    """A reviewer can only look: the row is then refused."""


Target: TypeAlias = Classes | Number | NoForm
NO_FORM = NoForm()
