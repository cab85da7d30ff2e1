"""Models in the confined process: what is out of memory, time or its mind is refused, in words."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from gateway.airlock.admit import refused
from gateway.airlock.passed import PASSED_FILE, key_of, read_passed, record_passed
from gateway.airlock.process import run_trials, stop_trials
from gateway.airlock.request import ModelTrial, to_json
from tests.support.hostile_models import (
    FLOAT,
    INT64,
    answers,
    constant,
    growing,
    harmless,
    looping,
    model,
    node,
    value,
)

MEMORY_MIB = 512
LIBRARIES_MIB = 300
"""More than numpy, onnx and onnxruntime take before a model is opened: about 120."""


def trial_of(folder: Path, made: ModelProto | bytes, name: str = "model.onnx") -> ModelTrial:
    content = made if isinstance(made, bytes) else made.SerializeToString()
    path = folder / name
    path.write_bytes(content)
    return ModelTrial(
        path=f"shown/{name}",
        file=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        names={},
        row_shapes={},
        max_rows=8,
        rows="",
        rows_sha256="",
        budget_s=0.1,
        memory_mib=MEMORY_MIB,
    )


def slow() -> ModelProto:
    """Multiplies large matrices, one after the other, for minutes."""
    large = [node("ConstantOfShape", ["sizes"], ["a0"]), node("ReduceMax", ["x"], ["most"], keepdims=0)]
    nodes = [*large, node("Add", ["a0", "most"], ["a"]), node("MatMul", ["a", "a"], ["m0"])]
    nodes += [node("MatMul", [f"m{i}", "a"], [f"m{i + 1}"]) for i in range(300)]
    nodes += [node("ReduceMean", ["m300"], ["s"], keepdims=0)]
    return model([*nodes, *answers(plus="s")], constant("sizes", np.array([3000, 3000], np.int64)))


def fat() -> ModelProto:
    """Besides its answer, gives 400 MB a row."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Mul", ["shape", "times"], ["sizes"]),
        node("ConstantOfShape", ["sizes"], ["fat"]),
        *answers(),
    ]
    outputs = [value("y", FLOAT, ["n", 3]), value("fat", FLOAT, ["n", "m"])]
    return model(nodes, constant("times", np.array([1, 25_000_000], np.int64)), outputs=outputs)


def with_shape_product() -> ModelProto:
    """As large as the sizes of its input, multiplied."""
    shaped = [node("Shape", ["x"], ["shape"]), node("Mul", ["shape", "times"], ["sizes"])]
    return growing(shaped, constant("times", np.array([10**5, 2**14], np.int64)))


def patient_loop() -> ModelProto:
    """As many rounds as a model may have, each a loop of as many."""
    return looping([], constant("rounds", np.int64(100_000)))


REFUSED: dict[str, tuple[Callable[[], ModelProto | bytes], str]] = {
    "a constant of 40 GB": (
        lambda: growing([], constant("sizes", np.array([10**10], np.int64))),
        f"takes more than {MEMORY_MIB} MiB",
    ),
    "sizes that multiply": (with_shape_product, f"takes more than {MEMORY_MIB} MiB"),
    "an output of 400 MB a row": (fat, f"takes more than {MEMORY_MIB} MiB"),
    "minutes of matrices": (slow, "computes longer than"),
    "a pickle": (lambda: b"\x80\x04\x95", "a pickle"),
    "onnxruntime's own format": (lambda: b"\x18\0\0\0ORTM" + b"\0" * 64, "onnxruntime's own format"),
    "a later IR version": (lambda: model(answers(), ir=99), "has IR version 99"),
    "weights elsewhere": (lambda: with_external_weights(), "keeps weights in another file"),
    "a name that is not text": (
        lambda: harmless().SerializeToString().replace(b"z0", b"\xff\xfe"),
        "not UTF-8",
    ),
}


def with_external_weights() -> ModelProto:
    found = harmless()
    weights = found.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = weights.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../outside.bin"
    return found


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(tmp_path: Path, case: str) -> None:
    make, told = REFUSED[case]
    (problems,) = run_trials([trial_of(tmp_path, make())]).values()
    assert len(problems) == 1
    assert problems[0].startswith("shown/model.onnx: ")
    assert told in problems[0]


def two_inputs() -> ModelProto:
    nodes = [node("Cast", ["i"], ["f"], to=FLOAT), node("Add", ["x", "f"], ["x1"]), *answers("x1")]
    return model(nodes, inputs=[value("x", FLOAT, ["n", 4]), value("i", INT64, ["n", 1])])


