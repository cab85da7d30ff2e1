"""Large bodies over HTTP end as small ones do, and a caller with too many invalid ones is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import numpy as np
import pytest

from gateway.access import metering
from gateway.access.metering import ParseMeter
from gateway.protocol.infer_request import INLINE_BYTES
from tests.support.data_planes import PlaneFixture, request_of, whole_plane

PADDING = b" " * (2 * INLINE_BYTES)
"""White space after JSON, with which a body is parsed in the parser process."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made
        made.handler.plane.close()


@pytest.fixture
def meter(plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch) -> ParseMeter:
    """A meter of small budgets, on which no caller owes anything."""
    monkeypatch.setattr(metering, "INVALID_BURST_S", 0.005)
    monkeypatch.setattr(metering, "INVALID_LEAK", 1e-5)
    fresh = ParseMeter()
    monkeypatch.setattr(plane.handler.plane, "meter", fresh)
    return fresh


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_large_body_gets_the_answer_of_a_small_one(plane: PlaneFixture, coding: str) -> None:
    x = plane.good[:20]
    body, _ = request_of(x, id="é")

    async def main() -> None:
        padded = body + PADDING
        sent = gzip.compress(padded) if coding == "gzip" else padded
        large = await plane.ada.post(sent, {"content-encoding": coding} if coding == "gzip" else {})
        small = await plane.ada.post(body)
        assert large.outcome == small.outcome == (200, "served", "ok")
        assert large.json["id"] == "é"
        assert large.tensor().tobytes() == small.tensor().tobytes()

    plane.run(main)


def test_binary_data_behind_little_json_is_read_at_once_however_large(plane: PlaneFixture) -> None:
    x = np.repeat(plane.good[:1], 128, axis=0)
    body = request_of(x, binary=True)[0]
    large = body[: -x.nbytes].ljust(INLINE_BYTES - 10)

    async def main() -> None:
        parsing = plane.handler.plane.parsing
        before = parsing._process._process
        assert len(large) + x.nbytes > INLINE_BYTES
        reply = await plane.ada.post(
            large + x.tobytes(), [("Inference-Header-Content-Length", str(len(large)))]
        )
        assert reply.outcome == (200, "served", "ok")
        assert parsing._process._process is before

    plane.run(main)


INVALID = {
    "cut short": lambda body: body[:-2] + b" " * len(PADDING),
    "of another type": lambda body: body.replace(b"FP32", b"INT8") + PADDING,
    "with too few values": lambda body: body.replace(b'"data": [', b'"data": [1, ') + PADDING,
    "with data that is nested wrongly": lambda body: body.replace(b'"data": [', b'"data": [[1], ') + PADDING,
    "nested too deep": lambda body: body[:-1] + b',"z":' + b"[" * 20 + b"]" * 20 + b"}" + PADDING,
}


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_a_large_invalid_body_gets_the_error_of_a_small_one(plane: PlaneFixture, change: object) -> None:
    assert callable(change)
    large = change(request_of(plane.good[:2])[0])
    small = large.replace(PADDING, b"")

    async def main() -> None:
        got, expected = await plane.ada.post(large), await plane.ada.post(small)
        assert got.outcome == expected.outcome == (400, "refused", "invalid")
        assert got.json["error"].split(": line")[0] == expected.json["error"].split(": line")[0]

    plane.run(main)


def test_a_coding_that_is_broken_or_hides_too_much_is_refused(plane: PlaneFixture) -> None:
    body = request_of(plane.good[:1])[0]

    async def main() -> None:
        headers = {"content-encoding": "gzip"}
        cut = gzip.compress(body + np.random.default_rng(0).bytes(2 * INLINE_BYTES))[:-9]
        assert (await plane.ada.post(cut, headers)).outcome == (400, "refused", "invalid")
        limit = plane.gateway.loaded.contract.body_limit_bytes
        huge = gzip.compress(body + b" " * limit)
        assert (await plane.ada.post(huge, headers)).outcome == (413, "refused", "too_large")

    plane.run(main)


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
def test_a_caller_with_too_many_invalid_bodies_is_refused_before_its_next_body_is_read(
    plane: PlaneFixture, meter: ParseMeter, padding: bytes
) -> None:
    plane.handler.plane.parsing._meter = meter

    async def main() -> None:
        ends = [(await plane.ada.post(b"{" + padding)).outcome for _ in range(40)]
        assert ends[0] == (400, "refused", "invalid")
        assert ends[-1] == (429, "refused", "rate_limited")
        refused = await plane.ada.post(request_of(plane.good[:1])[0])
        assert refused.outcome == (429, "refused", "rate_limited")
        assert int(refused.headers["retry-after"]) >= 1
        assert json.loads(refused.body)["error"] == "too many requests: try again later"
        other = await plane.client(plane.keys["bob"]).post(request_of(plane.good[:1])[0])
        assert other.status == 200
        assert (await plane.ada.get("/v2/models/letters")).status == 200, "only inference is refused"

    plane.run(main)


def test_valid_bodies_are_not_charged_as_invalid_ones(plane: PlaneFixture, meter: ParseMeter) -> None:
    plane.handler.plane.parsing._meter = meter

    async def main() -> None:
        for _ in range(12):
            assert (await plane.ada.post(request_of(plane.good[:1])[0] + PADDING)).status == 200
            assert (await plane.ada.post(request_of(plane.good[:1])[0])).status == 200

    plane.run(main)
