"""Every datatype of the protocol end to end: a calibrated deployment, HTTP, and review."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fallbacks.breaker import BreakerState
from fallbacks.oip.payload import decode
from gateway.protocol.contract import MAX_BODY_BYTES
from tests.support.data_planes import ClientReply
from tests.support.deployments import run
from tests.support.typed import (
    INFER,
    Sent,
    Typed,
    deployed,
    held_out,
    packed,
    request_of,
    same,
    tensors_of,
    typed,
)
from tests.support.typed_models import (
    DATATYPES,
    half,
    long_rows,
    one_input,
    own_run,
    rows,
    texts,
    three_inputs,
)

EVERY = pytest.mark.parametrize("datatype", DATATYPES)
UNSURE = pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BOOL"])
"""Those of which a model can be unsure here."""
Folders = dict[str, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """One calibrated deployment a datatype, made when it is first asked for."""

    class Made(Folders):
        def __missing__(self, datatype: str) -> Path:
            folder = tmp_path_factory.mktemp(datatype) / "typed"
            self[datatype] = deployed(folder, one_input(datatype), ["y", "probabilities"], held_out(datatype))
            return self[datatype]

    return Made()


def asked(*names: str, **parameters: Any) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": parameters} for name in names]


@EVERY
def test_answers_are_bit_for_bit_those_of_onnxruntime_in_json_and_binary(
    folders: Folders, datatype: str
) -> None:
    x = rows(datatype, 7, seed=1)
    wanted = own_run(one_input(datatype), {"x": (datatype, x)})
    text = DATATYPES[datatype].json

    async def main() -> None:
        async with typed(folders[datatype]) as to:
            for binary in (False, True) if text else (True,):
                sent = {"x": Sent(datatype, x, binary)}
                for out in (False, True):
                    reply = await to.ask(sent, parameters={"binary_data_output": out})
                    same(tensors_of(reply), wanted)
                    assert reply.parameters["fs_outcome"] == "served"
                mixed = [*asked("probabilities", binary_data=True), *asked("y", binary_data=False)]
                same(tensors_of(await to.ask(sent, outputs=mixed)), dict(reversed(wanted.items())))
            if not text:
                refused = await to.ada.request("POST", INFER, *request_of({"x": Sent(datatype, x, False)}))
                assert refused.status == 400
                assert "binary only" in refused.json["error"]

    run(main)


@EVERY
def test_a_raw_request_is_the_data_of_the_input_and_nothing_else(folders: Folders, datatype: str) -> None:
    n = 1 if datatype == "BYTES" else 5
    x = texts("jä 🙂".encode()).reshape(1, 1) if datatype == "BYTES" else rows(datatype, n, seed=2)
    body = b"".join(x.flat) if datatype == "BYTES" else packed(datatype, x)

    async def main() -> None:
        async with typed(folders[datatype]) as to:
            raw = {"Inference-Header-Content-Length": "0"}
            reply = await to.ada.request("POST", INFER, body, raw)
            same(tensors_of(reply), own_run(one_input(datatype), {"x": (datatype, x)}))

    run(main)


@EVERY
def test_requests_that_share_a_batch_each_get_their_own_rows(folders: Folders, datatype: str) -> None:
    async def main() -> None:
        async with typed(folders[datatype]) as to:
            xs = [rows(datatype, 1 + seed % 4, seed) for seed in range(12)]
            replies = await asyncio.gather(
                *(to.ask({"x": Sent(datatype, x, True)}, parameters={"binary_data_output": True}) for x in xs)
            )
            for x, reply in zip(xs, replies, strict=True):
                same(tensors_of(reply), own_run(one_input(datatype), {"x": (datatype, x)}))

    run(main)


@EVERY
def test_classification_names_the_largest_value_and_its_place(folders: Folders, datatype: str) -> None:
    x = rows(datatype, 4, seed=3)
    answers = own_run(one_input(datatype), {"x": (datatype, x)})
    top = answers["probabilities"].argmax(1)

    async def main() -> None:
        async with typed(folders[datatype]) as to:
            sent = {"x": Sent(datatype, x, True)}
            for binary in (False, True):
                wanted = asked("probabilities", classification=1, binary_data=binary)
                found = tensors_of(await to.ask(sent, outputs=wanted))["probabilities"]
                assert found[:, 0].tolist() == [f"{np.float32(1.0)!s}:{i}".encode() for i in top]
            reply = await to.ask(sent, outputs=asked("y", classification=2, binary_data=False))
            if DATATYPES[datatype].dtype.kind in "Ob":
                assert reply.status == 400
            else:
                first = tensors_of(reply)["y"][:, 0]
                best = answers["y"].argmax(1)
                assert [int(item.split(b":")[1]) for item in first] == best.tolist()

    run(main)


@UNSURE
def test_a_row_that_is_withheld_is_blank_among_its_neighbours(folders: Folders, datatype: str) -> None:
    x = np.concatenate([rows(datatype, 1, 4), rows(datatype, 1, unsure=True), rows(datatype, 1, 5)])
    wanted = own_run(one_input(datatype), {"x": (datatype, x)})

    async def main() -> None:
        async with typed(folders[datatype]) as to:
            sent = {"x": Sent(datatype, x, True)}
            outputs = [
                *asked("y", "probabilities", binary_data=True),
                *asked("fs_row_outcome", binary_data=False),
            ]
            found = tensors_of(await to.ask(sent, outputs=outputs))
            assert found["fs_row_outcome"].tolist() == [b"served", b"deferred", b"served"]
            for name in ("y", "probabilities"):
                assert packed_rows(found[name][[0, 2]]) == packed_rows(wanted[name][[0, 2]])
                assert all(blank(value) for value in found[name][1].tolist())
            reply = await to.ask(sent, outputs=asked("y", "fs_row_outcome", binary_data=False))
            flat = reply.json["outputs"][0]["data"]
            assert [value is None for value in flat] == [False] * x.shape[1] + [True] * x.shape[1] + [
                False
            ] * x.shape[1]

    run(main)


def packed_rows(array: Any) -> Any:
    return array.tolist() if array.dtype == object else array.tobytes()


def blank(value: object) -> bool:
    """NaN, a type's least value, or empty."""
    least = [0, *(-(2**bits) for bits in (7, 15, 31, 63))]
    return value == b"" or value in least or value != value


