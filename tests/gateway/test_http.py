"""The data plane as a client sees it: raw ASGI in one process, on a real deployment of real models."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
import pytest
from deployments import (
    FULL_RATE,
    Hangs,
    NotANumber,
    Raises,
    clean_rows,
    edit,
    key_for,
    letters,
    outlier_rows,
    predictor_of,
    swap,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fallbacks.cases import WAITING
from gateway import http
from gateway.audit import Record
from gateway.batch import Batch, Predictor, now_s
from gateway.decision import Decision
from gateway.gateway import VAR, Gateway
from gateway.http import DataPlane
from gateway.review import Nobody, People, answer_unsure, answer_with_label
from gateway.siblings import Siblings

T = TypeVar("T")
Rows = NDArray[np.float32]
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

INFER = "/v2/models/letters/infer"
QUICK = ("budget_s: 2\n", "budget_s: 0.4\n")  # of the primary, so that a hanging one costs little
HOME = ("127.0.0.1", 50_000)
AWAY = ("192.0.2.7", 50_000)
PARAMETERS = ("outcome", "reason", "served_by", "policy", "mode", "decision_id")


@dataclass
class Reply:
    """What a client got, already held to what every client needs."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        length = self.headers.get("inference-header-content-length")
        held: dict[str, Any] = json.loads(self.body if length is None else self.body[: int(length)])
        return held

    @property
    def parameters(self) -> dict[str, Any]:
        held: dict[str, Any] = self.json["parameters"]
        return held

    @property
    def outcome(self) -> tuple[int, str, str]:
        told = self.parameters
        return self.status, told["fs_outcome"], told["fs_reason"]

    def tensor(self, name: str = "probabilities") -> NDArray[Any]:
        """One output, JSON or binary, as FP32."""
        rest = self.body[int(self.headers.get("inference-header-content-length", len(self.body))) :]
        for output in self.json["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            raw = rest[:size] if size is not None else b""
            rest = rest[size or 0 :]
            if output["name"] == name:
                flat = np.frombuffer(raw, "<f4") if size is not None else np.array(output["data"], "<f4")
                return flat.reshape(output["shape"])
        raise AssertionError(f"no output {name!r}")


@dataclass
class Client:
    """Sends one request at a time through the ASGI door, as a server would."""

    app: DataPlane
    key: str | None = None
    address: tuple[str, int] | None = HOME

    async def __call__(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Headers = (),
        then: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        whole: bool = False,
    ) -> Reply | None:
        """The reply, or None if there was none.

        Args:    then: what the server says after these chunks, be they the whole body or not.
                 whole: whether they are.
        """
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if self.key is not None:
            pairs.append(("authorization", f"Bearer {self.key}"))
        chunks = [body] if isinstance(body, bytes) else list(body)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": b"a=1",
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "client": self.address,
            "server": ("127.0.0.1", 8080),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if chunks:
                chunk = chunks.pop(0)
                more = bool(chunks) or (then is not None and not whole)
                return {"type": "http.request", "body": chunk, "more_body": more}
            if then is not None:
                return await then()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await self.app(scope, receive, send)
        return _reply(sent)

    async def get(self, path: str, headers: Headers = ()) -> Reply:
        return _some(await self("GET", path, headers=headers))

    async def infer(self, x: Rows, headers: Headers = (), binary: bool = False, **members: Any) -> Reply:
        """One request for rows, in JSON or in binary as tritonclient sends it."""
        body, more = request_of(x, binary, **members)
        pairs = [*(headers.items() if isinstance(headers, Mapping) else headers), *more]
        return _some(await self("POST", INFER, body, pairs))

    async def post(self, body: bytes | Sequence[bytes], headers: Headers = ()) -> Reply:
        return _some(await self("POST", INFER, body, headers))


def request_of(x: Rows, binary: bool = False, **members: Any) -> tuple[bytes, list[tuple[str, str]]]:
    entry: dict[str, Any] = {"name": "attributes", "datatype": "FP32", "shape": list(x.shape)}
    if not binary:
        entry["data"] = x.ravel().tolist()
        return json.dumps({"inputs": [entry], **members}).encode(), []
    entry["parameters"] = {"binary_data_size": x.nbytes}
    members.setdefault("parameters", {"binary_data_output": True})
    head = json.dumps({"inputs": [entry], **members}).encode()
    return head + x.tobytes(), [("Inference-Header-Content-Length", str(len(head)))]


def _some(reply: Reply | None) -> Reply:
    assert reply is not None, "no reply at all"
    return reply


def _reply(sent: list[dict[str, Any]]) -> Reply | None:
    """Checks what holds of every reply: a proper ASGI exchange, and an error that real clients can read."""
    if not sent:
        return None
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    names = [name.decode("ascii") for name, _ in sent[0]["headers"]]
    assert names == [name.lower() for name in names]
    assert len(set(names)) == len(names)
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in sent[0]["headers"]}
    assert all(value.isprintable() for value in headers.values())
    reply = Reply(sent[0]["status"], headers, sent[1]["body"])
    assert int(headers["content-length"]) == len(reply.body)
    if reply.status != 200:
        assert headers["content-type"] == "application/json"
        assert isinstance(reply.json["error"], str)
        assert reply.json["error"]
        stamped(reply)
    return reply


def stamped(reply: Reply) -> Reply:
    """The six parameters, none empty, in the body and as headers."""
    for name in PARAMETERS:
        told = reply.parameters[f"fs_{name}"]
        assert isinstance(told, str)
        assert told
        assert reply.headers[f"x-failsafe-{name.replace('_', '-')}"] == told
    return reply


