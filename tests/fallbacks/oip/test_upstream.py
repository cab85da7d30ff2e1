"""A model in another server as a predictor: called only once it is verified, within the time that is left."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from fallbacks.breaker import Breaker, BreakerState
from fallbacks.known_rows import KnownRows
from fallbacks.oip.client import connect
from fallbacks.oip.errors import UnexpectedAnswer, UpstreamFailed, UpstreamUnreachable
from fallbacks.oip.run_in_thread import run_in_thread
from fallbacks.oip.stored_upstream import CHANGED, PROBES, StoredUpstream
from fallbacks.oip.upstream import UpstreamModel
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import LoadedModel, ModelRaised, ModelTensor, NotAModelFault
from tests.support import onnx_bytes as onnx
from tests.support.oip_server import METADATA, SPEC, OipServer, ReceivedRequest, oip_server, send

X = np.array([[1, 2], [3, 4], [5, 0.1]], np.float32)
F4 = np.dtype(np.float32)


class Doubles:
    """A server whose model multiplies by `factor`, at most `most_rows` at a time; it may be away or hang."""

    def __init__(self, factor: float = 2.0, most_rows: int = 1000) -> None:
        self.factor = factor
        self.most_rows = most_rows
        self.hangs = self.stuck = False

    async def __call__(self, asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        one = asked.document["inputs"][0]
        if one["shape"][0] > self.most_rows:
            return await send(writer, {"error": "too many rows"}, "400 Bad Request")
        data = [0.5 if self.stuck else self.factor * v for v in one["data"]]
        return await send(writer, {"outputs": [{**SPEC[0], "shape": one["shape"], "data": data}]})


@asynccontextmanager
async def upstream(
    model: Doubles,
    *,
    names: Mapping[str, str] | None = None,
    encoder: OnnxModel | None = None,
    max_rows: int = 128,
    call_deadline: Callable[[], tuple[float, bool]] = lambda: (math.inf, False),
) -> AsyncIterator[tuple[OipServer, UpstreamModel]]:
    """A server, and an upstream over it that was calibrated on it."""
    async with oip_server(model) as server:
        client = connect(server.remote)
        stored = await StoredUpstream.record(client, {}, max_rows, 5)
        await client.close()
        await asyncio.wait_for(server.left.wait(), 5)
        server.left.clear()
        server.asked.clear()
        one = UpstreamModel(
            server.remote,
            stored,
            names=names or {},
            encoder=encoder,
            max_rows=max_rows,
            call_deadline=call_deadline,
        )
        try:
            yield server, one
        finally:
            one.close()
            await one.closed()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def sizes(server: OipServer) -> list[int]:
    """How many rows each question had."""
    return [one.document["inputs"][0]["shape"][0] for one in server.infer_requests]


def test_it_is_a_loaded_model() -> None:
    async def main() -> None:
        async with upstream(Doubles(), names={"attributes": "x", "probabilities": "y"}) as (_, one):
            model: LoadedModel = one
            assert model.inputs == (ModelTensor("attributes", F4, (None, 2)),)
            assert model.outputs == (ModelTensor("probabilities", F4, (None, 2)),)
            assert (await model.predict({"attributes": X}))["probabilities"].tobytes() == (2 * X).tobytes()
            assert model.classes is None

    run(main)


def test_the_probes_are_sent_once_and_before_any_other_request() -> None:
    async def main() -> None:
        async with upstream(Doubles()) as (server, one):
            for _ in range(3):
                await one.predict({"x": X})
            assert sizes(server) == [PROBES, 3, 3, 3]

    run(main)


def test_another_model_never_answers() -> None:
    async def main() -> None:
        model = Doubles()
        async with upstream(model) as (server, one):
            model.factor = 2.01
            for _ in range(2):
                with pytest.raises(UnexpectedAnswer, match=CHANGED):
                    await one.predict({"x": X})
            assert sizes(server) == [PROBES, PROBES]
            model.factor = 2.0
            assert (await one.predict({"x": X}))["y"][0, 0] == 2

    run(main)


def test_a_model_that_declares_something_else_never_answers() -> None:
    async def main() -> None:
        async with upstream(Doubles()) as (server, one):
            server.metadata = {**METADATA, "outputs": [{**SPEC[0], "shape": [-1, 3]}]}
            with pytest.raises(UnexpectedAnswer, match=f"{CHANGED}; it declares other outputs: y"):
                await one.predict({"x": X})
            assert not server.infer_requests

    run(main)


def test_a_server_that_comes_back_is_verified_again() -> None:
    async def main() -> None:
        model = Doubles()
        async with upstream(model) as (server, one):
            await one.predict({"x": X})
            port = int(server.url.rpartition(":")[2])
            server.listening.close()
            server.drop_connections()
            with pytest.raises(UpstreamUnreachable):
                await one.predict({"x": X})
            other = OipServer(Doubles(factor=3.0))
            again = await asyncio.start_server(other.serve, "127.0.0.1", port)
            with pytest.raises(UnexpectedAnswer, match=CHANGED):
                await one.predict({"x": X})
            other.infer = model
            assert (await one.predict({"x": X}))["y"][0, 0] == 2
            again.close()

    run(main)


def test_a_model_exchanged_between_calls_is_noticed_concurrently_with_a_later_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fallbacks.oip.upstream.VERIFY_EVERY_S", 0.2)

    async def main() -> None:
        model = Doubles()
        async with upstream(model) as (server, one):
            await one.predict({"x": X})
            await asyncio.sleep(0.3)
            await one.predict({"x": X})
            await asyncio.sleep(0.1)
            assert sorted(sizes(server)) == sorted([PROBES, 3, 3, PROBES])
            model.factor = 3.0
            await asyncio.sleep(0.3)
            assert (await one.predict({"x": X}))["y"][0, 0] == 3, "the price of not waiting for the probes"
            await asyncio.sleep(0.1)
            with pytest.raises(UnexpectedAnswer, match=CHANGED):
                await one.predict({"x": X})

    run(main)


def test_a_model_that_answers_different_rows_alike_is_verified_before_the_answer_is_used() -> None:
    async def main() -> None:
        model, rows = Doubles(), np.arange(40, dtype=np.float32).reshape(20, 2)
        async with upstream(model) as (server, one):
            await one.predict({"x": rows})
            model.stuck = True
            for _ in range(2):
                with pytest.raises(UnexpectedAnswer, match=CHANGED):
                    await one.predict({"x": rows})
            assert sizes(server) == [PROBES, 20, 20, PROBES, PROBES], "the second asks for the probes first"
            model.stuck = False
            assert (await one.predict({"x": rows}))["y"].tobytes() == (2 * rows).tobytes()

    run(main)


def test_a_model_that_honestly_answers_rows_alike_is_verified_and_used() -> None:
    async def main() -> None:
        rows = np.arange(40, dtype=np.float32).reshape(20, 2)
        async with upstream(Doubles(factor=0.0)) as (server, one):
            for _ in range(3):
                assert not (await one.predict({"x": rows}))["y"].any()
            assert sizes(server)[:3] == [PROBES, 20, PROBES]
            assert sizes(server).count(PROBES) == 2, "the next alarm has to wait"

    run(main)


def test_no_more_rows_at_once_than_the_server_takes() -> None:
    async def main() -> None:
        async with upstream(Doubles(most_rows=2), max_rows=2) as (server, one):
            assert (await one.predict({"x": X}))["y"].tobytes() == (2 * X).tobytes()
            assert sizes(server) == [2, 2, 2, 1]

    run(main)


def test_the_time_that_is_left_is_sent_and_ends_the_call() -> None:
    model = Doubles()

    async def main() -> None:
        def call_deadline() -> tuple[float, bool]:
            return asyncio.get_running_loop().time() + 0.3, False

        async with upstream(model, call_deadline=call_deadline) as (server, one):
            await one.predict({"x": X})
            assert all(
                0 < asked.document["parameters"]["timeout"] <= 300_000 for asked in server.infer_requests
            )
            model.hangs = True
            with pytest.raises(TimeoutError):
                await one.predict({"x": X})
            await asyncio.wait_for(server.left.wait(), 5)

    run(main)


def in_a_tenth(set_by_caller: bool) -> Callable[[], tuple[float, bool]]:
    return lambda: (asyncio.get_running_loop().time() + 0.1, set_by_caller)


@pytest.mark.parametrize("set_by_caller", [True, False])
def test_a_deadline_set_by_the_caller_is_no_model_fault(set_by_caller: bool) -> None:
    model = Doubles()

    async def main() -> None:
        async with upstream(model, call_deadline=in_a_tenth(set_by_caller)) as (_, one):
            await one.predict({"x": X})
            model.hangs = True
            with pytest.raises(TimeoutError) as late:
                await one.predict({"x": X})
            assert isinstance(late.value, NotAModelFault) is set_by_caller

    run(main)


def test_no_request_is_sent_when_no_time_is_left() -> None:
    async def main() -> None:
        async with upstream(Doubles(), call_deadline=lambda: (0.0, False)) as (server, one):
            with pytest.raises(TimeoutError):
                await one.predict({"x": X})
            assert not server.asked

    run(main)


@pytest.mark.parametrize("how", ["cancelled", "abandoned"])
def test_a_cancelled_call_ends_at_the_server(how: str) -> None:
    model = Doubles()

    async def main() -> None:
        async with upstream(model) as (server, one):
            await one.predict({"x": X})
            model.hangs = True
            call = one.predict({"x": X})
            if how == "cancelled":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call, 0.1)
            else:
                call.send(None)  # begun, as the gateway begins a pass before it waits for it
                await asyncio.sleep(0.1)
                call.close()
            await asyncio.wait_for(server.left.wait(), 5)

    run(main)


def test_a_failure_interrupts_only_the_task_that_awaits_it() -> None:
    """The gateway begins a pass and then does other things in the same task."""
    model = Doubles()

    async def main() -> None:
        async with upstream(model, call_deadline=in_a_tenth(False)) as (_, one):
            await one.predict({"x": X})
            model.hangs = True
            call = one.predict({"x": X})
            waits_for = call.send(None)
            await asyncio.sleep(0.3)
            assert waits_for.done()
            with pytest.raises(TimeoutError):
                call.send(None)

    run(main)


def features(*outputs: str, takes: str = "x") -> bytes:
    return onnx.model(
        [onnx.node("Neg", [takes], [name]) for name in outputs],
        inputs=[onnx.value(takes, np.float32, ("n", 2))],
        outputs=[onnx.value(name, np.float32, ("n", 2)) for name in outputs],
    )


@pytest.fixture
def encoder(tmp_path: Path) -> OnnxModel:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(features("features"))
    return OnnxModel.load(path)


def test_an_encoder_adds_its_outputs(encoder: OnnxModel) -> None:
    async def main() -> None:
        async with upstream(Doubles(), encoder=encoder) as (_, one):
            assert [spec.name for spec in one.outputs] == ["y", "features"]
            answer = await one.predict({"x": X})
            assert answer["y"].tobytes() == (2 * X).tobytes()
            assert answer["features"].tobytes() == (-X).tobytes()

    run(main)


def test_the_error_of_the_upstream_is_raised_unchanged_with_an_encoder(encoder: OnnxModel) -> None:
    async def main() -> None:
        model = Doubles()
        async with upstream(model, encoder=encoder) as (_, one):
            model.factor = 3.0
            with pytest.raises(UnexpectedAnswer, match=CHANGED):
                await one.predict({"x": X})

    run(main)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (features("features", "y"), "has an output 'y' too"),
        (features("features", takes="z"), "its input 'z'"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(content)
    unfit = OnnxModel.load(path)

    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            async with upstream(Doubles(), encoder=unfit):
                pass

    run(main)
    unfit.close()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"probabilities": "z"}, "'z' is neither an input nor an output"),
        ({"a": "y", "b": "y"}, "two names to one tensor"),
        ({"x": "y"}, "one name to two tensors"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: dict[str, str], message: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            async with upstream(Doubles(), names=names):
                pass

    run(main)


def test_inputs_must_be_the_declared_ones() -> None:
    async def main() -> None:
        async with upstream(Doubles()) as (server, one):
            with pytest.raises(ValueError, match="is float64"):
                await one.predict({"x": X.astype(np.float64)})
            with pytest.raises(ValueError, match="is missing"):
                await one.predict({})
            assert not server.infer_requests

    run(main)


def test_a_whole_data_set_is_answered_while_a_loop_runs_in_this_thread() -> None:
    """In a thread of its own: here the server's loop would otherwise wait for itself."""
    ready, stop = threading.Event(), threading.Event()
    held: list[Any] = []

    async def serve() -> None:
        async with upstream(Doubles(), max_rows=7) as (server, one):
            held.extend((server, one))
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    server, one = held
    many = np.random.default_rng(1).random((50, 2), np.float32)

    async def main() -> None:
        assert one.run({"x": many})["y"].tobytes() == (2 * many).tobytes()
        assert max(sizes(server)) == 7

    try:
        run(main)
    finally:
        stop.set()
        thread.join()


