"""What a reviewer sees of a case: PNG against an independent decoder, tables, summaries, sentences."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from gateway.admin.pictures import MAX_SIDE_PIXELS, is_picture, pixels
from gateway.admin.preview import NumbersPreview, PicturePreview, SummaryPreview, TextPreview, previews
from gateway.admin.reasons import deferral_reasons
from gateway.admin.table import Column, TablePreview
from gateway.deployment.deployment import Deployment
from gateway.png import png
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract, TensorSpec

F4 = np.dtype(np.float32)


def read_png(content: bytes) -> NDArray[np.uint8]:
    """A strict reader of what the standard says about 8-bit grey and colour without filters."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (crc,) = struct.unpack_from(">I", content, at + 8 + length)
        assert crc == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8 and colour in (0, 2) and rest == [0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any(), "filter 0 on every line"
    image = lines[:, 1:]
    return image if colour == 0 else image.reshape(height, width, 3)


images = st.one_of(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))),
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))),
)


@given(images)
def test_a_png_holds_exactly_the_pixels(image: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(read_png(png(image)), image)


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        st.sampled_from([(1, 1, 4, 5), (1, 3, 4, 5), (1, 4, 5, 1), (1, 4, 5, 3)]),
    )
)
def test_any_numbers_make_a_picture(array: NDArray[Any]) -> None:
    assert is_picture(array)
    image = pixels(array)
    assert image.shape == ((4, 5, 3) if 3 in (array.shape[1], array.shape[3]) else (4, 5))
    assert read_png(png(image)).dtype == np.uint8


def test_the_contracts_range_is_black_to_white() -> None:
    spec = TensorSpec("x", F4, (None, 1, 1, 3), -1.0, 1.0)
    array = np.array([-1.0, 0.0, 1.0], np.float32).reshape(1, 1, 1, 3)
    assert pixels(array, spec).tolist() == [[0, 128, 255]]
    assert pixels(4 * array, spec).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.25, 0.25], [0, 64, 64]),
        ([-2.0, 0.0, 2.0], [0, 128, 255]),
        ([np.nan, np.inf, -np.inf], [0, 0, 0]),
        ([-1.7e308, 0.0, 1.7e308], [0, 128, 255]),
        ([5.0, 5.0, 5.0], [0, 0, 0]),
    ],
)
def test_without_a_range_the_values_give_one(values: list[float], shown: list[int]) -> None:
    assert pixels(np.array(values).reshape(1, 1, 1, 3)).tolist() == [shown]


def test_bytes_are_shown_as_they_are() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert pixels(array).tolist() == array[0].tolist()
    assert pixels(array.transpose(0, 3, 1, 2)).tolist() == array[0].tolist()


def test_a_large_picture_is_subsampled() -> None:
    assert max(pixels(np.zeros((1, 1, 5000, 3000), np.float32)).shape) <= MAX_SIDE_PIXELS


def contract(*inputs: TensorSpec) -> Contract:
    return Contract("m", inputs, (TensorSpec("p", F4, (None, 2)),), 8, "1")


def test_each_input_is_shown_by_its_form() -> None:
    specs = contract(TensorSpec("a", F4, (None, 3), 0.0, 4.0), TensorSpec("b", F4, (None, 1, 2, 2)))
    shown = previews(
        {"a": np.array([[1.0, np.nan, 9.0]], np.float32), "b": np.zeros((1, 1, 2, 3), np.float32)}, specs
    )
    assert isinstance(shown[0], NumbersPreview) and isinstance(shown[1], PicturePreview)
    assert [(cell.index, cell.value, cell.place) for cell in shown[0].cells] == [
        (0, "1", 0.25),
        (1, "missing", None),
        (2, "9", 1.0),
    ]
    assert (shown[0].low, shown[0].high) == ("0", "4")
    (beyond,) = previews({"a": np.array([[np.inf, -np.inf, 2.0]], np.float32)}, specs)
    assert isinstance(beyond, NumbersPreview) and [cell.place for cell in beyond.cells] == [None, None, 0.5]
    assert (shown[1].width, shown[1].height) == (3, 2)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.ones((1, 512)), NumbersPreview),
        (np.ones((1, 513)), SummaryPreview),
        (np.ones(1), NumbersPreview),
        (np.array(3.5), NumbersPreview),
        (np.array([[True, False]]), NumbersPreview),
        (np.full((1, 4), np.nan), NumbersPreview),
        (np.full((1, 2), np.inf), NumbersPreview),
        (np.array([[-1.7e308, 1.7e308]]), NumbersPreview),
        (np.ones((1, 2, 3)), SummaryPreview),
        (np.full((1, 2, 3), np.nan), SummaryPreview),
        (np.ones((1, 0)), SummaryPreview),
        (np.ones((1, 1, 0, 4)), SummaryPreview),
        (np.ones((2, 1, 4, 4)), SummaryPreview),
        (np.ones((1, 2, 4, 4)), SummaryPreview),
        (np.ones((1, 1, 4, 4)), PicturePreview),
        (np.full((1, 3), b"a", object), TextPreview),
        (np.full((1, 1, 4, 4), b"a", object), TextPreview),
        (np.full((1, 0), b"a", object), TextPreview),
        (np.full((1, 2, 3), True), SummaryPreview),
        (np.full((1, 2, 3), 2**64 - 1, np.uint64), SummaryPreview),
        (np.full((1, 2, 3), np.inf, np.float16), SummaryPreview),
    ],
)
def test_no_form_breaks_the_preview(array: NDArray[Any], kind: type) -> None:
    (shown,) = previews({"unknown": array}, contract(TensorSpec("a", F4, (None, 3))))
    assert isinstance(shown, kind)


