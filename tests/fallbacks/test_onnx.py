"""ONNX models: only what was hashed is loaded, and a hung run blocks neither the loop nor a core."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fallbacks import worker_with_spares
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor
from fallbacks.regular_file import read_regular
from tests.fallbacks.conftest import Load
from tests.support.onnx_bytes import classifier, external, identity, loop, model, node, not_a_number, value

F4 = np.dtype(np.float32)
RNG = np.random.default_rng(7)
W, B = RNG.normal(size=(4, 3)).astype(F4), RNG.normal(size=3).astype(F4)
FOREVER = {"x": np.full((1, 3), 1e18, F4)}
QUICK = {"x": np.full((1, 3), 5, F4)}


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


async def patiently(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Asks again while the model is busy with an abandoned run; ten seconds at most."""
    until_s = time.monotonic() + 10
    while True:
        try:
            return await ask()
        except RuntimeError as error:
            if "still busy" not in str(error) or time.monotonic() > until_s:
                raise
        await asyncio.sleep(0.005)


def test_answers_what_numpy_answers(load: Load) -> None:
    one = load(classifier(W, B))
    x = RNG.normal(size=(5, 4)).astype(F4)
    logits = x @ W + B
    odds = np.exp(logits - logits.max(1, keepdims=True))

    async def scene() -> None:
        got = await one.predict({"x": x})
        assert list(got) == ["probabilities", "logits"]
        np.testing.assert_allclose(got["logits"], logits, rtol=1e-5)
        np.testing.assert_allclose(got["probabilities"], odds / odds.sum(1, keepdims=True), rtol=1e-5)

    run(scene())


def test_declares_its_inputs_outputs_and_digest(load: Load) -> None:
    content = classifier(W, B)
    one = load(content)
    assert one.digest == hashlib.sha256(content).hexdigest()
    assert one.inputs == (ModelTensor("x", F4, (None, 4)),)
    assert one.outputs == (ModelTensor("probabilities", F4, (None, 3)), ModelTensor("logits", F4, (None, 3)))


def test_keeps_answering_from_the_bytes_it_hashed_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(identity())
    one = OnnxModel.load(path)
    path.write_bytes(not_a_number())
    assert (one.run(QUICK)["y"] == QUICK["x"]).all()
    one.close()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_canary_of_every_dtype_goes_through(load: Load, dtype: Any) -> None:
    one = load(identity(("n", "m", 2), dtype))
    canary = one.canary(3)
    assert one.inputs[0].shape == (None, None, 2)
    assert (canary["x"].shape, canary["x"].dtype) == ((3, 1, 2), np.dtype(dtype))
    back = one.run(canary)["y"]
    assert (back.shape, back.dtype) == ((3, 1, 2), np.dtype(dtype))


def test_runs_a_data_set_in_chunks_like_one_batch(load: Load) -> None:
    one = load(classifier(W, B))
    x = RNG.normal(size=(1000, 4)).astype(F4)
    whole, parts = one.run({"x": x}, chunk=1000), one.run({"x": x}, chunk=7)
    assert all((whole[name] == parts[name]).all() for name in whole)
    assert one.run({"x": x[:0]})["logits"].shape == (0, 3)


def test_inputs_of_different_lengths_are_not_run(load: Load) -> None:
    add = model(
        [node("Concat", ["a", "b"], ["y"], axis=0)],
        inputs=[value("a", F4, ("n", 1)), value("b", F4, ("k", 1))],
        outputs=[value("y", F4, ("m", 1))],
    )
    with pytest.raises(ValueError, match=r"inputs of \[1, 2\] rows"):
        load(add).run({"a": np.zeros((1, 1), F4), "b": np.zeros((2, 1), F4)})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros((1, 3))}, "float64, not float32"),
        ({"x": np.zeros((1, 3), ">f4")}, ">f4, not float32"),
        ({"x": np.zeros((1, 4), F4)}, "Got: 4 Expected: 3"),
        ({"x": np.zeros(3, F4)}, "Invalid rank"),
    ],
)
def test_inputs_that_do_not_fit_raise(load: Load, inputs: dict[str, Any], says: str) -> None:
    one = load(identity())
    with pytest.raises(Exception, match=says):
        run(one.predict(inputs))  # type: ignore[arg-type]
    with pytest.raises(Exception, match=says):
        one.run(inputs)


