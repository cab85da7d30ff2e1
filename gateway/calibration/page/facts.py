"""What a rung says to a judged row, beside what is true of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.formatting import number
from gateway.calibration.page.numbers import Numbers, numbers_of
from gateway.calibration.slices import label_name, predicted_class

Facts: TypeAlias = list[tuple[str, str]]
"""Names and texts, in the order in which they are shown."""


def row_facts(evidence: Evidence, labels: Sequence[str], depth: int) -> Callable[[int], Facts]:
    """By the row: label and class, or truth, number, interval and error; nothing of an opaque task.

    Args:    labels: names of the classes, none for numbers.
    """
    name = evidence.rungs[depth].name
    if evidence.rows.truth is not None:
        numbers = numbers_of(evidence, depth)
        return lambda i: [] if numbers is None else _number_facts(name, numbers, i)
    if all(rung.wrong is None for rung in evidence.rungs):
        return lambda i: []
    predicted = predicted_class(evidence, depth)

    def class_facts(i: int) -> Facts:
        said = "–" if predicted is None else label_name(int(predicted[i]), labels)
        return [("label", label_name(int(evidence.rows.y[i]), labels)), (name, said)]

    return class_facts


def _number_facts(name: str, numbers: Numbers, i: int) -> Facts:
    facts = [("truth", number(float(numbers.truth[i]))), (name, number(float(numbers.value[i])))]
    if not np.isnan(numbers.width[i]):
        facts.append(("interval", f"{number(float(numbers.lower[i]))} to {number(float(numbers.upper[i]))}"))
    return [*facts, ("error", number(float(numbers.error[i])))]
