"""Kinds of requests that callers can mend: they are told so, and no reviewer gets them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.support.deployments import run
from tests.support.kinds import (
    begun,
    labelled,
    nearest,
)
from tests.support.mixed_models import mixed, of
from tests.support.typed import INFER, Sent, typed
from tests.support.typed_models import texts


def test_bytes_that_are_no_utf8_are_the_callers_to_mend(tmp_path: Path) -> None:
    content, held, datatypes = mixed("tnt")
    folder = begun(tmp_path, content, held)
    good = of(0, held, datatypes)

    async def main() -> None:
        async with typed(folder) as to:
            for name, index in (("t0", 0), ("t2", 2)):
                for raw in ("niño".encode("latin-1"), b"\xff\xfe", b"\xed\xa0\x80"):
                    bad = {**good, name: Sent("BYTES", texts(raw).reshape(1, 1), True)}
                    reply = await to.ask(bad)
                    assert reply.status == 400
                    assert reply.json["error"] == f"inputs[{index}].data: row 0: not UTF-8 text"
            body = (
                b'{"inputs": [{"name": "t0", "datatype": "BYTES", "shape": [1, 1], "data": ["\\ud800"]},'
                b'{"name": "n1", "datatype": "FP32", "shape": [1, 1], "data": [0]},'
                b'{"name": "t2", "datatype": "BYTES", "shape": [1, 1], "data": ["red"]}]}'
            )
            reply = await to.ada.request("POST", INFER, body)
            assert (reply.status, "surrogate" in reply.json["error"]) == (400, True)
            assert not any((await to.review.store.counts()).by_state.values())

    run(main)


def test_a_binary_body_without_the_length_of_its_head_says_which_header_is_missing(tmp_path: Path) -> None:
    folder = begun(tmp_path, nearest(), dict(zip("xy", labelled(1200), strict=True)))

    async def main() -> None:
        async with typed(folder) as to:
            entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
            head = json.dumps({"inputs": [entry]}).encode()
            for tail in (struct.pack("<4f", 1, 2, 3, 4), b"\xff" * 16):
                reply = await to.ada.request("POST", INFER, head + tail)
                assert reply.status == 400
                assert "Inference-Header-Content-Length" in reply.json["error"]

    run(main)