def test_a_summary_says_what_can_be_said() -> None:
    (shown,) = previews({"u": np.array([[[1.0, 3.0, np.inf]]])}, contract(TensorSpec("a", F4, (None, 3))))
    assert isinstance(shown, SummaryPreview)
    assert shown.facts == {
        "type": "float64",
        "shape": "1 × 1 × 3",
        "values": "3",
        "smallest": "1",
        "largest": "3",
        "median": "2",
        "first": "1, 3",
        "not finite": "1",
    }


def test_whole_numbers_are_shown_to_their_last_digit() -> None:
    (shown,) = previews(
        {"a": np.array([[2**63 - 1, -12345678, 0]])}, contract(TensorSpec("a", np.dtype(np.int64), (None, 3)))
    )
    assert isinstance(shown, NumbersPreview)
    assert [cell.value for cell in shown.cells] == ["9223372036854775807", "-12345678", "0"]


def test_a_summary_names_the_datatype_of_the_contract_if_the_case_is_of_it() -> None:
    one = contract(TensorSpec("a", F4, (None, 2, 3), bf16=True))
    for array, named in ((np.zeros((1, 2, 3), np.float32), "BF16"), (np.zeros((1, 2, 3)), "float64")):
        (shown,) = previews({"a": array}, one)
        assert isinstance(shown, SummaryPreview)
        assert shown.facts["type"] == named


def shown_text(*items: bytes) -> TextPreview:
    array = np.empty((1, len(items)), object)
    array[0] = items
    (shown,) = previews({"t": array}, contract(TensorSpec("t", np.dtype(object), (None, None))))
    assert isinstance(shown, TextPreview)
    return shown


def test_text_is_shown_with_an_escape_for_all_that_does_not_print() -> None:
    texts = "jä\nß \U0001f642".encode(), b"a\0b\x1b[31m", "\u202eabc\u200b".encode(), b"\xff\xfeok", b""
    assert shown_text(*texts).parts == (
        "jä\nß \U0001f642",
        r"a\x00b\x1b[31m",
        r"\u202eabc\u200b",
        r"\xff\xfeok",
        "",
    )


def test_text_is_cut_between_two_characters_and_says_so_and_many_texts_are_counted() -> None:
    assert shown_text(b"x" + "ä".encode() * 4000).parts == ("x" + "ä" * 2047 + "… (8001 bytes in all)",)
    many = shown_text(*[b"x"] * 40)
    assert (len(many.parts), many.left_out) == (32, 8)


def text(item: str | bytes) -> NDArray[Any]:
    return np.array([[item.encode() if isinstance(item, str) else item]], object)


MIXED = contract(
    TensorSpec("age", np.dtype(np.int64), (None, 1), 0, 120),
    TensorSpec("income", F4, (None, 1), high=1e9),
    TensorSpec("plan", np.dtype(object), (None, 1)),
    TensorSpec("clicks", F4, (None, 2)),
    TensorSpec("photo", F4, (None, 1, 2, 2)),
)


def test_several_inputs_are_one_table_with_names_values_and_what_stood_out() -> None:
    row = {
        "age": np.array([[30]]),
        "photo": np.zeros((1, 1, 2, 2), np.float32),
        "income": np.array([[1234567.0]], np.float32),
        "plan": text("gold"),
        "clicks": np.array([[0.5, np.nan]], np.float32),
    }
    table, photo = previews(row, MIXED, {"plan: length": 9.0, "clicks[1]": 2.0, "ag": 2.0, "income:": 1.0})
    assert isinstance(table, TablePreview) and isinstance(photo, PicturePreview)
    assert table.columns == (
        Column("age", "30", False, "0 to 120", 0.25),
        Column("income", "1234567", False, "to 1000000000"),
        Column("plan", "gold", True, stood_out=True),
        Column("clicks[0]", "0.5", False),
        Column("clicks[1]", "missing", False, stood_out=True),
    )


