"""The data plane behind the listener: what a client of port 8080 gets, over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.replica import ListenAddress, Replica
from gateway.serving import stop_switch
from gateway.serving.latch_file import LatchFile
from gateway.serving.repository import Repository
from gateway.serving.stops import Stop
from tests.support.data_planes import INFER, PARAMETERS, PlaneFixture, Rows, request_of, whole_plane
from tests.support.deployments import FULL_RATE, Hangs, key_for, letters, swap
from tests.support.raw_http import (
    QUICK,
    RawConnection,
    RawReply,
    RunningListener,
    chunked,
    get,
    listening,
    post,
)
from tests.support.served import free_port

TOKEN = "token-of-these-tests"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


def infer(plane: PlaneFixture, x: Rows, *headers: str, binary: bool = False, **members: Any) -> bytes:
    body, more = request_of(x, binary, **members)
    lines = [f"{name}: {value}" for name, value in more]
    return post(INFER, body, f"Authorization: Bearer {plane.keys['ada']}", *lines, *headers)


def outcome(got: RawReply) -> tuple[int, str]:
    """The status and the reason, with the six parameters as headers and, but for binary, in the body."""
    outcome_headers = {name: got.headers[f"x-failsafe-{name.replace('_', '-')}"] for name in PARAMETERS}
    length = int(got.headers.get("inference-header-content-length", len(got.body)))
    parameters = json.loads(got.body[:length])["parameters"]
    assert all(parameters[f"fs_{name}"] == value != "" for name, value in outcome_headers.items())
    return got.status, outcome_headers["reason"]


def test_json_and_binary_replies_have_the_same_bits(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with listening(plane.handler) as listener:
            connection = await listener.connect()
            x = plane.good[:3]
            known = (await plane.ada.infer(x)).tensor()
            as_json = await connection.request(infer(plane, x))
            assert outcome(as_json) == (200, "ok")
            assert as_json.headers["content-type"] == "application/json"
            assert np.array(as_json.json["outputs"][0]["data"], np.float32).tobytes() == known.tobytes()
            as_binary = await connection.request(infer(plane, x, binary=True))
            assert outcome(as_binary) == (200, "ok")
            assert as_binary.headers["content-type"] == "application/octet-stream"
            assert as_binary.body.endswith(known.tobytes())
            parts = request_of(x)[0]
            cut = chunked(INFER, parts[:100], parts[100:])
            got = await connection.request(
                cut.replace(b"\r\n\r\n", f"\r\nX-Api-Key: {plane.keys['ada']}\r\n\r\n".encode(), 1)
            )
            assert got.json["outputs"] == as_json.json["outputs"]

    plane.run(main)


def test_many_concurrent_clients_get_their_own_answers(plane: PlaneFixture) -> None:
    async def main() -> None:
        x = plane.good[:40]
        known = np.concatenate([(await plane.ada.infer(x[i : i + 1])).tensor() for i in range(40)])

        async def ask(connection: RawConnection, i: int) -> None:
            for round_ in range(3):
                got = await connection.request(infer(plane, x[i : i + 1], id=f"{i}.{round_}"))
                assert got.json["id"] == f"{i}.{round_}"
                shown = np.array(got.json["outputs"][0]["data"], np.float32)
                assert np.abs(shown - known[i]).max() < 1e-5

        async with listening(plane.handler) as listener:
            connections = [await listener.connect() for _ in range(40)]
            await asyncio.gather(*(ask(connection, i) for i, connection in enumerate(connections)))

    plane.run(main)


def test_a_refusal_is_sent_before_the_body_is_read(plane: PlaneFixture) -> None:
    limit = plane.gateway.loaded.contract.body_limit_bytes
    key = f"X-Api-Key: {plane.keys['ada']}"
    heads: list[tuple[bytes, tuple[int, str]]] = [
        (post(INFER, b"x" * limit, "X-Api-Key: wrong"), (401, "unauthenticated")),
        (post(INFER, b"x" * limit, f"X-Api-Key: {plane.keys['reader']}"), (403, "forbidden")),
        (post("/nowhere", b"x" * limit, key), (404, "not_found")),
        (post(INFER.replace("letters", "other"), b"x" * limit, key), (404, "not_found")),
        (post("/v2", b"x" * limit), (405, "method_not_allowed")),
        (post(INFER, b"x" * limit, key, "Content-Encoding: br"), (415, "unsupported_media")),
        (post(INFER, b"x" * (limit + 1), key), (413, "too_large")),
        (post(INFER, b"x" * limit, key, "Expect: 200-ok"), (417, "expectation_failed")),
    ]

    async def main() -> None:
        async with listening(plane.handler, replace(QUICK, head_s=30, body_s=30, idle_s=30)) as listener:
            for sent, end in heads:
                connection = await listener.connect()
                got = await connection.request(sent[: sent.index(b"\r\n\r\n") + 4])
                assert (outcome(got), got.closes) == (end, True)
                assert await connection.is_closed()
            got = await listener.request(infer(plane, plane.good[:1]))
            assert got.status == 200

    plane.run(main)


def test_every_refusal_of_the_listener_names_policy_and_decision(plane: PlaneFixture) -> None:
    limit = plane.gateway.loaded.contract.body_limit_bytes
    key = f"X-Api-Key: {plane.keys['ada']}".encode()

    async def main() -> None:
        async with listening(plane.handler) as listener:
            for sent, end in (
                (b"noise\r\n\r\n", (400, "invalid")),
                (get("/v2", "X-A: " + "a" * 20_000).encode(), (431, "head_too_large")),
                (b"GET /v2", (408, "too_slow")),
                (infer(plane, plane.good[:1])[:-1], (408, "too_slow")),
                (
                    chunked(INFER, b"x" * limit, b"x").replace(
                        b"Host: localhost", b"Host: localhost\r\n" + key
                    ),
                    (413, "too_large"),
                ),
                (get("/v2", "Transfer-Encoding: gzip, chunked").encode(), (501, "unsupported")),
                (b"GET /v2 HTTP/1.1\r\n\r\n", (400, "invalid")),
            ):
                connection = await listener.connect()
                got = await connection.request(sent)
                assert (outcome(got), got.closes) == (end, True)
                assert got.headers["x-failsafe-policy"] == plane.gateway.loaded.tag
                assert (await listener.request(infer(plane, plane.good[:1]))).status == 200

    plane.run(main)


def test_waiting_for_a_review_ends_when_the_client_disconnects(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with listening(plane.handler) as listener:
            for half in (False, True):
                connection = await listener.connect()
                await connection.send(infer(plane, plane.strange[:1], "Prefer: wait=20"))
                await asyncio.sleep(0.3)
                assert len(listener.server.connections) == 1
                start_s = time.perf_counter()
                connection.writer.write_eof() if half else await connection.close()
                assert await listener.has_no_connections()
                assert time.perf_counter() - start_s < 1.0

    plane.run(main)


def test_a_decision_is_logged_even_if_the_client_disconnects(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with listening(plane.handler) as listener:
            with plane.recorded() as seen, plane.spoiled(Hangs()):
                connection = await listener.connect()
                await connection.send(infer(plane, plane.good[:1]))
                await asyncio.sleep(0.05)
                connection.reset()
                assert await listener.has_no_connections()
            assert len(seen) == 1

    plane.run(main)


def test_a_review_and_a_decision_can_be_read_over_the_same_connection(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with listening(plane.handler) as listener:
            connection = await listener.connect()
            asked = await connection.request(infer(plane, plane.strange[:1]))
            assert outcome(asked) == (422, "abstained")
            key = f"X-Api-Key: {plane.keys['ada']}"
            assert (await connection.request(get(asked.json["review_url"], key))).json["state"] == "waiting"
            id_ = asked.headers["x-failsafe-decision-id"]
            assert (await connection.request(get(f"/decisions/{id_}", key))).json["rows"][0][
                "outcome"
            ] == "deferred"
            assert (await connection.request(get(f"/decisions/{id_}", "X-Api-Key: x"))).status == 401

    plane.run(main)


# ---------------------------------------------------------------- a whole replica


@asynccontextmanager
async def replica_of(
    folder: Path, before_start: Callable[[], object] = lambda: None
) -> AsyncIterator[tuple[Replica, RunningListener]]:
    address = ListenAddress(port=free_port(), grpc_port=free_port(), admin_port=free_port())
    replica = Replica(Repository.open([folder]), address, TOKEN)
    before_start()
    await replica.start()
    listener = RunningListener(replica._data, ("127.0.0.1", address.port))
    try:
        yield replica, listener
    finally:
        for connection in listener.connections:
            await connection.close()
        await replica.stop()


def test_a_replica_that_was_stopped_while_it_started_answers_nothing(
    tmp_path: Path, plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_switch, "LOOK_EVERY_S", 3600.0)
    folder = letters(tmp_path, FULL_RATE)
    body, _ = request_of(plane.good[:1])
    sent = post(INFER, body, f"X-Api-Key: {key_for(folder, 'ada')}")
    stop = partial(LatchFile.of(folder, None).stop, Stop(by="ada", at=datetime.now(UTC)))

    async def main() -> None:
        async with replica_of(folder, stop) as (_, listener):
            connection = await listener.connect()
            got = await connection.request(sent)
            assert (got.status, got.headers["x-failsafe-reason"]) == (503, "stopped")

    asyncio.run(main())


def test_a_stopping_replica_finishes_requests_under_way_and_logs_them(
    tmp_path: Path, plane: PlaneFixture
) -> None:
    folder = letters(tmp_path, FULL_RATE)
    body, _ = request_of(plane.good[:1])
    sent = post(INFER, body, f"X-Api-Key: {key_for(folder, 'ada')}")

    async def main() -> None:
        async with replica_of(folder) as (replica, listener):
            swap(replica.repository.gateways["letters"], Hangs())
            busy, idle = await listener.connect(), await listener.connect()
            assert (await idle.request(get("/v2/health/ready"))).status == 200
            await busy.send(sent)
            await asyncio.sleep(0.1)
            stopping = asyncio.create_task(replica.stop())
            assert await idle.is_closed()
            got = await busy.reply()
            assert got.closes
            assert got.headers["x-failsafe-outcome"] in ("degraded", "deferred")
            await stopping
            written = [p.read_text() for p in (folder / "var").glob("decisions-*.jsonl")]
            assert got.headers["x-failsafe-decision-id"] in "".join(written)

    asyncio.run(main())


def test_a_caller_that_a_trusted_proxy_calls_loopback_is_not_anonymous(
    tmp_path: Path, plane: PlaneFixture
) -> None:
    folder = letters(
        tmp_path, FULL_RATE, ("anonymous: loopback", "anonymous: loopback, trusted_proxies: [127.0.0.1]")
    )

    async def main() -> None:
        body, _ = request_of(plane.good[:1])
        async with replica_of(folder) as (_, listener):
            for forwarded in ("192.0.2.7", "127.0.0.1", "127.0.0.1, 192.0.2.7", "::1", "127.0.0.1:9", ""):
                got = await listener.request(post(INFER, body, f"X-Forwarded-For: {forwarded}"))
                assert got.status == 401, forwarded
            assert (await listener.request(post(INFER, body))).status == 200

    asyncio.run(main())


def test_the_limit_of_connections_is_per_key_and_others_are_served(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        async with listening(plane.handler, replace(QUICK, idle_s=30, connections_per_caller=2)) as listener:
            sent = infer(plane, plane.good[:1])
            kept = [await listener.connect() for _ in range(2)]
            for _ in range(2):
                assert [(await connection.request(sent)).status for connection in kept] == [200, 200]
            more = await listener.connect()
            got = await more.request(get("/v2/health/ready"))
            assert (got.status, got.closes) == (200, False), "a request without a key counts for no caller"
            got = await more.request(sent)
            assert (*outcome(got), got.closes) == (429, "rate_limited", True)
            assert await more.is_closed()
            anonymous = sent.replace(b"Authorization: Bearer", b"X-Nothing: Bearer")
            assert [(await (await listener.connect()).request(anonymous)).status for _ in range(3)] == [
                200,
                200,
                429,
            ]

    plane.run(main)