def test_the_digest_survives_storage_and_differs_between_models() -> None:
    async def stored_of(factor: float) -> StoredUpstream:
        async with oip_server(Doubles(factor)) as server:
            client = connect(server.remote)
            try:
                return await StoredUpstream.record(client, {"x": (-3.0, 5.0)}, 128, 5)
            finally:
                await client.close()

    one, again, other = (run_in_thread(lambda factor=factor: stored_of(factor)) for factor in (2, 2, 3))  # type: ignore[misc]
    assert one.digest == again.digest != other.digest
    back = StoredUpstream.from_json(orjson.loads(orjson.dumps(one.to_json())))
    assert back.digest == one.digest and back.description == one.description
    x = one.probes["x"]
    assert x.shape == (PROBES, 2) and (x >= -3).all() and (x <= 5).all() and x.std() > 1


RECORDED = {
    "inputs": [["x", "FP32", [-1, 2]], ["flag", "BOOL", [-1]]],
    "outputs": [["p", "FP32", [-1, 3]]],
    "probes": (
        "RlNUMQIAAQB4PGY0AgQAAAAAAAAAAgAAAAAAAAAEAGZsYWd8YjEBBAAAAAAAAAAAAAAAAAAAPgAAgD4AAMA+"
        "AAAAPwAAID8AAEA/AABgPwEAAQE="
    ),
    "answers": (
        "RlNUMQEAAQBwPGY0AgQAAAAAAAAAAwAAAAAAAAAAAAAAAACAPQAAAD4AAEA+AACAPgAAoD4AAMA+AADgPgAA"
        "AD8AABA/AAAgPwAAMD8="
    ),
}


