"""No oracle: whatever happens inside, nothing that leaves tells what was measured, cut, named or broken.

Every guard, check, model and store of a random pipeline is seeded with canaries: a word that stands in its
name, its exceptions, their messages and the folder's path, and numbers that are its scores and its cuts. Then
callers ask in every way, over both protocols, and every byte that comes back is searched.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.batch import Answered, Batch
from gateway.core.decision import Reason, Tensors, Verdict
from gateway.core.model import Predictor
from gateway.core.pipeline import ReviewRequest
from gateway.core.stage import Stage
from tests.support.data_planes import INFER, ClientReply, PlaneFixture, plane_of, request_of
from tests.support.deployments import FULL_RATE, Raises, key_for, letters
from tests.support.grpc_client import INFER as METHOD
from tests.support.grpc_client import GrpcClient, grpc_client
from tests.support.grpc_client import request_of as message_of

J = TypeVar("J", Batch, Answered)
WORD = "quetzal"
LOW, CUT, HIGH = 4127.53391, 5348.17712, 7341.88219
CHECK_LOW, CHECK_CUT, CHECK_HIGH = 1123.94417, 2615.77733, 3892.61175
NUMBERS = (LOW, CUT, HIGH, CHECK_LOW, CHECK_CUT, CHECK_HIGH)
HANGS_S = 0.02


class QuetzalError(Exception):
    """What breaks says a word that must not be heard outside."""

    def __init__(self) -> None:
        super().__init__(f"{WORD} at /srv/{WORD}/model.onnx, line 7: score {HIGH} over {CUT}")


class Canary(Generic[J]):
    """A guard or check that behaves as it is told."""

    def __init__(self, does: str, low: float, high: float) -> None:
        self.does, self.low, self.high = does, low, high

    async def score(self, rows: J, /) -> Any:
        match self.does:
            case "raises":
                raise QuetzalError
            case "hangs":
                await asyncio.sleep(10)
            case "nan":
                return np.full(len(rows), np.nan)
            case "misshapen":
                return np.full(len(rows) + 1, self.high)
        return np.full(len(rows), self.high if self.does == "objects" else self.low)


class Broken:
    """A model that breaks in one way or another."""

    def __init__(self, does: str) -> None:
        self.does = does

    async def predict(self, inputs: Tensors, /) -> Tensors:
        n = len(inputs["attributes"])
        if self.does == "nan":
            return {"probabilities": np.full((n, 26), np.nan, np.float32)}
        if self.does == "misnamed":
            return {WORD: np.zeros((n, 26), np.float32)}
        raise QuetzalError


class BrokenReview:
    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        raise QuetzalError


does = st.sampled_from(["allows", "objects", "raises", "nan", "misshapen", "hangs"])
verdict = st.sampled_from([Verdict.DEGRADE, Verdict.DEFER, Verdict.REFUSE])


@st.composite
def guards(draw: st.DrawFn) -> tuple[Stage[Batch], ...]:
    made = []
    for i in range(draw(st.integers(0, 3))):
        guard = Canary[Batch](draw(does), LOW, HIGH)
        on_error = draw(st.sampled_from(list(Verdict)))
        reason = draw(st.sampled_from([Reason.ABSTAINED, Reason.RATE_LIMITED]))
        enforce = draw(st.booleans())
        made.append(
            Stage(f"{WORD}_guard_{i}", guard, {draw(verdict): CUT}, reason, HANGS_S, on_error, enforce)
        )
    return tuple(made)


@st.composite
def checks(draw: st.DrawFn) -> tuple[Stage[Answered], ...]:
    check = Canary[Answered](draw(does), CHECK_LOW, CHECK_HIGH)
    on_error = draw(st.sampled_from([Verdict.ALLOW, Verdict.DEGRADE]))
    name = f"{WORD}_check"
    return (Stage(name, check, {Verdict.DEGRADE: CHECK_CUT}, Reason.ABSTAINED, HANGS_S, on_error),)


models = st.sampled_from([None, None, Broken("raises"), Broken("nan"), Broken("misnamed"), Raises()])


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    folder = letters(tmp_path_factory.mktemp(WORD), FULL_RATE)
    keys = {"ada": key_for(folder, "ada"), "bob": key_for(folder, "bob", "anonymous")}
    with plane_of(folder, **keys) as made:
        yield made


def seed(
    plane: PlaneFixture,
    guards_: tuple[Stage[Batch], ...],
    checks_: tuple[Stage[Answered], ...],
    broken: Sequence[Predictor | None],
    review: bool,
) -> None:
    """Puts the canaries into the pipeline in force."""
    pipeline = plane.gateway.loaded.pipeline
    rungs = [
        replace(rung, model=replace(rung.model, predictor=one or rung.model.predictor), checks=checks_)
        for rung, one in zip(pipeline.rungs, broken, strict=True)
    ]
    pipeline = replace(pipeline, guards=guards_, rungs=tuple(rungs))
    if not review:
        pipeline = replace(pipeline, review=BrokenReview())
    plane.gateway.loaded = replace(plane.gateway.loaded, pipeline=pipeline)


def nothing_told(*parts: bytes) -> None:
    """Searches what left for the word, and for every number in any form that it may take."""
    blob = b"\n".join(parts)
    assert WORD.encode() not in blob.lower()
    for number in NUMBERS:
        texts = {repr(number), f"{number:.3f}", f"{number:.2f}", f"{number:.7g}", str(np.float32(number))}
        forms = [*(text.encode() for text in texts), struct.pack("<d", number), struct.pack("<f", number)]
        assert not [form for form in forms if form in blob], number


def seen(reply: ClientReply) -> None:
    body = gzip.decompress(reply.body) if reply.headers.get("content-encoding") == "gzip" else reply.body
    nothing_told(*(f"{name}: {value}".encode() for name, value in reply.headers.items()), body)


async def ask_http(plane: PlaneFixture) -> None:
    x = np.concatenate([plane.good[:2], plane.strange[:1]])
    for client in (plane.ada, plane.client(plane.keys["bob"])):
        for binary in (False, True):
            reply = await client.infer(x, {"accept-encoding": "gzip"}, binary=binary)
            seen(reply)
        partial = await client.infer(x, outputs=[{"name": "probabilities"}, {"name": "fs_row_outcome"}])
        seen(partial)
        seen(await client.infer(x[:1], {"prefer": "wait=0, respond-async"}))
        id_ = partial.parameters["fs_decision_id"]
        for path in (
            f"/decisions/{id_}",
            f"/reviews/{id_}.0",
            f"/reviews/{WORD[:3]}",
            "/v2/models/letters/stats",
        ):
            seen(await client.get(path))
    for body in (b"{", b"[" * 10_000, request_of(x[:, :3])[0], b"x" * 10_000_000):
        seen(await plane.ada.post(body))
    seen(await plane.client("fsg_wrong").request("POST", INFER, request_of(x)[0]))
    seen(await plane.ada.get("/v2/models/other"))


async def ask_grpc(plane: PlaneFixture) -> None:
    x = np.concatenate([plane.good[:2], plane.strange[:1]])
    async with grpc_client(plane, None) as client:
        for key in (plane.keys["ada"], plane.keys["bob"], "fsg_wrong"):
            for raw in (False, True):
                for outputs in ((), ("probabilities", "fs_row_outcome")):
                    await ask_one(client, message_of(x, raw, outputs), key)


async def ask_one(client: GrpcClient, message: Any, key: str) -> str:
    result = await client(METHOD, message, [("x-api-key", key)])
    nothing_told(
        result.code.encode(), result.error.encode(), repr(result.trailers).encode(), result.message or b""
    )
    return result.code


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(guards(), checks(), st.tuples(models, models), st.booleans())
def test_whatever_happens_inside_nothing_that_leaves_tells_of_it(
    plane: PlaneFixture,
    guards_: tuple[Stage[Batch], ...],
    checks_: tuple[Stage[Answered], ...],
    broken: tuple[Predictor | None, Predictor | None],
    review: bool,
) -> None:
    before = plane.gateway.loaded
    seed(plane, guards_, checks_, broken, review)
    try:
        plane.run(lambda: ask_http(plane))
        plane.run(lambda: ask_grpc(plane))
    finally:
        plane.gateway.loaded = before


def test_a_defect_of_the_gateway_is_not_disclosed(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise QuetzalError

    monkeypatch.setattr(plane.gateway, "decide", broken)

    async def main() -> None:
        async with grpc_client(plane, None) as client:
            code = await ask_one(client, message_of(plane.good[:1]), plane.keys["ada"])
        assert code == "RESOURCE_EXHAUSTED"

    plane.run(main)


def test_the_search_would_find_each_of_the_canaries() -> None:
    for part in (f"{WORD.upper()} broke".encode(), str(QuetzalError()).encode(), struct.pack("<d", CUT)):
        with pytest.raises(AssertionError):
            nothing_told(part)


def test_the_canaries_reach_operators(plane: PlaneFixture, tmp_path: Path) -> None:
    before = plane.gateway.loaded
    guard = Stage(
        f"{WORD}_guard",
        Canary[Batch]("objects", LOW, HIGH),
        {Verdict.DEFER: CUT},
        Reason.ABSTAINED,
        1.0,
        Verdict.DEFER,
    )
    seed(plane, (guard,), (), (None, None), review=True)
    try:

        async def main() -> None:
            with plane.recorded() as records:
                await plane.ada.infer(plane.good[:1])
            (finding,) = [f for f in records[0].decisions[0].findings if f.stage == guard.name]
            assert finding.score == HIGH

        plane.run(main)
    finally:
        plane.gateway.loaded = before