@dataclass
class Plane:
    """A gateway behind its data plane, with rows that end in a known way.

    good: served; strange: deferred; easy: good, and answered by the fallback when the primary is gone.
    """

    runner: asyncio.Runner
    gateway: Gateway
    app: DataPlane
    keys: dict[str, str]
    good: Rows = field(init=False)
    strange: Rows = field(init=False)
    easy: Rows = field(init=False)

    def __post_init__(self) -> None:
        self.good = self._ending(clean_rows(120), "served")
        self.strange = self._ending(outlier_rows(20), "deferred")
        with self.spoiled(Raises()):
            self.easy = self._ending(self.good, "degraded")

    def _ending(self, x: Rows, outcome: str) -> Rows:
        async def main() -> Rows:
            asked = [{"name": "fs_row_outcome"}]
            keep: list[str] = []
            for at in range(0, len(x), 100):
                reply = await self.ada.infer(x[at : at + 100], outputs=asked)
                keep += reply.json["outputs"][0]["data"]
            return x[[end == outcome for end in keep]]

        found = self.runner.run(main())
        assert len(found), f"no row is {outcome}"
        return found

    @property
    def ada(self) -> Client:
        """A caller who may see everything."""
        return Client(self.app, self.keys["ada"])

    @property
    def anyone(self) -> Client:
        """An anonymous caller on this machine."""
        return Client(self.app)

    def run(self, main: Callable[[], Any]) -> Any:
        return self.runner.run(main())

    @contextmanager
    def spoiled(self, *rungs: Predictor, people: bool = True) -> Iterator[None]:
        """Other predictors behind the first rungs, or no people, for a while."""
        before = self.gateway.loaded
        for depth, predictor in enumerate(rungs):
            swap(self.gateway, predictor, depth)
        if not people:
            pipeline = replace(self.gateway.loaded.pipeline, review=Nobody())
            self.gateway.loaded = replace(self.gateway.loaded, pipeline=pipeline)
        try:
            yield
        finally:
            self.gateway.loaded = before

    async def cases(self) -> set[str]:
        """The ids of the cases that wait for a person."""
        assert isinstance(self.gateway.review, People)
        return {record.id for record in await self.gateway.review.queue.listing(WAITING, 10_000)}

    async def new_case(self, known: set[str]) -> str:
        """The id of the one case that has come since."""
        for _ in range(500):
            if fresh := await self.cases() - known:
                return fresh.pop()
            await asyncio.sleep(0.01)
        raise AssertionError("no case came")

    @contextmanager
    def recorded(self) -> Iterator[list[Record]]:
        """The records that are made meanwhile."""
        seen: list[Record] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.gateway, "record", seen.append)
            yield seen

    async def answer(self, case_id: str, answer: str) -> None:
        """A person answers one case."""
        assert isinstance(self.gateway.review, People)
        queue = self.gateway.review.queue
        for claim in await queue.claim("grace", 60, 10_000):
            if claim.case.id == case_id:
                await queue.resolve(case_id, claim.fence, "grace", answer)
            else:
                await queue.release(claim.case.id, claim.fence)


@contextmanager
def plane_of(folder: Path, **keys: str) -> Iterator[Plane]:
    with asyncio.Runner() as runner:

        async def start() -> Gateway:
            gateway = Gateway.open(folder)
            gateway.start()
            return gateway

        gateway = runner.run(start())
        try:
            siblings = Siblings(folder / VAR / "run", gateway.replica, "no token")
            yield Plane(runner, gateway, DataPlane(gateway, siblings), keys)
        finally:
            runner.run(gateway.close())


