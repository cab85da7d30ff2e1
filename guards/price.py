"""What a row costs its caller: the bits of information that its answer may carry, and what they are worth.

    price = base + bits of the disclosure tier + w_u * uncertainty + w_n * novelty      (times f if refused)

The first two are known before the row is judged, the others after. A row near the boundary of a class
(uncertainty) or unlike honest rows (novelty, `novelty.py`) tells a thief more about the model. Weights that
were fitted (`price_fit.py`) count in base and tier together, so that what they are worth does not depend on
what the caller is shown. An exact repeat tells nothing new and is free. A row that a guard
refused costs `refusal_factor` times as much: a refusal is an answer of one bit that an attack can ask for
without being served. Novelty is of every row that was judged, uncertainty of those that were answered.

Source:  shared design, "Extraction, inversion, membership". The bits of a tier are upper bounds: they ignore
         that classes are not equally likely and that probabilities sum to one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guards.rows import F8

FLOAT_BITS: Final = 24
"""The significand of a float32."""


def label_bits(classes: int) -> float:
    """A label alone: log2 k. Raises ValueError for no class."""
    return math.log2(_at_least_one(classes, "classes"))


def top_bits(classes: int, shown: int) -> float:
    """The `shown` likeliest of the classes with their probabilities as floats: log2 C(k, shown) + 24 shown.

    Never more than all probabilities tell. Raises ValueError unless 1 <= shown <= classes.
    """
    if not 1 <= shown <= classes:
        raise ValueError(f"price: {shown} of {classes} classes cannot be shown")
    return min(
        math.log2(math.comb(classes, shown)) + shown * FLOAT_BITS, max(vector_bits(classes), FLOAT_BITS)
    )


def rounded_bits(classes: int, digits: int) -> float:
    """All probabilities with so many decimals: log2 C(10^d + k - 1, k - 1), the ways to share 10^d units.

    Never more than as floats. That rounded numbers sum to one only within k / 2 units is left out: a few
    bits. Raises ValueError for no class and for no digit.
    """
    units = 10 ** _at_least_one(digits, "digits")
    others = _at_least_one(classes, "classes") - 1
    ways = math.lgamma(units + others + 1) - math.lgamma(others + 1) - math.lgamma(units + 1)
    return min(max(ways / math.log(2), 0.0), vector_bits(classes))


def vector_bits(classes: int) -> float:
    """All probabilities as floats: 24 (k - 1), since they sum to one."""
    return FLOAT_BITS * (_at_least_one(classes, "classes") - 1)


def _at_least_one(number: int, what: str) -> int:
    if number < 1:
        raise ValueError(f"price: {what} is {number}; expected 1 or more")
    return number


def uncertainty(p: NDArray[Any]) -> F8:
    """One minus the margin between the two likeliest classes: how near to a boundary a row lies.

    Args:    p: float[n, k], rows that sum to one; with k = 1 the probability of the second of two classes.
    Returns: float64[n] in [0, 1].
    Cost:    O(n k): 4 us at n=1.
    """
    if p.shape[1] == 1:
        margin = np.abs(2.0 * p[:, 0].astype(np.float64) - 1.0)
    else:
        two = np.partition(p, -2, axis=1)[:, -2:].astype(np.float64)
        margin = two[:, 1] - two[:, 0]
    return np.asarray(1.0 - np.minimum(np.maximum(margin, 0.0), 1.0), np.float64)


class Told(NamedTuple):
    """What rows of one caller were told: counts, and sums over rows. Rows that repeat earlier ones are none.

    answered, refused: how many a model answered, and a guard or check refused; uncertainty: of the answered
    ones; novelty: of all that were judged, but the refused ones; refused_novelty: of these.
    """

    rows: int
    answered: int
    refused: int
    uncertainty: float
    novelty: float
    refused_novelty: float


@dataclass(frozen=True, slots=True)
class Prices:
    """base_bits, uncertainty_bits (w_u), novelty_bits (w_n) >= 0; refusal_factor >= 1.

    of_admission: whether both weights are multiples of base and tier, and not bits. expected: what is charged
    at admission, in base and tier: 1 or more, so that rows in flight cannot overdraw a budget by far.
    Raises:  ValueError for others, NaN and infinity too.
    """

    base_bits: float
    uncertainty_bits: float
    novelty_bits: float
    refusal_factor: float = 2.0
    of_admission: bool = False
    expected: float = 1.0

    def __post_init__(self) -> None:
        for name in ("base_bits", "uncertainty_bits", "novelty_bits", "refusal_factor", "expected"):
            least, value = float(name in ("refusal_factor", "expected")), getattr(self, name)
            if not least <= value < math.inf:  # NaN too
                raise ValueError(f"price: {name} is {value}; expected {least:g} or more")

    def at_admission(self, tier_bits: float) -> float:
        """What is charged before the row is judged. Raises ValueError for bits that are no number >= 0."""
        if not 0 <= tier_bits < math.inf:
            raise ValueError(f"price: the tier has {tier_bits} bits; expected 0 or more")
        return (self.base_bits + tier_bits) * self.expected

    def in_the_end(self, admission_bits: float, told: Told) -> float:
        """What rows cost in all: linear in what they were told.

        Args:    admission_bits: what one was charged at admission.
        Raises:  ValueError for counts or sums outside 0 to the rows, NaN too.
        """
        if not all(0 <= one <= told.rows for one in told):
            raise ValueError(f"price: {told}; expected counts, and sums of numbers from 0 to 1")
        plain = admission_bits / self.expected
        unit = plain if self.of_admission else 1.0
        answers = plain * (told.rows - told.refused)
        answers += unit * (self.uncertainty_bits * told.uncertainty + self.novelty_bits * told.novelty)
        refusals = plain * told.refused + unit * self.novelty_bits * told.refused_novelty
        return answers + self.refusal_factor * refusals

    def most_beyond_admission(self, admission_bits: float) -> float:
        """The largest surcharge in the end: by how much each row in flight may overdraw a bucket."""
        ends = Told(1, 1, 0, 1.0, 1.0, 0.0), Told(1, 0, 1, 0.0, 0.0, 1.0)
        return max(self.in_the_end(admission_bits, told) for told in ends) - admission_bits