def test_inputs_of_other_models_are_ignored_and_views_are_read_right(load: Load) -> None:
    one = load(identity())
    x = np.arange(6, dtype=F4).reshape(3, 2).T

    async def scene() -> None:
        got = await one.predict({"x": x, "other": np.zeros(1)})
        assert (got["y"] == x).all()

    run(scene())


def test_nan_outputs_are_returned_unchanged(load: Load) -> None:
    async def scene() -> None:
        assert np.isnan((await one.predict(QUICK))["y"]).all()

    one = load(not_a_number())
    run(scene())


def test_concurrent_calls_each_get_their_own_answer(load: Load) -> None:
    one = load(identity())

    async def scene() -> None:
        asked = [{"x": np.full((1, 3), i, F4)} for i in range(200)]
        got = await asyncio.gather(*map(one.predict, asked))
        assert [int(each["y"][0, 0]) for each in got] == list(range(200))

    run(scene())


def test_hung_run_is_stopped_on_timeout_while_the_loop_keeps_running(load: Load) -> None:
    one = load(loop())

    async def scene() -> None:
        assert (await one.predict(QUICK))["y"][0, 0] == 10
        longest_s, ticks = 0.0, 0

        async def heartbeat() -> None:
            nonlocal longest_s, ticks
            while True:
                start_s = time.perf_counter()
                await asyncio.sleep(0.001)
                longest_s, ticks = max(longest_s, time.perf_counter() - start_s), ticks + 1

        heartbeats = asyncio.ensure_future(heartbeat())
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await one.predict(FOREVER)
            assert (await patiently(lambda: one.predict(QUICK)))["y"][0, 0] == 10
        heartbeats.cancel()
        assert ticks > 20
        assert longest_s < 0.5

    run(scene())


class Deaf:
    """A session whose run cannot be stopped, like one inside a single huge operator."""

    def __init__(self) -> None:
        self.entered, self.let_go, self.runs = threading.Event(), threading.Event(), 0

    def run(self, names: list[str], feed: Any, options: Any) -> list[Any]:
        self.runs += 1
        self.entered.set()
        assert self.let_go.wait(10)
        return [feed["x"]]


@contextmanager
def deafened(one: OnnxModel) -> Iterator[Deaf]:
    session, one._session = one._session, Deaf()
    try:
        yield one._session
    finally:
        one._session.let_go.set()
        one._session = session


def test_refuses_at_once_while_a_cancelled_run_occupies_the_thread_and_answers_again_after(
    load: Load,
) -> None:
    one = load(identity())

    async def scene() -> None:
        with deafened(one) as deaf:
            call = asyncio.ensure_future(one.predict(QUICK))
            queued = asyncio.ensure_future(one.predict(QUICK))
            await asyncio.sleep(0)
            assert deaf.entered.wait(10)
            for task in (call, queued):
                task.cancel()
            await asyncio.gather(call, queued, return_exceptions=True)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="still busy with an abandoned run"):
                    await one.predict(QUICK)
        assert (await patiently(lambda: one.predict(QUICK)))["y"][0, 0] == 5
        assert deaf.runs == 1

    run(scene())


def test_one_operator_that_does_not_end_costs_its_row_alone(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_with_spares, "GIVE_UP_S", 0.05)
    one = load(square())
    long = {"x": np.ones((1, 4000, 4000))}  # several seconds in one multiplication, which nothing stops

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await one.predict(long)
        assert (await patiently(lambda: one.predict({"x": np.ones((1, 2, 2))})))["y"].sum() == 8
        assert one._workers._given_up[0].stuck, "it was answered beside the one that hangs"
        assert not one.lost

    run(scene())


