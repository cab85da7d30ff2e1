"""The memory of queries: repetitions, near ones, walks of attacks; bounded, and the same in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.query_walks import FASHION, WALKS, Target
from fallbacks.onnx import OnnxModel
from guards.coarse import F4, Coarse
from guards.fingerprints import KEPT, Prints
from guards.near_pairs import EXACT, NEAR, NOTHING, Cuts, Matches
from guards.query_memory import QueryMemory
from guards.query_rings import RING
from guards.query_sketch import Sketcher, Sketches
from tests.support.query_rows import (
    OTHER_SALT,
    SALT,
    diamonds,
    jpeg,
    letter_sketcher,
    letters,
    noisy,
    picture_sketcher,
    pictures,
)

CUTS = Cuts(own=14, any=8, shared=12)
NO_PRINTS = KEPT + 1
SKETCHER = picture_sketcher()


def memory(*, retained: int = 2**12, rings: int = 8, cuts: Cuts = CUTS, width: int = 0) -> QueryMemory:
    return QueryMemory(cuts, SALT, SKETCHER.has_prints, retained, width, rings)


def insert(held: QueryMemory, x: F4, who: str | Sequence[str]) -> list[int]:
    names = [who] * len(x) if isinstance(who, str) else who
    return list(map(int, held.insert(held.rows(SKETCHER.sketch(x), names))))


def remember(held: QueryMemory, number: int, margin: float, answer: list[int], source: int) -> None:
    margins, answers = np.array([margin], np.float32), np.array([answer], np.uint8)
    held.remember(np.array([number]), margins, answers, np.array([source]))


def look_up(held: QueryMemory, x: F4, who: str | Sequence[str]) -> Matches:
    names = [who] * len(x) if isinstance(who, str) else who
    return held.look_up(held.rows(SKETCHER.sketch(x), names))


def observe(held: QueryMemory, x: F4, who: str | Sequence[str]) -> Matches:
    """Inserts a batch and finds what each row of it is near, among earlier queries and rows."""
    names = [who] * len(x) if isinstance(who, str) else who
    rows = held.rows(SKETCHER.sketch(x), names)
    return held.look_up(rows, held.insert(rows))


def test_nothing_matches_an_empty_memory() -> None:
    found = look_up(memory(), pictures()[:1], "a")
    assert found.kinds.tolist() == [NOTHING] and found.queries.tolist() == [-1]
    assert found.distances.tolist() == [-1]


@pytest.mark.parametrize("who", ["a", "b"], ids=["own", "another key"])
def test_an_exact_repetition_is_told_from_a_near_one(who: str) -> None:
    held = memory()
    numbers = insert(held, pictures()[:200], "a")
    again = look_up(held, pictures()[:200], who)
    assert (again.kinds == EXACT).all() and again.queries.tolist() == numbers
    assert (again.distances == 0).all()
    one_pixel = pictures()[:200].copy()
    one_pixel[:, 0, 14, 14] += np.where(one_pixel[:, 0, 14, 14] > 0.5, -0.001, 0.001)
    near = look_up(held, one_pixel, who)
    assert (near.kinds == NEAR).all() and near.queries.tolist() == numbers
    assert (near.principals == held.principal("a")).all()


def test_a_jpeg_of_the_same_picture_matches() -> None:
    held = memory()
    insert(held, pictures()[:300], "a")
    found = look_up(held, jpeg(pictures()[:300]), "a")
    assert (found.kinds == NEAR).mean() > 0.95
    assert (found.queries == np.arange(300))[found.kinds == NEAR].mean() > 0.98


def test_other_pictures_seldom_match() -> None:
    held = memory()
    insert(held, pictures()[:500], "a")
    assert (look_up(held, pictures()[500:], "a").kinds != NOTHING).mean() < 0.01


def test_a_picture_that_was_half_painted_over_matches_by_its_fingerprints() -> None:
    held = memory(cuts=Cuts(own=8, any=8, shared=12))
    insert(held, pictures()[:300], "a")
    painted = pictures()[:300].copy()
    painted[:, :, 4:12, 4:12] = 1 - painted[:, :, 4:12, 4:12]
    found = look_up(held, painted, "b")
    by_prints = (found.kinds == NEAR) & (found.distances > CUTS.any)
    assert by_prints.mean() > 0.5
    assert (found.shared[by_prints] >= CUTS.shared).all()


def test_the_own_cut_holds_for_own_queries_alone() -> None:
    held = memory(cuts=Cuts(own=40, any=-1, shared=NO_PRINTS))
    insert(held, pictures()[:100], "a")
    changed = noisy(pictures()[:100], 0.1)
    assert (look_up(held, changed, "a").kinds == NEAR).mean() > 0.9
    names = [f"b{i}" for i in range(100)]
    assert (look_up(held, changed, names).kinds == NOTHING).all()
    assert (look_up(held, pictures()[:100], names).kinds == EXACT).all()


def test_the_best_match_is_a_repetition_then_the_nearest() -> None:
    held = memory()
    x = pictures()[:1]
    insert(held, np.concatenate([noisy(x, 0.1), x, noisy(x, 0.02), noisy(x, 0.05)]), "a")
    assert look_up(held, x, "a").queries.tolist() == [1]
    other = x.copy()
    other[0, 0, 14, 14] = 1 - other[0, 0, 14, 14]
    assert look_up(held, other, "a").queries.tolist() in ([1], [2])


def test_rows_of_a_batch_are_compared_with_those_before_them() -> None:
    held = memory()
    x = np.concatenate([pictures()[:3], pictures()[:1], noisy(pictures()[1:2], 0.02), pictures()[5:6]])
    found = observe(held, x, ["a", "a", "a", "a", "b", "a"])
    assert found.kinds.tolist() == [NOTHING, NOTHING, NOTHING, EXACT, NEAR, NOTHING]
    assert found.queries.tolist() == [-1, -1, -1, 0, 1, -1]
    assert found.principals[4] == held.principal("a")


def test_a_large_batch_of_one_row_matches_its_first_rows() -> None:
    found = observe(memory(), np.repeat(pictures()[:1], 300, 0), "a")
    assert found.kinds.tolist() == [NOTHING] + 299 * [EXACT]
    assert (found.queries < np.arange(300)).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.booleans()), max_size=12))
def test_a_batch_finds_what_its_rows_find_one_by_one(rows: list[tuple[int, str, bool]]) -> None:
    x = np.stack(
        [noisy(pictures()[i : i + 1], 0.02, i)[0] if bent else pictures()[i] for i, _, bent in rows]
        or [pictures()[0]]
    )[: len(rows)]
    who = [name for _, name, _ in rows]
    whole, single = memory(), memory()
    together = observe(whole, x, who)
    for i in range(len(rows)):
        alone = look_up(single, x[i : i + 1], who[i : i + 1])
        insert(single, x[i : i + 1], who[i : i + 1])
        assert alone.kinds[0] == together.kinds[i]
        if alone.kinds[0] == NEAR:
            assert alone.distances[0] == together.distances[i]


def test_two_memories_of_one_salt_are_alike_and_another_salt_forgets_other_entries() -> None:
    def found(salt: bytes) -> list[int]:
        held = QueryMemory(CUTS, salt, SKETCHER.has_prints, 2**10, 0, 2)
        for i in range(0, 1000, 100):
            insert(held, pictures()[i : i + 100], "a")
        return list(map(int, look_up(held, pictures(), "b").queries))

    assert found(SALT) == found(SALT)
    assert QueryMemory(CUTS, SALT).principal("a") != QueryMemory(CUTS, OTHER_SALT).principal("a")


def test_memory_stays_bounded_and_old_queries_are_forgotten() -> None:
    held = memory(retained=2**10, rings=4)
    arrays: list[NDArray[Any]] = [
        held._table.entries,
        held._held.bits,
        held._held.marks,
        held._first,
        held._margins,
    ]
    insert(held, pictures()[:100], "first")
    remember(held, 5, 0.25, [], 5)
    for i in range(30):
        moved = np.roll(pictures()[100:], (i % 7 - 3, i // 7), (2, 3))
        insert(
            held,
            moved[i * 20 : i * 20 + 200],
            [f"key {i} {j % 3}" for j in range(len(moved[i * 20 : i * 20 + 200]))],
        )
    assert [one.nbytes for one in arrays] == [65536, 32768, 131072, 8192, 4096]
    assert len(held._rings) == 4 and held._rings.first.shape == (4, RING)
    assert (look_up(held, pictures()[:100], "first").kinds == EXACT).sum() == 0
    assert np.isnan(held.margins(np.array([5]))).all() and held.recall(5) is None
    remember(held, 5, 0.25, [], 5)
    assert held.recall(5) is None, "a query that is forgotten stays so"


def test_a_query_survives_in_the_table_as_long_as_stated() -> None:
    """By one band: the share of entries that are left after t queries is exp(-t / retained)."""
    held = QueryMemory(Cuts(-1, -1, NO_PRINTS), SALT, retained=2**12)
    rng = np.random.default_rng(0)

    def some(n: int) -> Sketches:
        bits = rng.integers(0, 2**63, (n, 4), np.uint64) * np.uint64(2) + rng.integers(
            0, 2, (n, 4), np.uint64
        )
        return Sketches(bits, rng.integers(0, 2**63, n, np.uint64), Prints.none(n))

    first = some(1000)
    rows = held.rows(first, ["a"] * 1000)
    held.insert(rows)
    half_life = round(0.69 * 2**12) - 500
    held.insert(held.rows(some(half_life), ["b"] * half_life))
    alive = (held._table.candidates(rows.keys).reshape(1000, 16, 4) == np.arange(1000)[:, None, None]).any(2)
    assert alive.mean() == pytest.approx(0.5, abs=0.03)
    assert alive.any(1).mean() > 0.99


def test_a_ring_holds_the_latest_queries_of_its_principal() -> None:
    held = memory(retained=2**13, cuts=Cuts(own=2, any=-1, shared=NO_PRINTS))
    insert(held, pictures(), "a")
    for i in range(4):
        insert(held, np.roll(pictures()[:250], i + 1, 3), "a")
    ring = held._rings.of(held.principal("a"))
    assert sorted(ring.tolist()) == list(range(2000 - RING, 2000))


def test_margin_answer_and_source_are_kept_with_their_query() -> None:
    held = memory(width=3)
    numbers = insert(held, pictures()[:2], "a")
    assert np.isnan(held.margins(np.array(numbers))).all() and held.recall(numbers[0]) is None
    remember(held, numbers[1], 0.125, [5, 2, 250], numbers[0])
    assert held.margins(np.array([numbers[1], -1, 99])).tolist()[0] == 0.125
    assert np.isnan(held.margins(np.array([-1, 2, 99]))).all()
    again = held.recall(numbers[1])
    assert again is not None and again.source == numbers[0]
    assert again.answer.tolist() == [5, 2, 250]
    for number in (2, -1):
        remember(held, number, 0.5, [1, 1, 1], 0)
        assert held.recall(number) is None
    held.repeat(numbers[0], numbers[1])
    assert held.margins(np.array(numbers)).tolist() == [0.125, 0.125]


def test_an_answer_without_a_margin_is_recalled() -> None:
    held = memory(width=1)
    (number,) = insert(held, pictures()[:1], "a")
    remember(held, number, np.nan, [7], number)
    again = held.recall(number)
    assert again is not None and again.answer.tolist() == [7]
    assert np.isnan(held.margins(np.array([number]))).all()


@pytest.mark.parametrize("who", ["a", "b"], ids=["own", "another key"])
def test_two_retained_queries_are_near_exactly_if_a_look_up_says_so(who: str) -> None:
    held = memory()
    first = insert(held, pictures()[:60], "a")
    changed = noisy(pictures()[:60], 0.06)
    found = look_up(held, changed, who)
    second = insert(held, changed, who)
    near = [held.is_near(a, b) for a, b in zip(second, first, strict=True)]
    said = (found.kinds != NOTHING) & (found.queries == np.array(first))
    assert 10 < sum(near) < 60
    assert all(np.array(near)[said])
    assert not held.is_near(first[0], 10**6) and not held.is_near(-1, first[0])


def test_tables_and_texts_are_remembered_without_fingerprints() -> None:
    numbers, texts = diamonds()
    sketcher = Sketcher(Coarse.fit(numbers, texts), SALT)
    assert not sketcher.has_prints
    held = QueryMemory(Cuts(4, 4, NO_PRINTS), SALT, retained=2**10)
    held.insert(held.rows(sketcher.sketch(numbers, texts), ["a"] * 200))
    again = held.look_up(held.rows(sketcher.sketch(numbers, texts), ["b"] * 200))
    assert (again.kinds == EXACT).all()
    cheaper = numbers.copy()
    cheaper[:, 0] *= np.float32(1.001)
    near = held.look_up(held.rows(sketcher.sketch(cheaper, texts), ["b"] * 200))
    assert (near.kinds == NEAR).mean() > 0.95
    other = texts.copy()
    other[:, 1] = np.where(texts[:, 1] == "G", "H", "G")
    changed = held.look_up(held.rows(sketcher.sketch(numbers, other), ["b"] * 200))
    assert (changed.kinds == EXACT).sum() == 0


def test_a_table_of_one_column_is_remembered() -> None:
    x = np.random.default_rng(0).standard_normal((300, 1)).astype(np.float32)
    sketcher = Sketcher(Coarse.fit(x), SALT)
    held = QueryMemory(Cuts(0, 0, NO_PRINTS), SALT, retained=2**10)
    held.insert(held.rows(sketcher.sketch(x), ["a"] * 300))
    assert (held.look_up(held.rows(sketcher.sketch(x), ["a"] * 300)).kinds == EXACT).all()


def test_letters_that_are_equal_are_repetitions() -> None:
    sketches = letter_sketcher().sketch(letters())
    held = QueryMemory(Cuts(-1, -1, NO_PRINTS), SALT, retained=2**10)
    rows = held.rows(sketches, ["a"] * 1000)
    found = held.look_up(rows, held.insert(rows))
    _, first = np.unique(letters(), axis=0, return_index=True)
    assert (found.kinds == EXACT).sum() == 1000 - len(first)


def test_constant_pictures_match_only_by_their_bits() -> None:
    held = memory()
    flat = np.stack([np.full((1, 28, 28), level, np.float32) for level in (0.0, 0.004, 1.0)])
    found = observe(held, flat, "a")
    assert found.kinds.tolist() == [NOTHING, NEAR, NOTHING]
    assert found.shared.tolist() == [0, 0, 0]


def test_no_rows_are_looked_up_and_inserted_as_no_rows() -> None:
    held = memory()
    for _ in range(2):
        assert len(look_up(held, pictures()[:0], []).kinds) == 0
        assert insert(held, pictures()[:0], []) == []
        insert(held, pictures()[:1], "a")


def test_what_does_not_fit_is_refused() -> None:
    held = memory(retained=2**10)
    with pytest.raises(ValueError, match="1 principals, 16 words of fingerprints a row; expected 2 and 16"):
        held.rows(SKETCHER.sketch(pictures()[:2]), ["a"])
    with pytest.raises(ValueError, match="0 words of fingerprints a row; expected 1 and 16"):
        held.rows(letter_sketcher().sketch(letters()[:1]), ["a"])
    with pytest.raises(ValueError, match="1500 rows at once, and 1024 are retained"):
        insert(held, np.repeat(pictures()[:1], 1500, 0), "a")
    with pytest.raises(ValueError, match="a power of two"):
        memory(retained=1000)
    with pytest.raises(ValueError, match="0 rings"):
        memory(rings=0)
    with pytest.raises(ValueError, match="cuts are -1"):
        Cuts(257, 0, 12)


@pytest.mark.parametrize(
    ("walk", "least"),
    [
        ("HopSkipJump", 0.9),
        ("Boundary", 0.9),
        ("SimBA, pixels of 0.2", 0.95),
        ("Square, 0.3", 0.5),
        ("jitter of 0.05", 0.95),
    ],
)
@pytest.mark.parametrize("keys", [1, 200], ids=["one key", "many keys"])
def test_most_queries_of_an_attack_repeat_an_earlier_one_or_nearly(
    walk: str, least: float, keys: int
) -> None:
    target = Target(OnnxModel.load(FASHION / "primary.onnx"))
    x, rng = pictures(), np.random.default_rng(1)
    sent = WALKS[walk](target, x[0], x[1], 200, rng)
    held, kinds = memory(rings=300), []
    insert(held, x[100:600], "honest")
    for i in range(len(sent)):
        who = f"key {i % keys}"
        kinds.append(look_up(held, sent[i : i + 1], who).kinds[0])
        insert(held, sent[i : i + 1], who)
    assert np.mean(np.array(kinds[1:]) != NOTHING) >= least
    assert NEAR in kinds[:10]