async def deferred(to: Typed, sent: Sent) -> str:
    """The id of the case that one row has become."""
    reply = await to.ask({"x": sent})
    assert (reply.status, reply.parameters["fs_outcome"]) == (422, "deferred")
    id_ = reply.parameters["fs_decision_id"]
    assert isinstance(id_, str)
    return id_


def blank_of(datatype: str) -> Any:
    """The blank value of a datatype in JSON."""
    kind = DATATYPES[datatype].dtype.kind
    if kind in "iu":
        return int(np.iinfo(DATATYPES[datatype].dtype).min)
    return {"f": None, "b": False, "O": ""}[kind]


@UNSURE
def test_a_deferred_row_is_stored_displayed_and_answered(folders: Folders, datatype: str) -> None:
    x = rows(datatype, 1, seed=6, unsure=True)

    async def main() -> None:
        async with typed(folders[datatype]) as to:
            ticket = await deferred(to, Sent(datatype, x, True))
            case = (await to.admin.get(f"/review/{ticket}")).json()["id"]  # an equal row may wait already
            same(decode(await to.review.store.payload(case) or b""), {"x": x})
            assert case in await to.page("/review")
            shown = (await to.admin.get(f"/review/{case}")).json()["shown"]
            assert [one["kind"] for one in shown] == ["text" if datatype == "BYTES" else "row"]
            assert ("perhaps" if datatype == "BYTES" else "50") in await to.page(f"/review/{case}")
            held = (await to.admin.post("/review/claim", json={"reviewer": "grace"})).json()
            while held["id"] != case:
                held = (await to.admin.post("/review/claim", json={"reviewer": "grace"})).json()
            answer = {"fence": held["fence"], "reviewer": "grace", "label": 1}
            assert (await to.admin.post(f"/review/{case}/answer", json=answer)).status_code == 200
            document = (await to.ada.get(f"/reviews/{ticket}")).json
            outputs = {one["name"]: one for one in document["answer"]["outputs"]}
            assert outputs["y"]["datatype"] == datatype
            assert outputs["probabilities"]["data"] == [0, 1]
            assert set(outputs["y"]["data"]) == {blank_of(datatype)}, "the answer does not determine it"

    run(main)


