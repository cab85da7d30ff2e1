"""Content codings: a decoded body is the encoded one, and broken or too large bodies are refused."""

from __future__ import annotations

import gzip
import json
import random
import time
import tracemalloc
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.http import codings
from gateway.http.codings import Coding, accepted_coding, decode, encode
from gateway.protocol.endings import Rejection
from gateway.serving.data_plane import RequestRejected

MB = 2**20
CODINGS: list[Coding] = ["gzip", "deflate"]
SMALL = b'{"inputs": []}' * 5


def refused(body: bytes, coding: str, limit_bytes: int = MB) -> str:
    """In which words a broken body is refused; the field is the body."""
    with pytest.raises(InvalidRequest) as caught:
        decode(body, coding, limit_bytes)
    (problem,) = caught.value.problems
    assert problem.field == "body"
    return problem.what


def ended(body: bytes, coding: str, limit_bytes: int = MB) -> Rejection:
    with pytest.raises(RequestRejected) as caught:
        decode(body, coding, limit_bytes)
    assert caught.value.error
    assert isinstance(caught.value.end, Rejection)
    return caught.value.end


# ---------------------------------------------------------------- what is right


@given(body=st.binary(max_size=5000), coding=st.sampled_from(CODINGS), spare=st.integers(0, 3))
@example(b"", "gzip", 0)
@example(b"", "deflate", 0)
def test_what_was_encoded_comes_back_to_the_byte(body: bytes, coding: Coding, spare: int) -> None:
    sent = encode(body, coding)
    assert decode(sent, coding, len(body) + spare) == body
    if body:
        assert ended(sent, coding, len(body) - 1) is Rejection.TOO_LARGE


@given(body=st.binary(max_size=5000), level=st.integers(0, 9))
def test_what_other_encoders_make_is_read(body: bytes, level: int) -> None:
    assert decode(zlib.compress(body, level), "deflate", 5000) == body
    assert decode(gzip.compress(body, level), "gzip", 5000) == body
    small_window = zlib.compressobj(level, zlib.DEFLATED, 9)
    assert decode(small_window.compress(body) + small_window.flush(), "deflate", 5000) == body


def test_a_gzip_header_may_say_more() -> None:
    plain = encode(SMALL, "gzip")
    named = plain[:3] + b"\x08" + plain[4:10] + b"name\0" + plain[10:]
    assert decode(named, "gzip", MB) == SMALL


@pytest.mark.parametrize("coding", ["GZip", " gzip ", "x-gzip", "X-GZIP"])
def test_coding_names_are_case_insensitive_and_stripped(coding: str) -> None:
    assert decode(encode(SMALL, "gzip"), coding, MB) == SMALL


def test_standard_decoders_read_encoded_bodies_and_encoding_is_deterministic() -> None:
    assert gzip.decompress(encode(SMALL, "gzip")) == zlib.decompress(encode(SMALL, "deflate")) == SMALL
    assert [encode(SMALL, coding) for coding in CODINGS] == [encode(SMALL, coding) for coding in CODINGS]


def test_identity_is_the_body_itself_if_it_is_small_enough() -> None:
    assert decode(SMALL, "identity", len(SMALL)) is SMALL
    assert ended(SMALL, "identity", len(SMALL) - 1) is Rejection.TOO_LARGE