def square() -> bytes:
    """x x, of one matrix a row: in a single operator."""
    shape = ("n", "k", "k")
    return model(
        [node("MatMul", ["x", "x"], ["y"])],
        inputs=[value("x", np.float64, shape)],
        outputs=[value("y", np.float64, shape)],
    )


def test_closed_model_refuses_and_closing_stops_a_hung_run(load: Load) -> None:
    one = load(loop())

    async def scene() -> None:
        hung = asyncio.ensure_future(one.predict(FOREVER))
        await asyncio.sleep(0.05)
        one.close()
        with pytest.raises(Exception, match="terminate flag"):
            await hung
        with pytest.raises(RuntimeError, match="closed"):
            await one.predict(QUICK)
        one.close()

    run(scene())


def test_interpreter_ends_cleanly_while_a_model_hangs(tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    path.write_bytes(loop())
    script = """
import asyncio, sys
import numpy as np
from fallbacks.onnx import OnnxModel
model = OnnxModel.load(sys.argv[1])
async def main():
    asyncio.ensure_future(model.predict({"x": np.full((1, 3), 1e18, np.float32)}))
    await asyncio.sleep(0.05)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


NO_INPUT = model([node("Constant", [], ["y"], value_int=1)], inputs=[], outputs=[value("y", np.int64, ())])
SEQUENCE = helper.make_model(
    helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
    ir_version=9,
).SerializeToString()
ONE_NUMBER = model(
    [node("ReduceMax", ["x"], ["y"], keepdims=0)],
    inputs=[value("x", F4, ("n", 3))],
    outputs=[value("y", F4, ())],
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(identity((0, 3)), "'x' has a fixed batch of 0; export", id="a batch of nothing"),
        pytest.param(identity(()), "'x' is a scalar", id="scalar input"),
        pytest.param(ONE_NUMBER, "'y' is a scalar", id="scalar output"),
        pytest.param(NO_INPUT, "no input", id="no input"),
        pytest.param(SEQUENCE, r"'y' is seq\(tensor\(float\)\); export plain", id="a sequence"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as refused:
        OnnxModel.load(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_what_is_no_regular_file_or_too_large_is_refused(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b"x" * 11)
    for path, says in [
        (tmp_path / "none", "cannot be read"),
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (large, "11 bytes, over the 10 allowed"),
    ]:
        with pytest.raises(ValueError, match=says):
            read_regular(path, 10, "give less")
    assert read_regular(large, 11, "give less") == b"x" * 11
    with pytest.raises(ValueError, match="0 threads"):
        OnnxModel.load(large, threads=0)


def with_weights_outside(location: str, **where: str) -> bytes:
    return model(
        [node("Gather", ["w", "x"], ["y"])],
        inputs=[value("x", np.int64, ("n",))],
        outputs=[value("y", F4, ("n", 400))],
        weights=[external("w", (4, 400), location=location, **where)],
    )


def test_weights_outside_the_file_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = np.arange(1600, dtype=F4)
    weights.tofile("w.bin")
    Path("m.onnx").write_bytes(with_weights_outside("w.bin"))
    session = onnxruntime.InferenceSession(with_weights_outside("w.bin"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([1])})[0][0, 0] == 400, "onnxruntime alone does read them"
    with pytest.raises(ValueError, match="weights inside"):
        OnnxModel.load("m.onnx")
    address = str(weights.ctypes.data)
    for location in (str(tmp_path / "w.bin"), "../w.bin", "*/_ORT_MEM_ADDR_/*"):
        Path("m.onnx").write_bytes(with_weights_outside(location, offset=address, length="6400"))
        with pytest.raises(ValueError, match="weights inside"):
            OnnxModel.load("m.onnx")
