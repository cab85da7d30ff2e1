"""The file of keys as text: one key a line, a last line may be torn, anything else is invalid."""

from __future__ import annotations

import logging

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import Key, parse_keys

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
TEXTS = st.text(max_size=6)
KEYS = st.builds(
    Key,
    name=NAMES,
    hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    tier=TEXTS,
    per_s=st.none() | st.floats(0, 1e6),
    scopes=st.frozensets(TEXTS, max_size=3),
    models=st.none() | st.frozensets(TEXTS, max_size=2),
)
FILES = st.lists(KEYS, max_size=5)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b" \n\n", b"\n\t \n"])
ONE = b'{"name": "ada", "hash": "' + b"0" * 64 + b'"}'


def text_of(keys: list[Key], line_end: bytes = b"\n") -> bytes:
    return b"".join(orjson.dumps(key.model_dump(mode="json")) + line_end for key in keys)


@given(FILES, LINE_ENDS)
def test_every_line_is_a_key_and_blank_lines_are_none(keys: list[Key], line_end: bytes) -> None:
    assert list(parse_keys(text_of(keys, line_end))) == keys


@given(FILES, FILES)
def test_parsing_goes_on_from_the_end_of_a_line(before: list[Key], after: list[Key]) -> None:
    content = text_of(before)
    assert list(parse_keys(content + text_of(after), len(content))) == after


@given(st.lists(KEYS, min_size=1, max_size=3), st.data())
def test_a_file_cut_anywhere_keeps_every_key_before_the_cut(keys: list[Key], data: st.DataObject) -> None:
    """Whatever of an append reached the disk before a crash."""
    content = text_of(keys)
    cut = content[: data.draw(st.integers(0, len(content)))]
    whole = cut.count(b"\n") + (cut[-1:] == b"}" and content[len(cut) : len(cut) + 1] == b"\n")
    assert list(parse_keys(cut)) == keys[:whole]


def test_a_torn_last_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert [key.name for key in parse_keys(ONE + b"\n" + ONE[:-5])] == ["ada"]
    assert "cut short" in caplog.text


def test_a_last_line_that_only_lacks_its_end_counts(caplog: pytest.LogCaptureFixture) -> None:
    """As an editor may leave it."""
    assert [key.name for key in parse_keys(ONE + b"\n" + ONE)] == ["ada", "ada"]
    assert not caplog.records


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"[" + ONE + b"]",
        ONE + b",",
        ONE + ONE,
        b"{}",
        b"null",
        b"\xef\xbb\xbf" + ONE,
        b"\x00" * 100,
        ONE[:-1] + b', "admin": true}',
        ONE[:-1] + b', "per_s": NaN}',
        ONE[:-1] + b', "per_s": Infinity}',
        ONE[:-1] + b', "per_s": -1}',
        ONE[:-1] + b', "per_s": 1e999}',
        b"[" * 100_000,
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)
def test_a_line_that_is_no_key_makes_the_file_invalid_at_that_line(line: bytes) -> None:
    keys = parse_keys(ONE + b"\n" + line + b"\n" + ONE + b"\n")
    assert next(keys).name == "ada"
    with pytest.raises(ValueError, match="line 2 is no key"):
        list(keys)
