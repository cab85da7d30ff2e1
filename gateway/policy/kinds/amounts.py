"""The blocks of `kind: budget`: how much may be learnt, in bits or in rows, and what a row costs."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from pydantic import Discriminator, Field, Tag

from gateway.policy.fields import Strict
from guards.fitted_prices import HonestUse
from guards.gcra import Limit

THROTTLED: Final = 0.001


class BitsPolicy(Strict):
    """How many bits may be learnt."""

    per_s: Annotated[float, Field(gt=0)]
    """Bits a second, in the long run."""
    burst: Annotated[float, Field(ge=1)]
    """Bits at once after a pause. A row that costs more passes where all of it is there."""

    @property
    def limit(self) -> Limit:
        return Limit(self.per_s, self.burst)


class HonestPolicy(Strict):
    """What an honest caller does, in rows. `gateway calibrate` fits prices and bits to it."""

    rows: Annotated[int, Field(ge=10, le=10_000_000)]
    """Rows that an honest caller sends at once after a pause, at most."""
    per_s: Annotated[float, Field(gt=0)]
    """Rows a second that it sends in the long run, at most."""
    throttled: Annotated[float, Field(ge=5e-4, le=0.1)] = THROTTLED
    """The share of honest callers that may ever be over their budget. The smaller it is, the more bits there
    are, for thieves too."""

    def use(self, *, review: bool) -> HonestUse:
        """As prices are fitted to it. review: whether the policy has a queue."""
        return HonestUse(self.rows, self.per_s, self.throttled, review)


class RowsPolicy(Strict):
    """How many rows may be answered to all untrusted callers together."""

    rows: Annotated[int, Field(ge=10)]
    """Rows at once after a pause, each at the price that the budget of a caller without a key has room for.
    Rows of a tier that shows more, and rows of a thief, use up more."""
    per_s: Annotated[float, Field(gt=0)]
    """Rows a second, in the long run."""


def _form(value: Any) -> str:
    """The arm of `AmountPolicy` that a value of the file, or a validated one, belongs to."""
    in_rows = isinstance(value, RowsPolicy) or (isinstance(value, dict) and "rows" in value)
    return "in rows" if in_rows else "in bits"


AmountPolicy: TypeAlias = Annotated[
    Annotated[BitsPolicy, Tag("in bits")] | Annotated[RowsPolicy, Tag("in rows")], Discriminator(_form)
]
"""Bits with `budget`, rows with `honest`."""


class PricesPolicy(Strict):
    """What a row costs beside the bits that its caller's tier shows. The defaults are not fitted."""

    base: Annotated[float, Field(ge=0)] = 1.0
    """Bits that every row costs."""
    uncertainty: Annotated[float, Field(ge=0)] = 4.0
    """Bits that a row costs in addition whose two likeliest classes are equally likely, and less for others:
    a row near a boundary tells more about the model. Known, and charged, once it is answered."""
    novelty: Annotated[float, Field(ge=0)] = 0.0
    """Bits that a row costs in addition that is as rare as one in a thousand honest ones, by the guards of
    kind `ood`, and less for others. Charged once it is answered. Without such a guard no row is new."""
    refusal_factor: Annotated[float, Field(ge=1)] = 5.0
    """How many times its price a row costs that a guard or check refuses; and one over the budget, until the
    next row passes up to ten seconds of the rate, or a tenth of `burst` if that is less."""