TAKEN: dict[str, Callable[[], ModelProto]] = {
    "a plain model": harmless,
    "a loop of many rounds": patient_loop,
    "inputs of two types": two_inputs,
    "a fixed batch": lambda: model(
        answers(), inputs=[value("x", FLOAT, [1, 4])], outputs=[value("y", FLOAT, [1, 3])]
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_takes(tmp_path: Path, case: str) -> None:
    assert run_trials([trial_of(tmp_path, TAKEN[case]())]) == {}


def test_one_that_ends_its_process_does_not_hide_what_is_wrong_with_the_next(tmp_path: Path) -> None:
    trials = [
        trial_of(tmp_path, harmless(), "a.onnx"),
        trial_of(tmp_path, slow(), "b.onnx"),
        trial_of(tmp_path, harmless(), "c.onnx"),
        trial_of(tmp_path, b"", "d.onnx"),
    ]
    found = run_trials(trials)
    assert found.keys() == {1, 3}
    assert "computes longer than" in found[1][0]
    assert "is empty" in found[3][0]


def test_bytes_other_than_those_that_will_be_loaded_are_refused(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, harmless())
    (tmp_path / "model.onnx").write_bytes(slow().SerializeToString())
    (problems,) = run_trials([trial]).values()
    assert "changed while it was read" in problems[0]


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    trial = trial_of(tmp_path, harmless())
    path = tmp_path / "model.onnx"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    (problems,) = run_trials([trial]).values()
    assert "not a regular file" in problems[0] or "cannot be read" in problems[0]


def test_variables_and_folders_of_ours_do_not_reach_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables or a module in the working directory that break Python would end it."""
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "onnx.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert run_trials([trial_of(tmp_path, harmless())]) == {}


def test_trials_end_when_the_gateway_is_stopped(tmp_path: Path) -> None:
    raised: list[OSError] = []

    def try_slow() -> None:
        try:
            run_trials([replace(trial_of(tmp_path, slow()), budget_s=1000.0)])
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=try_slow)
    thread.start()
    while thread.is_alive():
        stop_trials()
        time.sleep(0.05)
    assert "being stopped" in str(raised[0])
    assert run_trials([trial_of(tmp_path, harmless())]) == {}, "a later trial is one like any other"


def test_no_trial_takes_more_memory_than_its_limit_and_its_libraries(tmp_path: Path) -> None:
    """Measured by the kernel, in a process that has had no other child."""
    trials = [trial_of(tmp_path, make(), f"{i}.onnx") for i, make in enumerate((fat, with_shape_product))]
    code = "import resource, sys; from gateway.airlock.process import run_trials; "
    code += "from gateway.airlock.request import from_json; run_trials(from_json(sys.stdin.buffer.read())); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
    peak_mib = int(
        subprocess.run(
            [sys.executable, "-c", code], input=to_json(trials), capture_output=True, check=True
        ).stdout
    )
    assert peak_mib < MEMORY_MIB + LIBRARIES_MIB


# ---------------------------------------------------------------- what has passed before


def test_what_passed_is_not_tried_again_and_what_was_refused_is(tmp_path: Path) -> None:
    good, bad = (
        trial_of(tmp_path, harmless(), "a.onnx"),
        trial_of(tmp_path, with_external_weights(), "b.onnx"),
    )
    assert refused([good, bad], None).keys() == {1}
    Path(good.file).unlink()  # a trial would miss it
    assert refused([good, bad], None).keys() == {1}


@pytest.mark.parametrize(
    "change",
    [{"max_rows": 9}, {"memory_mib": 600}, {"budget_s": 0.2}, {"names": {"p": "y"}}, {"sha256": "0" * 64}],
)
def test_another_limit_or_file_is_tried_again(tmp_path: Path, change: dict[str, Any]) -> None:
    trial = trial_of(tmp_path, harmless())
    assert refused([trial], None) == {}
    Path(trial.file).unlink()
    assert refused([trial], None) == {}
    assert refused([replace(trial, **change)], None).keys() == {0}


def remembering(tmp_path: Path, rows: int) -> ModelTrial:
    """A trial that no other test makes, after it has passed with `tmp_path` as the folder for state."""
    trial = replace(trial_of(tmp_path, harmless()), max_rows=rows)
    assert refused([trial], tmp_path) == {}
    return trial


def test_a_later_process_knows_what_passed(tmp_path: Path) -> None:
    trial = remembering(tmp_path, 11)
    assert read_passed(tmp_path) == [key_of(trial)]
    assert (tmp_path / PASSED_FILE).stat().st_mode & 0o777 == 0o600
    code = "import sys; from pathlib import Path; from gateway.airlock.admit import refused; "
    code += "from gateway.airlock.request import from_json; "
    code += "print(refused(from_json(sys.stdin.buffer.read()), Path(sys.argv[1])))"
    Path(trial.file).unlink()
    told = [
        subprocess.run(
            [sys.executable, "-c", code, str(state)], input=to_json([trial]), capture_output=True, check=True
        ).stdout
        for state in (tmp_path, tmp_path / "other")
    ]
    assert told[0] == b"{}\n"
    assert b"cannot be read" in told[1]


def test_a_list_that_others_may_write_does_not_count(tmp_path: Path) -> None:
    remembering(tmp_path, 12)
    (tmp_path / PASSED_FILE).chmod(0o666)
    assert read_passed(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"7", b"[1, null]", b"\xff" * 4_000_000])
def test_a_damaged_list_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PASSED_FILE).write_bytes(content)
    record_passed(tmp_path, ["a"])
    assert read_passed(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_next_trial(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert refused([replace(trial_of(tmp_path, harmless()), max_rows=13)], tmp_path / "state") == {}