def test_upstream_stored_by_an_older_release_is_read_and_keeps_its_digest() -> None:
    """A certificate holds the digest, so it must not change with the encoding of payloads."""
    stored = StoredUpstream.from_json(RECORDED)
    assert stored.digest == "8d23a9f174161ddb4b4daf47c4e82aa93027f7d9e2488c572bea0ea98a2c7a3d"
    assert stored.to_json() == RECORDED
    assert (stored.probes["x"] == np.arange(8, dtype=F4).reshape(4, 2) / 8).all()
    assert stored.probes["flag"].tolist() == [True, False, True, True]
    assert (stored.answers["p"] == np.arange(12, dtype=F4).reshape(4, 3) / 16).all()


@pytest.mark.parametrize("field", ["inputs", "outputs", "probes", "answers"])
@pytest.mark.parametrize("value", [None, 1, "", "AAAA", [], [["y"]], [["y", "FP32", [-1, 9]]]])
def test_a_broken_description_is_refused(field: str, value: object) -> None:
    async def main() -> None:
        async with oip_server(Doubles()) as server:
            client = connect(server.remote)
            held = (await StoredUpstream.record(client, {}, 128, 5)).to_json()
            await client.close()
        with pytest.raises(ValueError, match="is no description of an upstream"):
            StoredUpstream.from_json(held | {field: value})

    run(main)


