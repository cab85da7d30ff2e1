"""The file of keys, read one key at a time: exactly what a JSON parser would read, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import Key, keys_in

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
TEXTS = st.text(max_size=6)
KEYS = st.builds(
    Key,
    name=NAMES,
    hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    tier=TEXTS,
    per_s=st.none() | st.floats(0, 1e6),
    scopes=st.frozensets(TEXTS, max_size=3),
)
FILES = st.lists(KEYS, max_size=5)
WRITERS = st.sampled_from(
    [
        lambda rows: orjson.dumps(rows),
        lambda rows: orjson.dumps(rows, option=orjson.OPT_INDENT_2),
        lambda rows: json.dumps(rows, indent="\t").encode(),
        lambda rows: b" \r\n" + json.dumps(rows, separators=(" , ", " : ")).encode() + b"\n\n",
    ]
)


def written(keys: list[Key], write: Any) -> bytes:
    content: bytes = write([key.model_dump(mode="json") for key in keys])
    return content


@given(FILES, WRITERS)
def test_the_keys_of_a_file_are_read_however_it_is_laid_out(keys: list[Key], write: Any) -> None:
    assert list(keys_in(written(keys, write))) == keys


@given(FILES, KEYS, FILES, WRITERS)
def test_reading_goes_on_from_where_a_key_ended(
    before: list[Key], last: Key, after: list[Key], write: Any
) -> None:
    whole = written([*before, last, *after], write)
    start = written([*before, last], write).rfind(b"}") + 1
    assert list(keys_in(whole, start)) == after


@given(st.lists(KEYS, min_size=1, max_size=3), WRITERS, st.data())
def test_a_file_that_is_cut_short_is_broken(keys: list[Key], write: Any, data: st.DataObject) -> None:
    content = written(keys, write).rstrip()
    with pytest.raises(ValueError):
        list(keys_in(content[: data.draw(st.integers(0, len(content) - 1))]))


ONE = b'{"name": "ada", "hash": "' + b"0" * 64 + b'"}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"]",
        b"[,]",
        b"[" + ONE + b",]",
        b"[," + ONE + b"]",
        b"[" + ONE + ONE + b"]",
        b"[" + ONE + b"]]",
        b"[" + ONE + b"] x",
        b"[[" + ONE + b"]]",
        ONE,
        b"\xef\xbb\xbf[]",
        b"[NaN]",
        b'[{"name": "ada", "hash": "' + b"0" * 64 + b'", "per_s": NaN}]',
        b'[{"name": "ada", "hash": "' + b"0" * 64 + b'", "per_s": Infinity}]',
        b"[" * 100_000,
    ],
)
def test_whatever_is_no_list_of_keys_is_broken(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        list(keys_in(content))


@pytest.mark.parametrize("rest", [b"", b",]", b"}]", ONE + b"]", b"," + ONE, b"] x"])
def test_what_was_added_is_broken_where_it_is_no_list_any_more(rest: bytes) -> None:
    with pytest.raises(ValueError):
        list(keys_in(b"[" + ONE + rest, len(b"[" + ONE)))