# ---------------------------------------------------------------- what is not


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_cut_short_at_any_byte_is_refused(coding: Coding) -> None:
    sent = encode(SMALL, coding)
    for n in range(len(sent)):
        assert "ends before" in refused(sent[:n], coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_no_flipped_bit_gives_other_data(coding: Coding) -> None:
    sent = encode(SMALL, coding)
    for n in range(len(sent) * 8):
        broken = bytearray(sent)
        broken[n // 8] ^= 1 << n % 8
        try:
            assert decode(bytes(broken), coding, MB) == SMALL, "some bits mean nothing, such as the time"
        except InvalidRequest:
            pass


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("more", [b"\0", b"\n", b"garbage", b"x" * 100_000])
def test_bytes_after_the_end_are_refused(coding: Coding, more: bytes) -> None:
    assert refused(encode(SMALL, coding) + more, coding).startswith(f"{len(more)} bytes after the end")


@pytest.mark.parametrize("coding", CODINGS)
def test_a_second_member_is_refused_even_an_empty_one(coding: Coding) -> None:
    for second in (SMALL, b""):
        assert "after the end" in refused(encode(SMALL, coding) + encode(second, coding), coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_wrong_checksum_or_length_is_refused(coding: Coding) -> None:
    sent = encode(SMALL, coding)
    for at in (-1, -4, -5, -8) if coding == "gzip" else (-1, -4):
        broken = bytearray(sent)
        broken[at] ^= 0xFF
        assert refused(bytes(broken), coding) == f"is not {coding}"


def test_gzip_deflate_and_raw_deflate_are_not_confused() -> None:
    raw = zlib.compressobj(wbits=-15)
    bare = raw.compress(SMALL) + raw.flush()
    for coding in CODINGS:
        assert refused(bare, coding) == f"is not {coding}"
        assert refused(SMALL, coding) == f"is not {coding}"
    assert refused(encode(SMALL, "gzip"), "deflate") == "is not deflate"
    assert refused(encode(SMALL, "deflate"), "gzip") == "is not gzip"


def test_a_preset_dictionary_is_refused() -> None:
    machine = zlib.compressobj(zdict=SMALL)
    assert refused(machine.compress(SMALL) + machine.flush(), "deflate") == "is not deflate"


@pytest.mark.parametrize(
    "coding",
    [
        "br",
        "zstd",
        "compress",
        "gzip, gzip",
        "gzip,deflate",
        "identity, gzip",
        "",
        ",",
        "*",
        "gzip;q=1",
        "gzip\0",
    ],
)
def test_other_codings_and_several_at_once_are_not_supported(coding: str) -> None:
    assert ended(encode(SMALL, "gzip"), coding) is Rejection.UNSUPPORTED_MEDIA


@given(body=st.binary(max_size=2000), coding=st.sampled_from(CODINGS))
@settings(max_examples=300)
def test_any_bytes_decode_within_the_limit_or_raise_a_documented_error(body: bytes, coding: Coding) -> None:
    for sent in (body, encode(b"", coding)[:10] + body, encode(body, coding)[:-3] + body):
        try:
            assert len(decode(sent, coding, 500)) <= 500
        except (InvalidRequest, RequestRejected):
            pass


# ---------------------------------------------------------------- bombs


def bomb(coding: Coding, size: int) -> bytes:
    machine = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    step = bytes(MB)
    return b"".join([machine.compress(step) for _ in range(size // MB)]) + machine.flush()


@pytest.mark.parametrize("coding", CODINGS)
def test_a_decompression_bomb_is_bounded_in_memory_and_time(coding: Coding) -> None:
    sent = bomb(coding, 512 * MB)
    assert len(sent) < MB
    decode(encode(SMALL, coding), coding, MB)
    tracemalloc.start()
    start_s = time.perf_counter()
    try:
        assert ended(sent, coding, 8 * MB) is Rejection.TOO_LARGE
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start_s < 1.0
    assert most < 2 * 8 * MB + len(sent) + MB


@pytest.mark.parametrize("coding", CODINGS)
def test_many_empty_blocks_are_decoded_quickly(coding: Coding) -> None:
    head = encode(b"", coding)[: 10 if coding == "gzip" else 2]
    start_s = time.perf_counter()
    assert "ends before" in refused(head + b"\0\0\0\xff\xff" * (8 * MB // 5), coding)
    assert time.perf_counter() - start_s < 2.0


def test_the_largest_body_is_decoded_quickly() -> None:
    numbers = random.Random(1)
    body = json.dumps([round(numbers.random(), 6) for _ in range(800_000)]).encode()
    for coding in CODINGS:
        start_s = time.perf_counter()
        sent = encode(body, coding)
        assert decode(sent, coding, len(body)) == body
        assert time.perf_counter() - start_s < 3.0


# ---------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip ; q=0.8 , deflate ; Q=0.8", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.001", "gzip"),
        ("*", None),
        ("*;q=1, gzip;q=0", None),
        ("br", None),
        ("identity", None),
        ("identity, gzip", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0.5, gzip;q=0.5", None),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;q=0.0001", None),
        ("gzip;q=nan", None),
        ("gzip;q=", None),
        ("gzip;level=9", None),
        ("gzip deflate", None),
        ("gzip;q=x, deflate", "deflate"),
        (", ,gzip,", "gzip"),
        ("gzip" + "," * 10_000, "gzip"),
        ("a" * 16_000, None),
    ],
)
def test_a_reply_is_encoded_only_in_a_named_coding_preferred_to_identity(
    header: str | None, coding: Coding | None
) -> None:
    assert accepted_coding(header) == coding


@given(st.text(alphabet="gzipdeflatequ=;,. 01*-\t", max_size=300))
def test_any_accept_encoding_gives_gzip_deflate_or_none(header: str) -> None:
    assert accepted_coding(header) in ("gzip", "deflate", None)
    if "gzip" not in header and "deflate" not in header:
        assert accepted_coding(header) is None


# ---------------------------------------------------------------- how much may come of little


def test_more_than_a_hundred_times_the_encoded_bytes_is_refused_beyond_the_first_mebibyte() -> None:
    bomb = encode(bytes(8 * MB), "gzip")
    assert ended(bomb, "gzip", 8 * MB) is Rejection.TOO_LARGE
    most = codings.FREE_BYTES + codings.EXPANSION * len(bomb)
    with pytest.raises(RequestRejected, match="too_large") as caught:
        decode(bomb, "gzip", 8 * MB)
    assert f"at most {most} bytes" in caught.value.error


def test_what_compresses_less_and_what_is_small_is_read() -> None:
    small = bytes(codings.FREE_BYTES)
    assert decode(encode(small, "gzip"), "gzip", 8 * MB) == small
    rows = b",".join([b"0.0,0.125,%d" % (i % 1000) for i in range(500_000)])
    assert decode(encode(rows, "deflate"), "deflate", 8 * MB) == rows


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_that_decodes_to_little_is_decoded_at_once_and_another_is_not(coding: Coding) -> None:
    assert codings.decode_small(encode(b"x" * 100, coding), coding, 100) == b"x" * 100
    assert codings.decode_small(encode(b"x" * 101, coding), coding, 100) is None
    assert codings.decode_small(b"y" * 500, "identity", 100) == b"y" * 500
    with pytest.raises(InvalidRequest):
        codings.decode_small(b"y" * 50, coding, 100)
