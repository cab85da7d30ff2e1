"""The true values of the rows, `y` of the file, as the policy's task takes them.

Classes may be given as numbers (the column of probabilities), as the values that the model's own file names,
or by name. Names come from the policy's `labels`, else from the model's file, else they are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.roles import LABEL, PROBABILITIES
from gateway.core.decision import Tensors
from gateway.core.rows import F8
from gateway.deployment.certificate import CertifiedTarget, ClassNames, NoTarget, NumberRange
from gateway.policy.kinds.rows import Labels
from gateway.policy.locate import closest
from gateway.policy.schema import Policy

UNKNOWN = -1
"""The number of a label that names no class."""
SHOWN_NAMES = 20
MOST_WHOLE = 2.0**53


@dataclass(frozen=True, slots=True, eq=False)
class TrueValues:
    """target: for the certificate; y: int64[n], the classes, else zeros; values: of a regression."""

    target: CertifiedTarget
    y: Labels
    values: F8 | None


def true_values(
    policy: Policy, named: Sequence[int | str] | None, answer: Tensors, y: NDArray[Any] | None, n: int
) -> TrueValues:
    """The true values of n rows.

    Args:    named: the classes that the primary's file names, in order; answer: the primary's outputs; y: as
             the file has them.
    Raises:  ValueError naming the row, the value and what would be taken.
    """
    if policy.task == "opaque":
        return TrueValues(NoTarget(kind="none"), np.zeros(n, np.int64), None)
    assert y is not None, "read with labels_needed"
    if policy.task == "regression":
        return _numbers(y)
    _refuse_fractions(y)
    known = _known_classes(policy, named, answer, y)
    number, by_name = _class_numbers(y, known, named, policy.labels)
    unseen = [name for i, name in enumerate(known) if not (number == i).any()]
    values = _label_values(known, named, answer)
    target = ClassNames(kind="classes", names=known, values=values, by_name=by_name, unseen=unseen)
    return TrueValues(target, number, None)


def _numbers(y: NDArray[Any]) -> TrueValues:
    if y.dtype.kind not in "iuf":
        raise ValueError(f"y: is {y.dtype}, not numbers, and the policy says task: regression")
    values = y.astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"y: holds {values[row]}, first in row {row}; leave out rows without a true value")
    target = NumberRange(kind="number", low=float(values.min()), high=float(values.max()))
    return TrueValues(target, np.zeros(len(values), np.int64), values)


def _refuse_fractions(y: NDArray[Any]) -> None:
    """Raises ValueError for a float that is no whole number below 2**53, as a class is."""
    if y.dtype.kind != "f":
        return
    bad = np.flatnonzero((y != np.rint(y)) | (np.abs(y) > MOST_WHOLE))
    if bad.size:
        what = f"y: holds {y[bad[0]]}, first in row {bad[0]}, which is no class"
        raise ValueError(f"{what}; for numbers say task: regression")


def _known_classes(
    policy: Policy, named: Sequence[int | str] | None, answer: Tensors, y: NDArray[Any]
) -> list[str]:
    """The names of the classes, in order."""
    p = answer.get(PROBABILITIES)
    k = p.shape[1] if p is not None and p.ndim == 2 else None
    if policy.labels:
        return list(policy.labels)
    if named is not None:
        return [str(one) for one in named]
    if k is not None:
        if y.dtype.kind in "US":
            found = sorted(set(y.tolist()))
            raise ValueError(
                f"y: holds text ({_listed(found)}), and nothing names the classes; write `labels: [...]` in "
                f"the order of the {k} columns of probabilities"
            )
        return [str(i) for i in range(k)]
    if LABEL not in answer:
        raise ValueError("y: no output tells a class; map one to probabilities, logits or label (names)")
    return sorted(_label_classes(_texts(y), set(_texts(answer[LABEL].reshape(-1)))), key=_by_number)


def _label_classes(given: Sequence[str], answered: set[str]) -> set[str]:
    """The classes of a model that gives labels alone: those that the rows and its answers name."""
    if "" in given and "" not in answered:
        raise ValueError(f"y: is empty, first in row {given.index('')}; leave out rows without a label")
    if not answered & set(given):
        own, others = (_listed(sorted(one, key=_by_number)) for one in (set(given), answered))
        what = f"y: holds {own}, and the model's label {others}, none of them alike"
        raise ValueError(f"{what}; write y as the model does, or name its classes in order (labels)")
    return answered | set(given)


def names_of(y: NDArray[Any]) -> list[str]:
    """The classes that labels name, numbers in their order, else text in its order."""
    return sorted(set(_texts(y)), key=_by_number)


def _by_number(text: str) -> tuple[bool, float, str]:
    return (False, float(text), text) if _is_integer(text) else (True, 0.0, text)


def _class_numbers(
    y: NDArray[Any], known: Sequence[str], named: Sequence[int | str] | None, labels: Sequence[str]
) -> tuple[Labels, bool]:
    """int64[n], and whether they were read by name.

    Read by the first that fits every row: labels of the policy, values of the model's file, columns. Numbers
    are names where all names are numbers, but not those of columns.
    """
    own = None if named is None or not all(isinstance(one, int) for one in named) else list(map(str, named))
    columns = [str(i) for i in range(len(known))]
    numbers_name = all(map(_is_integer, known)) and list(known) != columns
    by_name = y.dtype.kind in "US" or numbers_name
    texts = _texts(y)
    readings = [(known, True), (own, False)]
    for names, is_name in readings if labels else reversed(readings):
        if names is not None and (by_name or not is_name):
            numbers = _positions(texts, names)
            if (numbers != UNKNOWN).all():
                return numbers, is_name
    if y.dtype.kind in "US":
        raise ValueError(_unknown(texts, known))
    if own is not None and not labels:
        raise ValueError(_unknown(texts, own))
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(known):
        raise ValueError(_out_of_range(y, known, labels))
    return y.astype(np.int64), False


def _unknown(texts: Sequence[str], names: Sequence[str]) -> str:
    row = int(np.flatnonzero(_positions(texts, names) == UNKNOWN)[0])
    hint = closest(texts[row], set(names))
    what = f"y: holds {texts[row]!r}, first in row {row}; the classes are {_listed(names)}"
    return what + f"; did you mean {hint!r}?" * bool(hint)


def _out_of_range(y: NDArray[Any], known: Sequence[str], labels: Sequence[str]) -> str:
    what = f"y: holds labels from {int(y.min())} to {int(y.max())}"
    what += f"; the model has the classes 0 to {len(known) - 1}"
    found = np.unique(y)
    if labels or len(found) != len(known) or len(known) > SHOWN_NAMES:
        return what
    return f"{what}; name them in the order of its columns: `labels: {[str(int(one)) for one in found]}`"


def _label_values(
    known: Sequence[str], named: Sequence[int | str] | None, answer: Tensors
) -> list[int] | list[str]:
    """What output `label` holds for each class; none without such an output."""
    label = answer.get(LABEL)
    if label is None:
        return []
    if label.dtype.kind == "O":
        return [str(one) for one in named] if named is not None else list(known)
    if named is not None and all(isinstance(one, int) for one in named):
        return [int(one) for one in named]
    return [int(name) for name in known] if all(map(_is_integer, known)) else list(range(len(known)))


def labelled_classes(target: CertifiedTarget, answer: Tensors) -> Labels | None:
    """int64[n]: the class that output `label` names, UNKNOWN for none; None without such an output."""
    if not isinstance(target, ClassNames) or LABEL not in answer or not target.values:
        return None
    return _positions(_texts(answer[LABEL].reshape(-1)), [str(one) for one in target.values])


def _positions(texts: Sequence[str], names: Sequence[str]) -> Labels:
    at = {name: i for i, name in enumerate(names)}
    return np.array([at.get(text, UNKNOWN) for text in texts], np.int64)


def _texts(values: NDArray[Any]) -> list[str]:
    """Values as the text of a class: 3.0 is "3"."""
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values.tolist()]


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
