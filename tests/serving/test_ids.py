"""Decision ids: never twice the same, and no pattern in them."""

from __future__ import annotations

import re

from gateway.serving.ids import IDS_PER_READ, Ids


def test_ids_differ_across_refills_and_sources_and_fit_a_header() -> None:
    one, other = Ids(), Ids()
    made = [one.new() for _ in range(5 * IDS_PER_READ)] + [other.new() for _ in range(5 * IDS_PER_READ)]
    assert len(set(made)) == 10 * IDS_PER_READ
    assert all(re.fullmatch("[0-9a-f]{24}", id_) for id_ in made)


def test_every_digit_of_an_id_takes_every_value() -> None:
    ids = Ids()
    made = [ids.new() for _ in range(1000)]
    assert all(len({id_[at] for id_ in made}) == 16 for at in range(24))