@pytest.mark.parametrize("datatype", ["BF16", "INT64"])
def test_the_longest_row_that_can_be_asked_can_be_deferred(tmp_path: Path, datatype: str) -> None:
    """It takes more room in the queue than in the request: twice as much as BF16, four times as JSON."""
    folder = deployed(tmp_path, long_rows(datatype), ["probabilities"], held_out(datatype))
    longest = 2**22 - 500
    x = np.zeros((1, longest), DATATYPES[datatype].dtype)
    x[0, 0] = 50
    body, headers = request_of({"x": Sent(datatype, x, datatype == "BF16")})
    body = body.replace(b", 0", b",0")

    async def main() -> None:
        async with typed(folder) as to:
            assert MAX_BODY_BYTES - 1000 < len(body) <= MAX_BODY_BYTES
            reply = await to.ada.request("POST", INFER, body, headers)
            assert reply.parameters["fs_outcome"] == "deferred"
            case = reply.parameters["fs_decision_id"]
            same(decode(await to.review.store.payload(case) or b""), {"x": x})
            shown = (await to.admin.get(f"/review/{case}")).json()["shown"]
            assert shown[0]["facts"]["type"] == datatype

    run(main)


def test_bf16_is_shown_to_two_digits_as_bf16_can_hold_them(folders: Folders) -> None:
    x = (np.array([[0x42C8, 0x3E2B, 0x3E2C]], np.uint32) << 16).view(np.float32)  # 100, 0.167, 0.168

    async def main() -> None:
        async with typed(folders["BF16"]) as to:
            body, headers = request_of({"x": Sent("BF16", x, True)}, outputs=asked("y", binary_data=False))
            data = (await to.anonymous.request("POST", INFER, body, headers)).json["outputs"][0]["data"]
            half(np.array(data, np.float32))
            assert np.abs(np.array(data) - [100, 0.17, 0.17]).max() < 0.001

    run(main)


TEXTS = (b"", b"a\0b", b"\0", "🙂 jä ß".encode(), b"x" * 100_000, "\u202e\ufeff".encode(), b"b'a'", b"\\xff")


def test_any_text_is_returned_unchanged(folders: Folders) -> None:
    x = texts(*TEXTS).reshape(-1, 1)

    async def main() -> None:
        async with typed(folders["BYTES"]) as to:
            for binary in (False, True):
                found = tensors_of(await to.ask({"x": Sent("BYTES", x, binary)}, outputs=asked("y")))
                assert found["y"].tolist() == x.tolist()

    run(main)


BROKEN = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"ab\xe2\x82", b"\xc0\x80")


