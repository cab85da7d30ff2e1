"""Texts as numbers: categories by their rarity, free text by its length and how surprising its bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.text_columns import Categories, FreeText, text_column

RNG = np.random.default_rng(0)
N = 800
WORDS = (
    b"the delivery was late but box arrived whole and this seller answered my question on same day we would "
    b"buy again from them for our kitchen because price quality are good colour is not like in picture but "
    b"it works very well after first week no complaints so far only manual could be better written thank you"
).split()
GERMAN = b"die Lieferung kam zu sp\xc3\xa4t und das Ger\xc3\xa4t l\xc3\xa4sst sich nicht einschalten"


def objects(texts: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def reviews(n: int, rng: np.random.Generator) -> list[bytes]:
    return [b" ".join(rng.choice(np.array(WORDS, object), rng.integers(8, 60))) for _ in range(n)]


def written(column: Categories | FreeText, texts: Sequence[bytes]) -> NDArray[np.float32]:
    columns = np.empty((len(texts), len(column.suffixes)), np.float32)
    column.write(objects(texts), columns)
    return columns


REVIEWS = FreeText.fit(reviews(N, RNG))


def test_a_category_has_the_log_of_its_share_and_an_unseen_one_far_more() -> None:
    column = text_column([b"a"] * 600 + [b"b"] * 197 + [b""] * 2 + [b"c"])
    assert isinstance(column, Categories)
    nats = written(column, [b"a", b"b", b"", b"c", b"d", b"A", b"a\0"])[:, 0]
    np.testing.assert_allclose(nats[:4], -np.log(np.array([601, 198, 3, 2]) / 801), rtol=1e-6)
    np.testing.assert_allclose(nats[4:], np.log(801 / 2) + np.log(20), rtol=1e-6)


@pytest.mark.parametrize("odd", [b"", b"\0", b"a\0\0", b"\xff\xfe", "grün".encode()])
def test_a_category_may_hold_any_bytes(odd: bytes) -> None:
    column = text_column([odd, b"plain"] * 100)
    assert written(column, [odd])[0, 0] == pytest.approx(-np.log(101 / 201))


@pytest.mark.parametrize(
    ("what", "texts", "kind"),
    [
        ("a flag", [b"yes", b"no"] * 400, Categories),
        ("one value only", [b"EUR"] * N, Categories),
        ("fifty codes", [b"%d" % i for i in RNG.integers(0, 50, N)], Categories),
        ("countries, some rare", [b"c%d" % i for i in np.minimum(RNG.geometric(0.3, N), 20)], Categories),
        ("identifiers", [b"%d" % i for i in range(N)], FreeText),
        ("identifiers, each twice", [b"%d" % (i // 2) for i in range(N)], FreeText),
        ("names, some common", [b"n%d" % min(i, 900) for i in RNG.zipf(1.5, N)], FreeText),
        ("texts", reviews(N, RNG), FreeText),
    ],
)
def test_values_that_repeat_are_categories_and_others_free_text(
    what: str, texts: list[bytes], kind: type[Categories | FreeText]
) -> None:
    assert type(text_column(texts)) is kind, what


def test_free_text_of_the_same_kind_is_as_surprising_as_that_of_fit() -> None:
    length, surprise = written(REVIEWS, reviews(300, np.random.default_rng(5))).T
    seen = written(REVIEWS, reviews(300, np.random.default_rng(6)))
    assert surprise.mean() == pytest.approx(seen[:, 1].mean(), rel=0.02)
    assert length.mean() == pytest.approx(seen[:, 0].mean(), rel=0.05)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("random bytes", RNG.bytes(120)),
        ("another language", GERMAN),
        ("keyboard noise", b"asdkjh qweoiu zxmcnb lkjasd poiqwe mznxbc alskdj"),
        ("capitals", b" ".join(WORDS[:12]).upper()),
        ("digits", b"4929 1173 8820 0043 12/29 415"),
        ("one letter", b"a" * 200),
        ("markup", b"<script>alert(document.cookie)</script>"),
    ],
)
def test_what_is_no_such_text_surprises_more_than_any_good_text(what: str, text: bytes) -> None:
    good = written(REVIEWS, reviews(500, np.random.default_rng(7)))[:, 1]
    assert written(REVIEWS, [text])[0, 1] > good.max() + good.std(), what


def test_the_empty_text_is_missing_in_both_columns() -> None:
    assert np.isnan(written(REVIEWS, [b""])).all()
    assert np.isfinite(written(REVIEWS, [b"a", b"\0", b"ab"])).all()


def test_no_more_than_the_first_4096_bytes_of_a_text_are_read_but_its_length_counts() -> None:
    start = b" ".join(reviews(100, RNG))[:4096]
    short, long = written(REVIEWS, [start, start + RNG.bytes(50_000)])
    assert short[1] == long[1]
    assert long[0] == pytest.approx(np.log(1 + 54_096))
