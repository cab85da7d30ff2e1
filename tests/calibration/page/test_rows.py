"""The rows that the report shows, and how it shows an input."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.calibration.page.formatting import count, number, printable, share
from gateway.calibration.page.pictures import MAX_SIDE_PIXELS, MAX_VALUES, show
from gateway.calibration.page.rows import MOST, nearest_refused, worst_accepted
from gateway.png import png
from tests.support.calibration_evidence import evidence_of, label_evidence_of, number_evidence_of


def decoded(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG with one IDAT and no filter; checks every chunk's sum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width, 3) if colour == 2 else (height, width))


@pytest.mark.parametrize("shape", [(5, 3), (4, 6, 3), (1, 1)])
def test_a_png_holds_the_pixels_it_was_made_of(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert (decoded(png(image)) == image).all()


def test_a_picture_is_shown_with_its_values_as_brightness() -> None:
    shown = show("image", np.array([[[0.0, 0.5], [1.0, 0.25]]], np.float32))
    assert shown.picture is not None
    pixels = decoded(base64.b64decode(shown.picture.removeprefix("data:image/png;base64,")))
    assert pixels.tolist() == [[0, 128], [255, 64]]


def test_a_large_picture_is_thinned_out() -> None:
    shown = show("image", np.zeros((3, 1000, 400), np.float32))
    assert shown.picture is not None
    pixels = decoded(base64.b64decode(shown.picture.partition(",")[2]))
    assert max(pixels.shape) <= MAX_SIDE_PIXELS
    assert pixels.shape == (91, 37, 3)


def test_a_standardized_picture_is_stretched_from_its_least_value_to_its_largest() -> None:
    array = np.linspace(-2.0, 3.0, 256).reshape(1, 16, 16)
    shown = show("image", array)
    assert shown.picture is not None
    pixels = decoded(base64.b64decode(shown.picture.partition(",")[2]))
    assert pixels.reshape(-1).tolist() == list(range(256))
    assert show("image", np.full((3, 16, 16), -7.0)).picture is not None


def test_one_number_or_word_is_shown_beside_its_name_and_a_text_below() -> None:
    assert show("x", np.array([3.0])).short and show("x", np.array([b"very good"], object)).short
    assert not show("x", np.array([3.0, 4.0])).short and not show("x", np.array([b"b" * 99], object)).short
    assert not show("x", np.zeros((1, 2, 2))).short


@pytest.mark.parametrize(
    "array",
    [
        np.array([[[0.0, 1.1], [0.0, 0.0]]]),
        np.array([[[np.nan, 0.0], [0.0, 0.0]]]),
        np.zeros((2, 4, 4)),
        np.zeros(5),
        np.float32(3.0).reshape(()),
        np.zeros((1, 3, 0)),
    ],
)
def test_what_is_no_picture_is_shown_as_its_first_values(array: NDArray[Any]) -> None:
    shown = show("x", array)
    assert shown.picture is None
    assert len(shown.values) == min(array.size, MAX_VALUES)
    assert shown.left_out == array.size - len(shown.values)
    assert "nan" not in shown.values


def test_text_is_shortened_and_made_printable() -> None:
    (shown,) = show("t", np.array([b"a\x00\xe2\x80\xae\xff" + b"b" * 999], object)).values
    assert shown.startswith("a\\x00\\u202e\\xffbbb")
    assert shown.endswith("…")
    assert len(shown) < 300


def test_the_worst_accepted_rows_are_wrong_and_ordered_by_suspicion() -> None:
    evidence = evidence_of(2000)
    rows = worst_accepted(evidence, ["zero", "one", "two", "three"])
    assert len(rows) == MOST
    for row in rows:
        facts = dict(row.facts)
        assert facts["label"] != facts.get("primary", facts.get("small"))
    suspicions = [float(dict(row.facts)["suspicion"]) for row in rows]
    assert suspicions == sorted(suspicions)


def test_the_nearest_refused_rows_are_stopped_and_ordered_from_the_cut_on() -> None:
    evidence = evidence_of(2000, guards=2)
    risks = [float(dict(row.facts)["risk"]) for row in nearest_refused(evidence, [])]
    assert len(risks) == MOST
    assert risks == sorted(risks)
    assert risks[0] >= 3.0
    assert {dict(row.facts)["by"] for row in nearest_refused(evidence, [])} <= {"g0", "g1", "g0, g1"}


def test_the_true_values_farthest_outside_come_first_with_number_interval_and_error() -> None:
    evidence = number_evidence_of(2000)
    assert evidence.rows.truth is not None
    evidence.rows.truth[::50] += 4.0
    rows = worst_accepted(evidence, [])
    assert len(rows) == MOST
    beyond = []
    for row in rows:
        assert [name for name, _ in row.facts] == ["truth", "primary", "interval", "error"]
        facts = dict(row.facts)
        low, high = map(float, facts["interval"].split(" to "))
        truth = float(facts["truth"])
        beyond.append(max(low - truth, truth - high))
        assert float(facts["error"]) == pytest.approx(abs(truth - float(facts["primary"])), abs=0.02)
    assert beyond[-1] > 0 and beyond == pytest.approx(sorted(beyond, reverse=True), abs=0.02)


def test_without_intervals_the_largest_errors_come_first() -> None:
    errors = [
        float(dict(row.facts)["error"]) for row in worst_accepted(number_evidence_of(interval=False), [])
    ]
    assert errors == sorted(errors, reverse=True) and len(errors) == MOST
    assert all(
        "interval" not in dict(row.facts) for row in worst_accepted(number_evidence_of(interval=False), [])
    )


def test_a_wrong_label_is_shown_without_a_suspicion_that_is_not_known() -> None:
    rows = worst_accepted(label_evidence_of(), [])
    assert len(rows) == MOST
    for row in rows:
        assert [name for name, _ in row.facts] == ["label", "primary"]
        assert row.facts[0][1] != row.facts[1][1]


def test_a_label_that_is_no_class_is_named_so() -> None:
    evidence = label_evidence_of()
    evidence.rows.labelled["primary"][:] = -1
    assert dict(worst_accepted(evidence, [])[0].facts)["primary"] == "no class"


def test_a_stopped_row_of_an_opaque_model_has_no_label() -> None:
    rows = nearest_refused(evidence_of(check=False, probabilities=False), [])
    assert {tuple(name for name, _ in row.facts) for row in rows} == {("risk", "by")}


def test_no_rows_are_shown_where_nothing_is_known_to_be_wrong_or_stopped() -> None:
    evidence = evidence_of(guards=0, check=False, probabilities=False)
    assert worst_accepted(evidence, []) == []
    assert nearest_refused(evidence, []) == []


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.0005, "< 0.1 %"), (0.9999, "> 99.9 %"), (0.0251, "2.5 %"),
        (None, "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_a_share_is_nothing_or_everything_only_if_it_is_exactly(part: float | None, text: str) -> None:
    assert share(part) == text.replace(" ", "\xa0")


def test_a_number_has_four_digits_and_no_exponent_where_it_needs_none() -> None:
    shown = [number(value) for value in (0.123456, -218_612.3, 2.5e9, float("nan"), float("inf"), None)]
    assert shown == ["0.1235", "-218612", "2.5e+09", "–", "–", "–"]


def test_counts_are_in_groups_of_three_and_rounded() -> None:
    assert (count(1234567), count(0.6)) == ("1\u202f234\u202f567", "1")


def test_text_that_prints_is_left_alone_and_other_characters_are_escaped() -> None:
    assert printable("Ångström 衣服 <b>") == "Ångström 衣服 <b>"
    assert printable("a\u202eb\ud800\x07") == "a\\u202eb\\ud800\\x07"
    assert printable(7) == 7