def keys_for(folder: Path) -> dict[str, str]:
    return {
        "ada": key_for(folder, "ada"),
        "bob": key_for(folder, "bob"),
        "slow": key_for(folder, "slow", "trusted", 0.001),
        "reader": key_for(folder, "reader", "trusted", None, "read"),
    }


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = letters(tmp_path_factory.mktemp("plane"), FULL_RATE, QUICK)
    with plane_of(folder, **keys_for(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def truth(plane: Plane) -> Callable[[Rows], Rows]:
    """What onnxruntime itself says of each row alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = plane.gateway.folder / "primary.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: np.concatenate(
        [session.run(["probabilities"], {"attributes": x[i : i + 1]})[0] for i in range(len(x))]
    )


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_trusted_caller_gets_the_models_answer_bit_for_bit(
    plane: Plane, truth: Callable[[Rows], Rows], binary: bool
) -> None:
    async def main() -> None:
        for i in range(20):
            x = plane.good[i : i + 1]
            reply = stamped(await plane.ada.infer(x, binary=binary))
            assert reply.outcome == (200, "served", "ok")
            assert reply.tensor().tobytes() == truth(x).tobytes()
            assert reply.parameters["fs_served_by"] == "primary"
            assert reply.parameters["fs_policy"] == plane.gateway.loaded.tag
            assert reply.parameters["fs_mode"] == "enforce"

    plane.run(main)


def test_json_and_binary_answers_are_the_same_bits_in_the_form_that_was_asked(plane: Plane) -> None:
    async def main() -> None:
        as_json, as_binary = (
            await plane.ada.infer(plane.good[:1]),
            await plane.ada.infer(plane.good[:1], binary=True),
        )
        assert as_json.headers["content-type"] == "application/json"
        assert as_binary.headers["content-type"] == "application/octet-stream"
        assert "inference-header-content-length" not in as_json.headers
        assert as_json.tensor().tobytes() == as_binary.tensor().tobytes()

    plane.run(main)


def test_a_raw_request_is_one_tensor_and_gets_every_output_in_binary(plane: Plane) -> None:
    async def main() -> None:
        x = plane.good[:1]
        raw = await plane.ada.post(x.tobytes(), {"Inference-Header-Content-Length": "0"})
        assert raw.tensor().tobytes() == (await plane.ada.infer(x)).tensor().tobytes()
        assert "inference-header-content-length" in raw.headers

    plane.run(main)


def test_an_anonymous_caller_gets_two_digits_and_the_same_winner(
    plane: Plane, truth: Callable[[Rows], Rows]
) -> None:
    async def main() -> None:
        x = plane.good[:30]
        for binary in (False, True):
            shown = (await plane.anyone.infer(x, binary=binary)).tensor()
            exact = truth(x)
            assert (shown.argmax(axis=1) == exact.argmax(axis=1)).all()
            assert np.abs(shown - exact).max() <= 0.0151
            assert np.abs(shown * 100 - np.rint(shown * 100)).max() < 1e-4

    plane.run(main)


def test_what_is_not_exposed_cannot_be_seen_or_asked_for(plane: Plane) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1])
        assert [output["name"] for output in reply.json["outputs"]] == ["probabilities"]
        for hidden in ("logits", "features"):
            asked = await plane.ada.infer(plane.good[:1], outputs=[{"name": hidden}])
            assert asked.status == 400
            assert "outputs[0].name" in asked.json["error"]
        about = await plane.ada.get("/v2/models/letters")
        assert b"logits" not in about.body
        assert b"features" not in about.body

    plane.run(main)


def test_a_caller_gets_the_outputs_asked_for_in_order_and_form(plane: Plane) -> None:
    async def main() -> None:
        outputs = [
            {"name": "fs_row_outcome"},
            {"name": "probabilities", "parameters": {"classification": 2}},
        ]
        reply = await plane.ada.infer(plane.good[:2], outputs=outputs)
        first, second = reply.json["outputs"]
        assert (first["name"], first["datatype"], first["data"]) == (
            "fs_row_outcome",
            "BYTES",
            ["served"] * 2,
        )
        assert (second["datatype"], second["shape"]) == ("BYTES", [2, 2])
        best = (await plane.ada.infer(plane.good[:1])).tensor().argmax()
        assert second["data"][0].endswith(f":{best}")

    plane.run(main)


@pytest.mark.parametrize("identity", ["mine", "", "é☃", "x" * 1000])
def test_the_id_is_echoed_however_the_request_ends(plane: Plane, identity: str) -> None:
    async def main() -> None:
        ends = set()
        for x in (plane.good[:1], plane.strange[:1]):
            reply = await plane.ada.infer(x, id=identity)
            assert reply.json["id"] == identity
            ends.add(reply.status)
        with plane.spoiled(people=False):
            reply = await plane.ada.infer(plane.strange[:1], id=identity)
            assert reply.json["id"] == identity
            ends.add(reply.status)
        assert ends == {200, 422, 503}

    plane.run(main)


def test_without_an_id_none_is_invented(plane: Plane) -> None:
    async def main() -> None:
        assert "id" not in (await plane.ada.infer(plane.good[:1])).json
        assert "id" not in (await plane.ada.infer(plane.good[:1], id=None)).json

    plane.run(main)


def test_every_request_has_a_decision_id_of_its_own(plane: Plane) -> None:
    async def main() -> None:
        ids = [(await plane.ada.infer(plane.good[:1])).parameters["fs_decision_id"] for _ in range(20)]
        ids += [(await plane.anyone.get("/nowhere")).parameters["fs_decision_id"] for _ in range(20)]
        assert len(set(ids)) == 40

    plane.run(main)


def test_callers_at_the_same_time_get_their_own_answers(plane: Plane, truth: Callable[[Rows], Rows]) -> None:
    async def main() -> None:
        x = plane.good[:80]
        replies = await asyncio.gather(
            *(plane.ada.infer(x[i : i + 1], id=str(i), binary=bool(i % 2)) for i in range(80))
        )
        assert [reply.json["id"] for reply in replies] == [str(i) for i in range(80)]
        got = np.concatenate([reply.tensor() for reply in replies])
        assert np.abs(got - truth(x)).max() < 1e-5

    plane.run(main)


# ---------------------------------------------------------------- terminal states


def test_degraded_is_a_200_that_names_the_rung(plane: Plane) -> None:
    async def main() -> None:
        with plane.spoiled(Raises()):
            reply = stamped(await plane.ada.infer(plane.easy[:1]))
        assert reply.outcome == (200, "degraded", "unavailable")
        assert reply.parameters["fs_served_by"] == "small"
        small = plane.gateway.loaded.artifacts.models["small"].run({"attributes": plane.easy[:1]})
        assert reply.tensor().tobytes() == small["probabilities"].tobytes()

    plane.run(main)


def test_deferred_is_a_422_that_says_where_the_answer_will_be(plane: Plane) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.strange[:1])
        assert reply.outcome == (422, "deferred", "abstained")
        assert reply.json["review_url"] == f"/reviews/{reply.parameters['fs_decision_id']}"
        assert reply.parameters["fs_served_by"] == "review"
        assert "outputs" not in reply.json
        assert "location" not in reply.headers

    plane.run(main)


@pytest.mark.parametrize(
    "headers",
    [
        [("Prefer", "respond-async")],
        [("prefer", "handling=lenient, respond-async")],
        [("Prefer", "respond-async"), ("Prefer", "wait=0")],
        [("Prefer", "Respond-Async")],
    ],
    ids=["alone", "among others", "in a header of its own", "in capitals"],
)
def test_deferred_is_a_202_only_for_those_who_asked_for_it(
    plane: Plane, headers: list[tuple[str, str]]
) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.strange[:1], headers)
        assert reply.outcome == (202, "deferred", "abstained")
        assert reply.headers["location"] == reply.json["review_url"]
        assert reply.headers["preference-applied"] == "respond-async"

    plane.run(main)


def test_who_waits_gets_the_persons_answer_as_a_200(plane: Plane) -> None:
    async def main() -> None:
        known = await plane.cases()
        waiting = asyncio.create_task(plane.ada.infer(plane.strange[:1], {"Prefer": "wait=20"}, id="mine"))
        case_id = await plane.new_case(known)
        await plane.answer(case_id, answer_with_label(7))
        reply = stamped(await waiting)
        assert reply.outcome == (200, "degraded", "abstained")
        assert reply.parameters["fs_served_by"] == "review"
        assert reply.parameters["fs_decision_id"] == case_id
        assert reply.json["id"] == "mine"
        assert reply.tensor().tolist() == [np.eye(26)[7].tolist()]

    plane.run(main)


def test_who_waits_for_a_person_who_cannot_tell_is_refused(plane: Plane) -> None:
    async def main() -> None:
        known = await plane.cases()
        waiting = asyncio.create_task(plane.ada.infer(plane.strange[:1], {"Prefer": "wait=20"}))
        await plane.answer(await plane.new_case(known), answer_unsure())
        assert (await waiting).outcome == (422, "refused", "abstained")

    plane.run(main)


def test_who_waits_in_vain_gets_the_deferral_after_so_long(plane: Plane) -> None:
    async def main() -> None:
        start_s = time.perf_counter()
        reply = await plane.ada.infer(plane.strange[:1], {"Prefer": "wait=1, respond-async"})
        assert 0.9 < time.perf_counter() - start_s < 3
        assert reply.outcome == (202, "deferred", "abstained")

    plane.run(main)


def test_nobody_waits_longer_than_half_a_minute(plane: Plane) -> None:
    assert http.LONGEST_WAIT_S <= 30
    assert http._wait_s("wait=86400") == 30
    assert http._wait_s("wait=" + "9" * 5000) == 30


@pytest.mark.parametrize(
    "prefer",
    ["wait=-1", "wait=soon", "wait=", "wait", "wait=1e9", "wait=\u00b2", "wait=\u00b9\u00b2", "=", ",;,", ""],
)
def test_a_preference_that_means_nothing_is_ignored(plane: Plane, prefer: str) -> None:
    async def main() -> None:
        start_s = time.perf_counter()
        reply = await plane.ada.infer(plane.strange[:1], {"Prefer": prefer})
        assert reply.outcome == (422, "deferred", "abstained")
        assert time.perf_counter() - start_s < 0.9

    plane.run(main)


def test_who_hangs_up_while_waiting_is_not_waited_for(plane: Plane) -> None:
    """Or whoever asks for wait=30 and goes holds a task that reads the database ten times a second."""

    async def gone() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def main() -> None:
        body, _ = request_of(plane.strange[:1])
        start_s = time.perf_counter()
        await plane.ada("POST", INFER, body, {"Prefer": "wait=3"}, then=gone, whole=True)
        assert time.perf_counter() - start_s < 1.5

    plane.run(main)


def test_refused_for_the_rate_is_a_429_that_says_when_to_come_back(plane: Plane) -> None:
    async def main() -> None:
        slow = Client(plane.app, plane.keys["slow"])
        replies = [await slow.infer(plane.good[:1]) for _ in range(3)]
        assert replies[0].status == 200
        assert [reply.outcome for reply in replies[1:]] == [(429, "refused", "rate_limited")] * 2
        assert 900 <= int(replies[1].headers["retry-after"]) <= 1000
        assert replies[1].parameters["fs_served_by"] == "none"

    plane.run(main)


def test_refused_for_want_of_everything_is_a_503_that_says_when_to_come_back(plane: Plane) -> None:
    async def main() -> None:
        with plane.spoiled(Raises(), Raises(), people=False):
            reply = await plane.ada.infer(plane.good[:1])
        assert reply.outcome == (503, "refused", "unavailable")
        assert int(reply.headers["retry-after"]) >= 1

    plane.run(main)


@pytest.mark.parametrize(
    ("headers", "members"),
    [
        ({"x-request-timeout-seconds": "0.000001"}, {}),
        ({}, {"parameters": {"timeout": 1}}),
        ({"x-request-timeout-seconds": "9"}, {"parameters": {"timeout": 1}}),
        ({"x-request-timeout-seconds": "1e-300"}, {}),
    ],
    ids=["by header", "by parameter", "by the shorter of both", "by next to nothing"],
)
def test_a_deadline_that_passes_is_a_504(
    plane: Plane, headers: dict[str, str], members: dict[str, Any]
) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], headers, **members)
        assert reply.outcome == (504, "refused", "deadline")
        assert reply.parameters["fs_policy"] == plane.gateway.loaded.tag

    plane.run(main)


@pytest.mark.parametrize(
    ("header", "timeout_us", "within_s"),
    [
        (None, None, 10.0),
        ("3600", None, 10.0),
        ("inf", None, 10.0),
        (None, 3_600_000_000, 10.0),
        (None, 2**63, 10.0),
        (None, 0, 10.0),
        ("2.5", None, 2.5),
        ("2.5", 1_500_000, 1.5),
        ("0.5", 1_500_000, 0.5),
    ],
)
def test_a_deadline_can_only_be_shortened(
    plane: Plane,
    monkeypatch: pytest.MonkeyPatch,
    header: str | None,
    timeout_us: int | None,
    within_s: float,
) -> None:
    seen: list[float] = []
    decide = plane.gateway.decide

    async def spy(batch: Batch) -> list[Decision]:
        seen.append(batch.until_s - now_s())
        return await decide(batch)

    monkeypatch.setattr(plane.gateway, "decide", spy)
    assert plane.gateway.loaded.policy.deadline_s == 10.0

    async def main() -> None:
        headers = {} if header is None else {"x-request-timeout-seconds": header}
        parameters: dict[str, Any] = {} if timeout_us is None else {"parameters": {"timeout": timeout_us}}
        body, _ = request_of(plane.good[:1], **parameters)
        assert (await plane.ada.post(body, headers)).status == 200

    plane.run(main)
    assert seen == [pytest.approx(within_s, abs=0.3)]


def test_everything_that_hangs_ends_by_the_policys_deadline(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, patient=False)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:
        swap(plane.gateway, Hangs(), 0)
        swap(plane.gateway, Hangs(), 1)

        async def main() -> None:
            start_s = time.perf_counter()
            reply = await plane.ada.infer(plane.good[:1], {"x-request-timeout-seconds": "60"})
            assert time.perf_counter() - start_s < 1.0
            assert reply.status in (422, 503, 504)

        plane.run(main)


# ---------------------------------------------------------------- batches


def mixed(plane: Plane) -> Rows:
    """Served, deferred, served."""
    return np.concatenate([plane.good[:1], plane.strange[:1], plane.good[1:2]])


def test_a_batch_in_which_every_row_is_answered_is_a_200(plane: Plane, truth: Callable[[Rows], Rows]) -> None:
    async def main() -> None:
        others = [row for row in plane.good if (row != plane.easy[0]).any()]
        x = np.stack([*others[:3], plane.easy[0]])
        with plane.spoiled(NotANumber(predictor_of(plane.gateway), plane.easy[0])):
            reply = stamped(await plane.ada.infer(x))
        assert reply.outcome == (200, "degraded", "unavailable")
        assert reply.parameters["fs_served_by"] == "primary,small"
        assert np.abs(reply.tensor()[:3] - truth(x[:3])).max() < 1e-5

    plane.run(main)


def test_a_batch_with_a_row_that_is_not_answered_ends_as_its_worst_row_without_outputs(plane: Plane) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(mixed(plane))
        assert reply.outcome == (422, "deferred", "abstained")
        assert "outputs" not in reply.json
        id_ = reply.parameters["fs_decision_id"]
        assert reply.json["review_url"] == reply.parameters["fs_review_urls"] == f"/reviews/{id_}.1"
        with plane.spoiled(people=False):
            assert (await plane.ada.infer(mixed(plane))).outcome == (503, "refused", "unavailable")

    plane.run(main)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_who_asks_how_each_row_ended_gets_the_answered_ones(
    plane: Plane, truth: Callable[[Rows], Rows], binary: bool
) -> None:
    async def main() -> None:
        x = mixed(plane)
        outputs = [
            {"name": "probabilities"},
            {"name": "fs_row_outcome", "parameters": {"binary_data": False}},
        ]
        reply = stamped(await plane.ada.infer(x, binary=binary, outputs=outputs))
        assert reply.outcome == (200, "deferred", "abstained")
        assert reply.json["outputs"][1]["data"] == ["served", "deferred", "served"]
        if binary:
            shown = reply.tensor()
            assert np.isnan(shown[1]).all()
        else:
            flat = reply.json["outputs"][0]["data"]
            assert flat[26:52] == [None] * 26
            shown = np.array([value or 0.0 for value in flat], np.float32).reshape(3, 26)
        assert np.abs(shown[[0, 2]] - truth(x[[0, 2]])).max() < 1e-5
        assert reply.parameters["fs_review_urls"].endswith(".1")

    plane.run(main)


def test_a_batch_whose_every_row_is_withheld_still_says_how_each_ended(plane: Plane) -> None:
    async def main() -> None:
        outputs = [{"name": "fs_row_outcome"}, {"name": "probabilities"}]
        reply = await plane.ada.infer(plane.strange[:2], outputs=outputs)
        assert reply.status == 200
        assert reply.json["outputs"][0]["data"] == ["deferred"] * 2
        assert reply.json["outputs"][1]["data"] == [None] * 52

    plane.run(main)


# ---------------------------------------------------------------- decisions and reviews


def test_a_caller_can_read_how_a_request_ended_but_neither_scores_nor_guards(plane: Plane) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(mixed(plane))
        reply = await plane.ada.get(f"/decisions/{asked.parameters['fs_decision_id']}")
        assert reply.status == 200
        told = reply.json
        assert told["policy"] == plane.gateway.loaded.tag
        assert told["mode"] == "enforce"
        id_ = asked.parameters["fs_decision_id"]
        ends = [(row["id"], row["outcome"], row["reason"], row["by"]) for row in told["rows"]]
        assert ends == [
            (f"{id_}.0", "served", "ok", "primary"),
            (f"{id_}.1", "deferred", "abstained", None),
            (f"{id_}.2", "served", "ok", "primary"),
        ]
        one = (await plane.ada.get(f"/decisions/{id_}.1")).json
        assert one["rows"] == told["rows"][1:2]
        for secret in (b"ood", b"score", b"rate", b"confidence"):
            assert secret not in reply.body

    plane.run(main)


def test_what_is_another_callers_or_nobodys_is_the_same_404(plane: Plane) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        id_ = asked.parameters["fs_decision_id"]
        bob = Client(plane.app, plane.keys["bob"])
        for kind in ("decisions", "reviews"):
            assert (await plane.ada.get(f"/{kind}/{id_}")).status == 200
            told = set()
            for who, what in (
                (bob, id_),
                (plane.anyone, id_),
                (bob, "0" * 24),
                (bob, id_ + ".0"),
                (bob, "*"),
            ):
                reply = await who.get(f"/{kind}/{what}")
                told.add((reply.status, reply.json["error"]))
            assert len(told) == 1
            assert told.pop()[0] == 404

    plane.run(main)


def test_a_review_can_be_polled_until_a_person_has_answered(plane: Plane) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        url, id_ = asked.json["review_url"], asked.parameters["fs_decision_id"]
        waits = await plane.ada.get(url)
        assert (waits.status, waits.json["state"], waits.json["id"]) == (200, "waiting", id_)
        assert waits.json["expires"] > time.time()
        assert "answer" not in waits.json
        await plane.answer(id_, answer_with_label(3))
        reply = await plane.ada.get(url)
        assert reply.json["state"] == "decided"
        (output,) = reply.json["answer"]["outputs"]
        assert (output["name"], output["shape"]) == ("probabilities", [1, 26])
        assert output["data"] == np.eye(26)[3].tolist()
        assert reply.json["answer"]["parameters"]["fs_served_by"] == "review"
        assert b"ood" not in reply.body

    plane.run(main)


def test_a_row_of_a_batch_has_a_review_of_its_own(plane: Plane) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:2])
        urls = asked.parameters["fs_review_urls"].split(",")
        assert len(urls) == 2
        assert [(await plane.ada.get(url)).json["state"] for url in urls] == ["waiting"] * 2

    plane.run(main)


def test_a_persons_refusal_is_told_in_the_review(plane: Plane) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        await plane.answer(asked.parameters["fs_decision_id"], answer_unsure())
        told = (await plane.ada.get(asked.json["review_url"])).json
        assert told["state"] == "decided"
        assert told["answer"]["parameters"]["fs_reason"] == "abstained"
        assert "outputs" not in told["answer"]

    plane.run(main)


def test_an_answer_that_no_class_has_is_no_500(plane: Plane) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        await plane.answer(asked.parameters["fs_decision_id"], answer_with_label(26))
        told = (await plane.ada.get(asked.json["review_url"])).json
        assert "outputs" not in told["answer"]

    plane.run(main)


def test_a_review_store_that_is_gone_is_a_503_for_those_who_ask_and_a_deferral_for_those_who_wait(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            assert isinstance(plane.gateway.review, People)
            asked = await plane.ada.infer(plane.strange[:1])
            waiting = asyncio.create_task(plane.ada.infer(plane.strange[:1], {"Prefer": "wait=2"}))
            await asyncio.sleep(0.25)
            plane.gateway.review.queue.close()
            assert (await plane.ada.get(asked.json["review_url"])).status == 503
            assert (await waiting).outcome == (422, "deferred", "abstained")

        plane.run(main)


# ---------------------------------------------------------------- what a caller can mend

X16 = list(range(16))


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
def test_a_400_names_the_field_and_the_rule(plane: Plane, body: Any, field: str, rule: str) -> None:
    async def main() -> None:
        reply = await plane.ada.post(body if isinstance(body, bytes) else json.dumps(body).encode())
        assert reply.outcome == (400, "refused", "invalid")
        assert f"{field}: " in reply.json["error"]
        assert rule in reply.json["error"]

    plane.run(main)


def test_a_binary_number_that_is_none_is_a_400_that_names_its_row(plane: Plane) -> None:
    async def main() -> None:
        x = np.repeat(plane.good[:1], 3, axis=0)
        x[2, 5] = np.nan
        reply = await plane.ada.infer(x, binary=True)
        assert reply.outcome == (400, "refused", "invalid")
        assert "inputs[0].data: row 2: not a finite FP32" in reply.json["error"]

    plane.run(main)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "nan", "1,5", "\u00b2", "0x10"])
def test_a_timeout_that_is_none_is_a_400(plane: Plane, value: str) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], {"x-request-timeout-seconds": value})
        assert reply.outcome == (400, "refused", "invalid")
        assert "x-request-timeout-seconds: must be a positive number of seconds" in reply.json["error"]

    plane.run(main)


@pytest.mark.parametrize("value", ["-1", "x", "", "1e3", "\u00b2", "9" * 40, "999999"])
def test_a_header_length_that_is_none_is_a_400(plane: Plane, value: str) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], {"inference-header-content-length": value})
        assert reply.outcome == (400, "refused", "invalid")
        assert "Inference-Header-Content-Length: " in reply.json["error"]

    plane.run(main)


def test_what_is_invalid_costs_nothing_and_leaves_no_record(plane: Plane) -> None:
    async def main() -> None:
        slow = Client(plane.app, key_for(plane.gateway.folder, "careful", "trusted", 0.001))
        await asyncio.sleep(0.6)
        with plane.recorded() as seen:
            for _ in range(5):
                assert (await slow.post(b"{}")).status == 400
        assert seen == []
        assert (await slow.infer(plane.good[:1])).status == 200

    plane.run(main)


# ---------------------------------------------------------------- doors


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/fashion/infer",
        "/v2/models/fashion",
        "/v2/models/fashion/ready",
        "/v2/models/letters/versions/2",
    ],
)
def test_an_unknown_model_is_a_404_in_the_words_that_clients_look_for(plane: Plane, path: str) -> None:
    async def main() -> None:
        reply = _some(await plane.ada("POST" if path.endswith("infer") else "GET", path))
        assert reply.outcome == (404, "refused", "not_found")
        assert reply.json["error"].startswith("Request for unknown model")

    plane.run(main)


@pytest.mark.parametrize("name", ["\r\nx-evil: 1", "é☃", "x" * 5000, "%00", "'\"<script>"])
def test_a_strange_model_name_is_only_a_404(plane: Plane, name: str) -> None:
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
def test_what_is_not_there_is_a_404(plane: Plane, path: str) -> None:
    async def main() -> None:
        assert (await plane.ada.get(path)).outcome == (404, "refused", "not_found")

    plane.run(main)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("PUT", INFER, "POST"),
        ("POST", "/v2/models/letters", "GET"),
        ("DELETE", "/v2", "GET"),
        ("POST", "/v2/health/ready", "GET"),
        ("POST", "/decisions/x", "GET"),
        ("DELETE", "/reviews/x", "GET"),
    ],
)
def test_another_method_is_a_405_that_says_which(plane: Plane, method: str, path: str, allow: str) -> None:
    async def main() -> None:
        reply = _some(await plane.ada(method, path))
        assert reply.outcome == (405, "refused", "method_not_allowed")
        assert reply.headers["allow"] == allow

    plane.run(main)


def test_health_and_the_servers_own_metadata_need_no_key_and_nothing_else_goes_without(plane: Plane) -> None:
    async def main() -> None:
        stranger = Client(plane.app, None, AWAY)
        for path in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready"):
            assert (await stranger.get(path)).status == 200
        ready = (await stranger.get("/v2/health/ready")).json
        assert (ready["live"], ready["ready"]) == (True, True)
        for path in (
            "/v2/models/letters",
            "/v2/models/other",
            "/v2/models/letters/config",
            "/decisions/x",
            "/reviews/x",
        ):
            assert (await stranger.get(path)).outcome == (401, "refused", "unauthenticated")

    plane.run(main)


def test_the_model_is_described_as_clients_expect(plane: Plane) -> None:
    async def main() -> None:
        for path in ("/v2/models/letters", "/v2/models/letters/versions/1"):
            about = (await plane.ada.get(path)).json
            assert about["name"] == "letters"
            assert about["inputs"] == [{"name": "attributes", "datatype": "FP32", "shape": [-1, 16]}]
        assert (await plane.ada.get("/v2/models/letters/ready")).json["ready"] is True
        assert (await plane.ada.get("/v2/models/letters/config")).json["max_batch_size"] == 128
        reply = _some(
            await plane.ada("POST", "/v2/models/letters/versions/1/infer", request_of(plane.good[:1])[0])
        )
        assert reply.status == 200

    plane.run(main)


@pytest.mark.parametrize(
    ("headers", "address", "status"),
    [
        ({}, HOME, 200),
        ({}, ("::1", 1), 200),
        ({}, AWAY, 401),
        ({}, None, 401),
        ({"authorization": "Bearer {ada}"}, AWAY, 200),
        ({"authorization": "bearer  {ada} "}, AWAY, 200),
        ({"x-api-key": "{ada}"}, AWAY, 200),
        ({"authorization": "Bearer wrong"}, HOME, 401),
        ({"x-api-key": "wrong"}, HOME, 401),
        ({"authorization": "Bearer é"}, AWAY, 401),
        ({"authorization": "Basic {ada}"}, AWAY, 401),
        ({"authorization": "Bearer wrong", "x-api-key": "{ada}"}, AWAY, 401),
        ({"authorization": "Bearer {reader}"}, HOME, 403),
        ({"x-forwarded-for": "127.0.0.1"}, AWAY, 401),
    ],
)
def test_who_is_let_in(
    plane: Plane, headers: dict[str, str], address: tuple[str, int] | None, status: int
) -> None:
    async def main() -> None:
        sent = {name: value.format(**plane.keys) for name, value in headers.items()}
        reply = await Client(plane.app, None, address).infer(plane.good[:1], sent)
        assert reply.status == status
        if status == 401:
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.parameters["fs_reason"] == "unauthenticated"
        assert plane.keys["ada"].encode() not in reply.body

    plane.run(main)


def test_where_anonymous_is_nobody_not_even_loopback_is_let_in(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ("anonymous: loopback", "anonymous: nobody"))
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            assert (await plane.anyone.infer(plane.good[:1])).status == 401
            assert (await plane.ada.infer(plane.good[:1])).status == 200

        plane.run(main)


def test_a_new_key_is_honoured_within_a_second(plane: Plane) -> None:
    async def main() -> None:
        await plane.ada.infer(plane.good[:1])
        late = Client(plane.app, key_for(plane.gateway.folder, "late"), AWAY)
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
            assert plane.gateway.reload()
            reply = stamped(await plane.ada.infer(plane.strange[:1]))
            assert reply.outcome == (200, "served", "ok")
            assert reply.parameters["fs_policy"] == plane.gateway.loaded.tag != old
            assert reply.parameters["fs_mode"] == "observe"
            assert (await plane.ada.get("/nowhere")).parameters["fs_mode"] == "observe"

        plane.run(main)


def test_a_decision_that_a_reload_overtook_keeps_the_mode_that_it_was_made_in(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, QUICK)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:
        old = plane.gateway.loaded.tag
        swap(plane.gateway, Hangs())

        async def main() -> None:
            flying = asyncio.create_task(plane.ada.infer(plane.good[:1]))
            await asyncio.sleep(0.05)
            edit(folder, ('version: "1"', 'version: "2"\nmode: observe'))
            assert plane.gateway.reload()
            told = (await flying).parameters
            assert (told["fs_policy"], told["fs_mode"]) == (old, "enforce")

        plane.run(main)


# ---------------------------------------------------------------- bodies


def test_a_body_in_pieces_is_one_body(plane: Plane) -> None:
    async def main() -> None:
        body, _ = request_of(plane.good[:1])
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        assert (await plane.ada.post([b"", *pieces, b""])).status == 200

    plane.run(main)


def test_a_body_over_the_limit_is_a_413_whether_it_says_so_or_not(plane: Plane) -> None:
    limit = plane.gateway.loaded.contract.body_limit_bytes
    taken: list[int] = []

    async def more() -> dict[str, Any]:
        taken.append(1)
        return {"type": "http.request", "body": b" " * 10_000, "more_body": True}

    async def main() -> None:
        honest = await plane.ada.post(b"{}", {"content-length": str(limit + 1)})
        assert honest.outcome == (413, "refused", "too_large")
        assert str(limit) in honest.json["error"]
        liar = _some(await plane.ada("POST", INFER, b"{}", {"content-length": "2"}, then=more))
        assert liar.outcome == (413, "refused", "too_large")
        assert len(taken) <= limit / 10_000 + 2, "it read on"
        exact = await plane.ada.post(b" " * limit)
        assert exact.status == 400

    plane.run(main)


@pytest.mark.parametrize("value", ["\u00b2", "x", "-5", "9" * 5000, ""])
def test_a_content_length_that_is_none_never_breaks_anything(plane: Plane, value: str) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], {"content-length": value})
        assert reply.status in (200, 400, 413)

    plane.run(main)


def test_the_largest_batch_fits_the_limit_in_json(plane: Plane) -> None:
    async def main() -> None:
        x = np.repeat(plane.good[:1], 128, axis=0) + np.float32(1 / 3)
        reply = await plane.ada.infer(np.minimum(x, np.float32(15)), outputs=[{"name": "fs_row_outcome"}])
        assert reply.status == 200

    plane.run(main)


def test_an_encoding_that_is_not_known_is_refused(plane: Plane) -> None:
    async def main() -> None:
        reply = await plane.ada.post(b"\x1f\x8b", {"content-encoding": "br"})
        assert reply.outcome == (501, "refused", "unsupported")

    plane.run(main)


def test_a_body_that_does_not_come_is_a_408(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.05)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {}

    async def main() -> None:
        reply = _some(await plane.ada("POST", INFER, b"{", then=never))
        assert reply.outcome == (408, "refused", "too_slow")

    plane.run(main)


def test_who_hangs_up_in_the_middle_of_a_body_is_not_answered_and_disturbs_nobody(plane: Plane) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def main() -> None:
        with plane.recorded() as seen:
            assert await plane.ada("POST", INFER, b'{"inputs"', then=gone) is None
        assert seen == []
        assert (await plane.ada.infer(plane.good[:1])).status == 200

    plane.run(main)


def test_a_cancelled_request_is_cancelled_and_disturbs_nobody(plane: Plane) -> None:
    async def main() -> None:
        with plane.spoiled(Hangs()):
            goes = asyncio.create_task(plane.ada.infer(plane.good[:1]))
            await asyncio.sleep(0.05)
            goes.cancel()
            await asyncio.gather(goes, return_exceptions=True)
            assert goes.cancelled(), "a server that cancels a request must see it end as cancelled"
        assert (await plane.ada.infer(plane.good[:1])).status == 200

    plane.run(main)


def test_a_websocket_is_turned_away_in_so_many_words(plane: Plane) -> None:
    """An application that only returns makes the server answer 500."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def main() -> None:
        await plane.app({"type": "websocket", "path": INFER, "headers": []}, receive, send)
        assert [message["type"] for message in sent] == ["websocket.close"]

    plane.run(main)


# ---------------------------------------------------------------- nothing malformed gets a 5xx

REQUEST = {
    "id": "a",
    "parameters": {"timeout": 9_000_000, "priority": 1, "binary_data_output": False},
    "inputs": [
        {"name": "attributes", "datatype": "FP32", "shape": [1, 16], "parameters": {}, "data": X16},
    ],
    "outputs": [{"name": "probabilities", "parameters": {"binary_data": False, "classification": 3}}],
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 20), max_size=4),
)