def test_bytes_that_are_no_text_are_named_to_their_caller_and_cost_the_model_nothing(
    folders: Folders,
) -> None:
    async def main() -> None:
        async with typed(folders["BYTES"]) as to:
            before = (await to.review.store.counts()).by_state
            for broken in BROKEN * 3:
                x = texts(b"no", broken, b"no").reshape(3, 1)
                outputs = asked("y", "fs_row_outcome", binary_data=True)
                reply = await to.ask({"x": Sent("BYTES", x, True)}, outputs=outputs)
                assert (reply.status, reply.parameters["fs_reason"]) == (400, "invalid")
                assert reply.json["error"] == "inputs[0].data: row 1: not UTF-8 text"
            assert (await to.review.store.counts()).by_state == before
            assert to.gateway.loaded.breakers["primary"].state is BreakerState.CLOSED
            good = await to.ask({"x": Sent("BYTES", texts(b"no").reshape(1, 1), True)})
            assert (good.parameters["fs_outcome"], good.parameters["fs_served_by"]) == ("served", "primary")

    run(main)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three inputs of different datatypes and ranks, three exposed outputs, and one that is not."""
    n = 1000
    total = np.where(np.arange(n) % 3 == 0, 50.0, np.arange(n) % 2 * 100.0)
    held = {
        "words": texts(*(b"w%d" % i for i in range(n))),
        "mask": np.arange(4 * n).reshape(n, 2, 2) % 3 == 0,
        "series": np.stack([total - 1, np.ones(n)], 1),
        "y": np.where(total == 50, np.arange(n) % 2, total > 50).astype(np.int64),
    }
    folder = tmp_path_factory.mktemp("several") / "typed"
    return deployed(folder, three_inputs(), ["said", "unmasked", "total"], held)


def parts(n: int, m: int, sure: bool = True) -> dict[str, tuple[str, Any]]:
    rng = np.random.default_rng(n * m)
    series = np.zeros((n, m))
    series[:, -1] = rng.integers(2, size=n) * 100 if sure else 50
    words = texts(*(f"wort {i} ß".encode() for i in range(n)))
    return {
        "words": ("BYTES", words),
        "mask": ("BOOL", rng.integers(2, size=(n, 2, 2)).astype(bool)),
        "series": ("FP64", series),
    }


@pytest.mark.parametrize("binary", [(), ("words",), ("mask", "series"), ("words", "mask", "series")])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (5, 7)])
def test_several_inputs_and_outputs_each_in_its_own_encoding(
    several: Path, binary: tuple[str, ...], n: int, m: int
) -> None:
    given = parts(n, m)
    wanted = {k: v for k, v in own_run(three_inputs(), given).items() if k != "probabilities"}
    sent = {name: Sent(kind, array, name in binary) for name, (kind, array) in given.items()}

    async def main() -> None:
        async with typed(several) as to:
            same(tensors_of(await to.ask(dict(reversed(sent.items())))), wanted)
            mixed = [*asked("total", binary_data=True), *asked("said", binary_data=False)]
            found = tensors_of(await to.ask(sent, outputs=mixed))
            same(found, {"total": wanted["total"], "said": wanted["said"]})
            hidden = await to.ask(sent, outputs=asked("probabilities"))
            assert hidden.status == 400

    run(main)


def test_rows_of_another_length_never_share_a_batch_and_all_are_answered(several: Path) -> None:
    async def main() -> None:
        async with typed(several) as to:
            given = [parts(2, m) for m in (1, 3, 1, 2, 3)]
            replies: list[ClientReply] = await asyncio.gather(
                *(to.ask({k: Sent(kind, a, True) for k, (kind, a) in one.items()}) for one in given)
            )
            for one, reply in zip(given, replies, strict=True):
                wanted = own_run(three_inputs(), one)
                del wanted["probabilities"]
                same(tensors_of(reply), wanted)

    run(main)


def test_a_deferred_row_of_several_inputs_is_stored_and_displayed_whole(several: Path) -> None:
    given = parts(1, 2, sure=False)

    async def main() -> None:
        async with typed(several) as to:
            reply = await to.ask({k: Sent(kind, a, True) for k, (kind, a) in given.items()})
            assert reply.parameters["fs_outcome"] == "deferred"
            case = reply.parameters["fs_decision_id"]
            kept = decode(await to.review.store.payload(case) or b"")
            same(kept, {name: array for name, (_, array) in given.items()})
            shown = (await to.admin.get(f"/review/{case}")).json()["shown"]
            assert [(one["name"], one["kind"]) for one in shown] == [("", "table"), ("mask", "summary")]
            columns = [(one["name"], one["value"]) for one in shown[0]["columns"]]
            assert columns == [("words", "wort 0 ß"), ("series[0]", "0"), ("series[1]", "50")]
            page = await to.page(f"/review/{case}")
            assert "wort 0 ß" in page
            assert "BOOL" in page
            listed = await to.page("/review")
            assert case in listed and "words wort 0 ß, series 0 50" in listed

    run(main)
