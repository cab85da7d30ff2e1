"""Novelty: how unlike honest rows a row is, from 0 to 1, for its price (`price.py`).

    novelty = min(r, 7) / 7,    r = -log P(an honest row scores at least as high), in nats

r is the rarity (`rarity.py`) that the out-of-distribution guards have given the row anyway; of several guards
the largest counts. Whatever the rows are, an honest one reaches t nats with a probability of about e^-t, so
that honest rows cost 1/7 on average, and one in a thousand costs 1. Rows that a thief makes (mixtures, noise)
or takes from elsewhere are rare at the calibration rows, and cost several times as much. In nats and not by
rank, since the mean rank of honest rows is 1/2: then no row could cost more than twice as much as theirs.

Not a memory of what each caller has sent. Such a memory begins empty for every new name, so that many keys
pay less than one; it has to be kept for every caller at every replica; and it charges an honest caller for
having varied rows. This measure needs no state, and is the same for every key, replica and restart. What it
does not see: that a row is unlike the earlier ones of its caller, if honest rows are like it.
"""

from __future__ import annotations

from typing import Final

MOST_NATS: Final = 7.0
"""About log 1000. Beyond it, rarity is extrapolated far past the calibration rows."""


def novelty(rarity: float) -> float:
    """From 0 to 1; 0 where the rarity, in nats, is NaN: of a row that no such guard has judged."""
    return min(rarity, MOST_NATS) / MOST_NATS if rarity > 0 else 0.0
