"""Which requests the data plane accepts, and how it rejects all others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.core.deadline import now_s
from gateway.listener.messages import Admitted, Reply, Request, parts_of
from tests.support.data_planes import (
    INFER,
    LOCAL,
    REMOTE,
    SHORT_BUDGET,
    X16,
    PlaneFixture,
    checked,
    plane_of,
    request_of,
    stamped,
    whole_plane,
)
from tests.support.deployments import (
    FULL_RATE,
    Hangs,
    edit,
    key_for,
    letters,
    swap,
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


# ---------------------------------------------------------------- what a caller can mend


def document(**changes: Any) -> dict[str, Any]:
    """A valid request in JSON, with members of its only input replaced; None takes a member away."""
    entry = {"name": "attributes", "datatype": "FP32", "shape": [1, 16], "data": X16} | changes
    return {"inputs": [{k: v for k, v in entry.items() if v is not None}]}


INVALID: dict[str, tuple[Any, str, str]] = {
    "not JSON": (b"{", "body", "not JSON"),
    "nothing": (b"", "body", "must not be empty"),
    "a list": ([], "body", "must be a JSON object"),
    "no inputs": ({}, "inputs", "'attributes' is missing"),
    "inputs of another kind": ({"inputs": 7}, "inputs", "must be a list"),
    "an unknown input": (document(name="attribute"), "inputs[0].name", "did you mean 'attributes'?"),
    "another datatype": (document(datatype="FP64"), "inputs[0].datatype", "must be FP32"),
    "a shape of another width": (document(shape=[1, 15]), "inputs[0].shape", "does not match [-1, 16]"),
    "no rows": (document(shape=[0, 16], data=[]), "inputs[0].shape", "0 rows"),
    "too many rows": (document(shape=[129, 16]), "inputs[0].shape", "129 rows; from 1 to 128"),
    "no data": (document(data=None), "inputs[0].data", "is missing"),
    "too little data": (document(data=X16[:15]), "inputs[0].data", "must be a list of 16 values"),
    "text for a number": (
        document(data=["a", *X16[1:]]),
        "inputs[0].data",
        "row 0: a string is not a number",
    ),
    "a value above the range": (document(data=[16, *X16[1:]]), "inputs[0].data", "row 0: 16.0 is above 15"),
    "a value below the range": (document(data=[-1, *X16[1:]]), "inputs[0].data", "row 0: -1.0 is below 0"),
    "NaN in JSON": (b'{"inputs": [{"data": [NaN]}]}', "body", "not JSON"),
    "an unknown output": (document() | {"outputs": [{"name": "x"}]}, "outputs[0].name", "has no 'x'"),
    "an id that is a number": (document() | {"id": 7}, "id", "must be a string"),
    "a negative timeout": (document() | {"parameters": {"timeout": -1}}, "parameters.timeout", "negative"),
    "nested too deep": (
        document() | {"more": json.loads("[" * 17 + "]" * 17)},
        "body",
        "nested deeper than 16",
    ),
}


@pytest.mark.parametrize(("body", "field", "rule"), INVALID.values(), ids=INVALID)
def test_a_400_names_the_field_and_the_rule(plane: PlaneFixture, body: Any, field: str, rule: str) -> None:
    async def main() -> None:
        reply = await plane.ada.post(body if isinstance(body, bytes) else json.dumps(body).encode())
        assert reply.outcome == (400, "refused", "invalid")
        assert f"{field}: " in reply.json["error"]
        assert rule in reply.json["error"]

    plane.run(main)


def test_a_binary_nan_is_a_400_that_names_its_row(plane: PlaneFixture) -> None:
    async def main() -> None:
        x = np.repeat(plane.good[:1], 3, axis=0)
        x[2, 5] = np.nan
        reply = await plane.ada.infer(x, binary=True)
        assert reply.outcome == (400, "refused", "invalid")
        assert "inputs[0].data: row 2: not a finite FP32" in reply.json["error"]

    plane.run(main)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "nan", "1,5", "\u00b2", "0x10"])
def test_an_invalid_timeout_header_is_a_400(plane: PlaneFixture, value: str) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], {"x-request-timeout-seconds": value})
        assert reply.outcome == (400, "refused", "invalid")
        assert "x-request-timeout-seconds: must be a positive number of seconds" in reply.json["error"]

    plane.run(main)


@pytest.mark.parametrize("value", ["-1", "x", "", "1e3", "\u00b2", "9" * 40, "999999"])
def test_an_invalid_header_length_is_a_400(plane: PlaneFixture, value: str) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], {"inference-header-content-length": value})
        assert reply.outcome == (400, "refused", "invalid")
        assert "Inference-Header-Content-Length: " in reply.json["error"]

    plane.run(main)


def test_an_invalid_request_costs_one_row_and_leaves_no_record(plane: PlaneFixture) -> None:
    async def main() -> None:
        slow = plane.client(key_for(plane.gateway.folder, "careful", "trusted", 0.001))
        await asyncio.sleep(1.0)
        with plane.recorded() as seen:
            assert (await slow.post(b"{}")).status == 400
        assert seen == []
        with plane.recorded() as seen:
            refused = await slow.infer(plane.good[:1])
        assert refused.outcome == (429, "refused", "rate_limited")
        assert [len(one.decisions) for one in seen] == [1]

    plane.run(main)


# ---------------------------------------------------------------- routes and keys


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/fashion/infer",
        "/v2/models/fashion",
        "/v2/models/fashion/ready",
        "/v2/models/letters/versions/2",
    ],
)
def test_an_unknown_model_is_a_404_in_the_words_that_clients_look_for(plane: PlaneFixture, path: str) -> None:
    async def main() -> None:
        reply = await plane.ada.request("POST" if path.endswith("infer") else "GET", path)
        assert reply.outcome == (404, "refused", "not_found")
        assert reply.json["error"].startswith("Request for unknown model: '")
        assert reply.json["error"].endswith("' is not found")

    plane.run(main)


def test_a_long_name_of_an_unknown_model_is_cut_in_the_error(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await plane.ada.get(f"/v2/models/{'nope' * 999}")
        assert reply.status == 404
        assert reply.json["error"].startswith("Request for unknown model: 'nope")
        assert len(reply.body) < 1000

    plane.run(main)


@pytest.mark.parametrize("name", ["\r\nx-evil: 1", "é☃", "x" * 5000, "%00", "'\"<script>"])
def test_an_odd_model_name_is_a_404(plane: PlaneFixture, name: str) -> None:
    async def main() -> None:
        reply = await plane.ada.get(f"/v2/models/{name}")
        assert reply.status == 404
        assert len(reply.body) < 2000

    plane.run(main)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models/letters",
        "/v2/nothing",
        "/v2/models/letters/nothing",
        "/metrics",
        "/policy",
        "/review",
    ],
)
def test_a_path_without_a_route_is_a_404(plane: PlaneFixture, path: str) -> None:
    async def main() -> None:
        assert (await plane.ada.get(path)).outcome == (404, "refused", "not_found")

    plane.run(main)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST, OPTIONS"),
        ("HEAD", INFER, "POST, OPTIONS"),
        ("PUT", INFER, "POST, OPTIONS"),
        ("POST", "/v2/models/letters", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v2", "GET, HEAD, OPTIONS"),
        ("POST", "/v2/health/ready", "GET, HEAD, OPTIONS"),
        ("POST", "/decisions/x", "GET, HEAD, OPTIONS"),
        ("DELETE", "/reviews/x", "GET, HEAD, OPTIONS"),
    ],
)
def test_another_method_is_a_405_with_allow(plane: PlaneFixture, method: str, path: str, allow: str) -> None:
    async def main() -> None:
        reply = await plane.ada.request(method, path)
        assert reply.outcome == (405, "refused", "method_not_allowed")
        assert reply.headers["allow"] == allow

    plane.run(main)


def test_only_health_and_server_metadata_need_no_key(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        without_key = plane.client(None, REMOTE)
        for path in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready"):
            assert (await without_key.get(path)).status == 200
        ready = (await without_key.get("/v2/health/ready")).json
        assert (ready["live"], ready["ready"]) == (True, True)
        for path in (
            "/v2/models/letters",
            "/v2/models/other",
            "/v2/models/letters/config",
            "/decisions/x",
            "/reviews/x",
        ):
            assert (await without_key.get(path)).outcome == (401, "refused", "unauthenticated")

    plane.run(main)


def test_the_model_is_described_as_clients_expect(plane: PlaneFixture) -> None:
    async def main() -> None:
        for path in ("/v2/models/letters", "/v2/models/letters/versions/1"):
            about = (await plane.ada.get(path)).json
            assert about["name"] == "letters"
            assert about["inputs"] == [{"name": "attributes", "datatype": "FP32", "shape": [-1, 16]}]
        assert (await plane.ada.get("/v2/models/letters/ready")).json["ready"] is True
        assert (await plane.ada.get("/v2/models/letters/config")).json["max_batch_size"] == 128
        body, _ = request_of(plane.good[:1])
        assert (await plane.ada.request("POST", "/v2/models/letters/versions/1/infer", body)).status == 200

    plane.run(main)


@pytest.mark.parametrize(
    ("headers", "address", "status"),
    [
        ({}, LOCAL, 200),
        ({}, "::1", 401),  # as a trusted proxy says
        ({}, "127.0.0.2", 401),
        ({}, REMOTE, 401),
        ({"authorization": "Bearer {ada}"}, REMOTE, 200),
        ({"authorization": "bearer  {ada} "}, REMOTE, 200),
        ({"x-api-key": "{ada}"}, REMOTE, 200),
        ({"authorization": "Bearer wrong"}, LOCAL, 401),
        ({"x-api-key": "wrong"}, LOCAL, 401),
        ({"authorization": "Bearer é"}, REMOTE, 401),
        ({"authorization": "Basic {ada}"}, REMOTE, 401),
        ({"authorization": "Basic {ada}"}, LOCAL, 401),
        ({"authorization": "Bearer wrong", "x-api-key": "{ada}"}, REMOTE, 401),
        ({"authorization": "Bearer {reader}"}, LOCAL, 403),
        ({"x-forwarded-for": "127.0.0.1"}, REMOTE, 401),
    ],
)
def test_keys_and_addresses_decide_whether_a_caller_is_identified(
    plane: PlaneFixture, headers: dict[str, str], address: str, status: int
) -> None:
    async def main() -> None:
        sent = {name: value.format(**plane.keys) for name, value in headers.items()}
        reply = await plane.client(None, address).infer(plane.good[:1], sent)
        assert reply.status == status
        if status == 401:
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.parameters["fs_reason"] == "unauthenticated"
        assert plane.keys["ada"].encode() not in reply.body

    plane.run(main)


def test_with_anonymous_nobody_even_loopback_needs_a_key(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ("anonymous: loopback", "anonymous: nobody"))
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            assert (await plane.anonymous.infer(plane.good[:1])).status == 401
            assert (await plane.ada.infer(plane.good[:1])).status == 200

        plane.run(main)


def test_a_new_key_is_honoured_within_a_second(plane: PlaneFixture) -> None:
    async def main() -> None:
        await plane.ada.infer(plane.good[:1])
        late = plane.client(key_for(plane.gateway.folder, "late"), REMOTE)
        start_s = time.perf_counter()
        while (await late.infer(plane.good[:1])).status != 200:
            await asyncio.sleep(0.02)
            assert time.perf_counter() - start_s < 1.0

    plane.run(main)


def test_replies_name_the_policy_in_force_and_its_mode(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            old = plane.gateway.loaded.tag
            edit(folder, ('version: "1"', 'version: "2"\nmode: observe'))
            assert await plane.gateway.reload()
            reply = stamped(await plane.ada.infer(plane.strange[:1]))
            assert reply.outcome == (200, "served", "ok")
            assert reply.parameters["fs_policy"] == plane.gateway.loaded.tag != old
            assert reply.parameters["fs_mode"] == "observe"
            assert (await plane.ada.get("/nowhere")).parameters["fs_mode"] == "observe"

        plane.run(main)


def test_a_decision_that_a_reload_overtook_keeps_the_mode_that_it_was_made_in(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, SHORT_BUDGET)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:
        old = plane.gateway.loaded.tag
        swap(plane.gateway, Hangs())

        async def main() -> None:
            flying = asyncio.create_task(plane.ada.infer(plane.good[:1]))
            await asyncio.sleep(0.05)
            edit(folder, ('version: "1"', 'version: "2"\nmode: observe'))
            assert await plane.gateway.reload()
            parameters = (await flying).parameters
            assert (parameters["fs_policy"], parameters["fs_mode"]) == (old, "enforce")

        plane.run(main)


# ---------------------------------------------------------------- bodies


def test_a_body_in_pieces_is_one_body(plane: PlaneFixture) -> None:
    async def main() -> None:
        body, _ = request_of(plane.good[:1])
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        assert (await plane.ada.post([b"", *pieces, b""])).status == 200

    plane.run(main)


def test_a_body_over_the_limit_is_a_413_whether_its_length_is_announced_or_not(
    plane: PlaneFixture,
) -> None:
    limit = plane.gateway.loaded.contract.body_limit_bytes

    async def main() -> None:
        announced = await plane.ada.post(b"{}", {"content-length": str(limit + 1)})
        assert announced.outcome == (413, "refused", "too_large")
        assert str(limit) in announced.json["error"]
        exact = await plane.ada.post(b" " * limit)
        assert exact.status == 400
        async with plane.ada.connection() as wire:
            await wire.send(plane.ada.encode("POST", INFER, headers={"transfer-encoding": "chunked"}))
            reading = asyncio.create_task(wire.reply())
            sent = 0
            while not reading.done():
                await wire.send(b"%x\r\n%b\r\n" % (10_000, b" " * 10_000))
                sent += 1
                await asyncio.wait((reading,), timeout=0.02)
            assert checked(await reading).outcome == (413, "refused", "too_large")
            assert sent <= limit / 10_000 + 2, "it read on"

    plane.run(main)


@pytest.mark.parametrize("value", ["\u00b2", "x", "-5", "9" * 5000, ""])
def test_an_invalid_content_length_is_never_a_5xx(plane: PlaneFixture, value: str) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], {"content-length": value})
        assert reply.status in (200, 400, 413)

    plane.run(main)


def test_the_largest_batch_fits_the_limit_in_json(plane: PlaneFixture) -> None:
    async def main() -> None:
        x = np.repeat(plane.good[:1], 128, axis=0) + np.float32(1 / 3)
        reply = await plane.ada.infer(np.minimum(x, np.float32(15)), outputs=[{"name": "fs_row_outcome"}])
        assert reply.status == 200

    plane.run(main)


def test_an_encoding_that_is_not_known_is_refused(plane: PlaneFixture) -> None:
    async def main() -> None:
        for coding in ("br", "gzip, gzip", "zstd", "", "middle-out"):
            reply = await plane.ada.post(b"\x1f\x8b", {"content-encoding": coding})
            assert reply.outcome == (415, "refused", "unsupported_media")
            assert reply.headers["accept-encoding"] == "identity, gzip, deflate"

    plane.run(main)


def test_a_client_that_hangs_up_in_the_middle_of_a_body_affects_no_other_request(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        with plane.recorded() as seen:
            async with plane.ada.connection() as wire:
                await wire.send(plane.ada.encode("POST", INFER, b'{"inputs"', {"content-length": "100"}))
                assert await wire.silent(0.05)
            await asyncio.sleep(0.05)
        assert seen == []
        assert (await plane.ada.infer(plane.good[:1])).status == 200

    plane.run(main)


def test_a_cancelled_request_ends_as_cancelled_and_affects_no_other_request(plane: PlaneFixture) -> None:
    """The listener cancels what is under way when it stops: a handler that went on would hold it up."""
    body, _ = request_of(plane.good[:1])

    async def main() -> None:
        with plane.spoiled(Hangs()):
            headers = {b"x-api-key": plane.keys["ada"].encode()}
            admitted = plane.handler.admit(
                Request(now_s(), "POST", INFER.encode(), parts_of(INFER), headers, LOCAL, never_gone)
            )
            assert isinstance(admitted, Admitted)
            work = admitted.answer(body)
            assert isinstance(work, Coroutine)
            answering = asyncio.create_task(work)
            await asyncio.sleep(0.05)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            assert answering.cancelled()
        assert (await plane.ada.infer(plane.good[:1])).status == 200

    plane.run(main)


def test_a_client_without_an_address_is_not_on_this_machine(plane: PlaneFixture) -> None:
    request = Request(0.0, "POST", INFER.encode(), parts_of(INFER), {}, "", never_gone)
    reply = plane.handler.admit(request)
    assert isinstance(reply, Reply)
    assert reply.status == 401


async def never_gone() -> None:
    await asyncio.Event().wait()
