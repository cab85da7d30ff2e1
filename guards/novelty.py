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

import numpy as np

from guards.rows import F8

MOST_NATS: Final = 7.0
"""About log 1000. Beyond it, rarity is extrapolated far past the calibration rows."""


def novelty(rarity: F8) -> F8:
    """float64[n] in [0, 1]; 0 where the rarity is NaN, for rows that no such guard has judged.

    Args:    rarity: float64[n] nats.
    Cost:    5 us, and 0.01 us a row.
    """
    known = np.nan_to_num(rarity, nan=0.0, posinf=MOST_NATS, neginf=0.0)
    return np.asarray(np.minimum(np.maximum(known, 0.0), MOST_NATS) / MOST_NATS, np.float64)