class Refuses(Doubles):
    """A server that answers rows of small numbers, and others with a status and a text that quotes them."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self.status = status

    async def __call__(self, asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        data = asked.document["inputs"][0]["data"]
        if max(data) > 9000:
            return await send(writer, {"error": f"index {max(data):.0f} is out of range"}, self.status)
        return await super().__call__(asked, writer)


BEYOND = {"x": np.array([[1, 73190]], np.float32)}


@pytest.mark.parametrize(
    ("status", "in_doubt"),
    [
        ("400 Bad Request", True),
        ("422 Unprocessable Entity", True),
        ("500 Internal Server Error", True),
        ("401 Unauthorized", False),
        ("404 Not Found", False),
        ("429 Too Many Requests", False),
        ("503 Service Unavailable", False),
    ],
)
def test_a_row_that_the_server_refuses_is_in_doubt_and_its_text_is_not_repeated(
    status: str, in_doubt: bool
) -> None:
    async def main() -> None:
        async with upstream(Refuses(status)) as (_, one):
            with pytest.raises(ModelRaised if in_doubt else UpstreamFailed) as failed:
                await one.predict(BEYOND)
            assert isinstance(failed.value, NotAModelFault) is in_doubt
            assert status[:3] in str(failed.value)
            assert "73190" not in str(failed.value)

    run(main)


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
def test_a_server_that_refuses_everything_has_failed_and_one_that_refuses_a_row_has_not(status: str) -> None:
    async def main() -> None:
        server = Refuses(status)
        async with upstream(server) as (_, one):
            known = KnownRows({"x": X[:1]}, 5.0)
            breaker = Breaker(one, failures=3, known_rows=known, callers=lambda: ("eve",))
            for _ in range(4):
                with pytest.raises(ModelRaised):
                    await breaker.predict(BEYOND)
                await breaker.prove()
            assert breaker.state is BreakerState.CLOSED
            server.most_rows = 0  # as a server does whose model was renamed
            for _ in range(3):
                with pytest.raises(ModelRaised):
                    await breaker.prove()
            assert str(breaker.state) == "open"

    run(main)