def places(of: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in a document."""
    yield at
    for key, value in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        yield from places(value, (*at, key))


def put(of: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with one place replaced."""
    if not at:
        return value
    copy = dict(of) if isinstance(of, dict) else list(of)
    copy[at[0]] = put(of[at[0]], at[1:], value)
    return copy


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid request with some places replaced, or some bytes changed, or cut, or neither."""
    told: Any = REQUEST
    for _ in range(draw(st.integers(0, 2))):
        told = put(told, draw(st.sampled_from(list(places(told)))), draw(VALUES))
    body = bytearray(json.dumps(told).encode())
    for _ in range(draw(st.integers(0, 2))):
        if body:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        return bytes(body)
    return bytes(body[: draw(st.integers(0, len(body)))]) + draw(st.binary(max_size=20))


LATIN = st.text(st.characters(max_codepoint=255), max_size=12)
NAMES = st.sampled_from(
    [
        "inference-header-content-length",
        "content-length",
        "content-type",
        "prefer",
        "x-request-timeout-seconds",
        "transfer-encoding",
        "accept-encoding",
        "host",
        "cookie",
    ]
)
NUMBERS = st.integers(-5, 700).map(str) | st.sampled_from(
    ["\u00b2", "1e9", "nan", "inf", "9" * 30, "0x1", "1_0"]
)
PREFERS = st.sampled_from(
    ["respond-async", "wait=0", "wait=\u00b2", "wait=x", "wait", ";;", "wait=,respond-async"]
)
PATHS = st.sampled_from(
    [
        INFER,
        INFER,
        INFER,
        "/v2/models/letters/versions/1/infer",
        "/v2//models/letters/infer/",
        "/v2",
        "/decisions/x",
        "/reviews/x",
    ]
) | st.text(max_size=20).map(lambda text: "/v2/models/" + text)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies(),
    st.lists(st.tuples(NAMES, LATIN | NUMBERS | PREFERS), max_size=3),
    PATHS,
    st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS"]),
)
@example(json.dumps(REQUEST).encode(), [("prefer", "wait=\u00b2")], INFER, "POST")
@example(json.dumps(REQUEST).encode(), [("content-length", "\u00b2")], INFER, "POST")
def test_nothing_malformed_ever_gets_a_5xx(
    plane: Plane, body: bytes, headers: list[tuple[str, str]], path: str, method: str
) -> None:
    sent = [(name, value) for name, value in headers if not (name == "prefer" and waits(value))]

    async def main() -> None:
        reply = _some(await plane.ada(method, path, body, sent))
        assert reply.status < 500 or reply.outcome == (504, "refused", "deadline")
        if reply.status == 504:
            assert b"timeout" in body or any(name == "x-request-timeout-seconds" for name, _ in sent)

    plane.run(main)


def waits(prefer: str) -> bool:
    """Whether a preference would make the test itself wait."""
    return any(
        part.strip().startswith("wait=") and any(c in "123456789" for c in part) for part in prefer.split(",")
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.integers(-3, 300), st.integers(0, 90))
def test_no_binary_request_ever_gets_a_5xx(plane: Plane, noise: bytes, length: int, cut: int) -> None:
    async def main() -> None:
        body, _ = request_of(plane.good[:1], binary=True)
        for sent in (body[: len(body) - cut] + noise, noise, noise + body):
            reply = await plane.ada.post(sent, {"inference-header-content-length": str(length)})
            assert reply.status < 500

    plane.run(main)