def test_the_numbers_of_one_input_that_stood_out_are_marked() -> None:
    row = {"a": np.array([[1.0, 2.0, 3.0]], np.float32)}
    (shown,) = previews(row, contract(TensorSpec("a", F4, (None, 3))), {"a[2]": 3.0, "a": 1.0, "a[7]": 1.0})
    assert isinstance(shown, NumbersPreview)
    assert [cell.stood_out for cell in shown.cells] == [False, False, True]


def test_text_in_a_table_is_escaped_and_bounded_like_text_alone() -> None:
    row = {
        "city": text("caf\xe9".encode("latin-1")),
        "\u202eeman": text("\u202eabc"),
        "long": text(b"x" * 9000),
        "count": np.array([[3]]),
    }
    (table,) = previews(row, MIXED)
    assert isinstance(table, TablePreview)
    city, name, long, count = table.columns
    assert (city.value, name.name, name.value, count.value) == (r"caf\xe9", r"\u202eeman", r"\u202eabc", "3")
    assert len(long.value) < 4200 and long.value.endswith("(9000 bytes in all)")


def test_a_table_of_very_many_columns_is_cut_and_says_so() -> None:
    row = {f"c{i}": np.ones((1, 16), np.float32) for i in range(50)}
    (table,) = previews(row, MIXED)
    assert isinstance(table, TablePreview)
    assert (len(table.columns), table.left_out) == (512, 288)


def test_an_input_of_many_numbers_is_shown_beside_the_table() -> None:
    row = {"age": np.array([[3]]), "series": np.ones((1, 17), np.float32), "plan": text("gold")}
    table, series = previews(row, MIXED, {"series[16]": 2.0})
    assert isinstance(table, TablePreview) and isinstance(series, NumbersPreview)
    assert [column.name for column in table.columns] == ["age", "plan"]
    assert [cell.index for cell in series.cells if cell.stood_out] == [16]


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(0.0, None, "from 0"), (None, 2.5, "to 2.5"), (None, None, "")]
)
def test_a_column_without_both_limits_has_no_bar(low: float | None, high: float | None, shown: str) -> None:
    one = contract(TensorSpec("a", F4, (None, 1), low, high), TensorSpec("b", F4, (None, 1)))
    (table,) = previews({"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.float32)}, one)
    assert isinstance(table, TablePreview)
    assert (table.columns[0].range, table.columns[0].place) == (shown, None)


@given(st.binary(max_size=60))
def test_of_any_bytes_only_printable_characters_are_shown(item: bytes) -> None:
    (part,) = shown_text(item).parts
    assert part.replace("\n", "").isprintable()


@pytest.fixture(scope="module")
def policy() -> Policy:
    found = Deployment.read(Path(__file__).parents[2] / "configs" / "letters").policy
    squeeze = {"name": "perturbation", "kind": "squeeze", "cuts": {"defer": "certified"}, "budget_s": 0.01}
    guards = [*(g.model_dump() for g in found.guards), {**squeeze, "on_error": "degrade"}]
    return Policy.model_validate({**found.model_dump(by_alias=True), "guards": guards})


def raised(stage: str, error: str | None = None, form: str = "full") -> dict[str, Any]:
    return {"stage": stage, "score": 1.0, "error": error, "form": form}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], ["no model could answer it"]),
        ([raised("ood")], ["it does not look like the data this model was calibrated on"]),
        ([raised("perturbation")], ["the answer changes when the image is simplified"]),
        ([raised("confidence")], ["the model “primary” is not sure enough"]),
        (
            [raised("confidence"), raised("small_confidence")],
            ["the models “primary” and “small” are not sure enough"],
        ),
        ([raised("ood", "ood: boom")], ["a guard failed: ood: boom"]),
        ([raised("confidence", "late")], ["a guard failed: late"]),
        ([raised("primary", "circuit open")], ["the model “primary” failed: circuit open"]),
        ([raised("gone")], ["“gone” objected"]),
        (
            [raised("primary", "x"), raised("ood", form="input_only"), raised("small_confidence")],
            [
                "the model “primary” failed: x",
                "it does not look like the data this model was calibrated on "
                "(judged by the input alone: the model was gone)",
                "the model “small” is not sure enough",
            ],
        ),
    ],
)
def test_why_is_one_sentence_a_cause(policy: Policy, found: list[dict[str, Any]], said: list[str]) -> None:
    assert deferral_reasons(orjson.dumps({"reason": "abstained", "raised": found}).decode(), policy) == said
