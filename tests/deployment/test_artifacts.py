"""Models, guards and certificate, loaded and held against each other; what does not fit is told at load."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import orjson
import pytest

from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.certificate import sha256
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import save_guards
from gateway.deployment.models import load_models
from gateway.protocol.contract import Contract
from gateway.serving.gateway import Gateway
from guards import arrays
from guards.ood import Ood
from guards.rows import Signals
from tests.support import onnx_bytes as onnx
from tests.support.deployments import CONFIGS, FILES, clean_rows, edit, letters

F4 = np.dtype(np.float32)


def loaded(folder: Path) -> Artifacts:
    artifacts = load_artifacts(Deployment.read(folder))
    artifacts.close()
    return artifacts


def contract_in(folder: Path) -> Contract:
    """The wire contract of a deployment whose models alone are looked at."""
    deployment = Deployment.read(folder)
    models = load_models(deployment, {})
    try:
        return contract_of(deployment, models)
    finally:
        for model in models.values():
            model.close()


def bind(folder: Path) -> None:
    """Makes the certificate speak of the models and guards of the folder, without calibration."""
    path = folder / "certificate.json"
    held = orjson.loads(path.read_bytes())
    held["digests"]["guards"] = sha256(folder / "guards.npz")
    held["digests"]["models"] = {
        "primary": sha256(folder / "primary.onnx"),
        "small": sha256(folder / "fallback.onnx"),
    }
    path.write_bytes(orjson.dumps(held))


def refused(folder: Path, error: type[Problems] = ArtifactError) -> tuple[Problem, ...]:
    with pytest.raises(error) as caught:
        Gateway.open(folder)
    return caught.value.problems


def table_model(
    inputs: str = "attributes", d: int = 16, k: int = 26, outputs: str = "probabilities"
) -> bytes:
    """A model of table rows: y = softmax(x W)."""
    return onnx.model(
        [onnx.node("MatMul", [inputs, "w"], ["z"]), onnx.node("Softmax", ["z"], [outputs], axis=1)],
        inputs=[onnx.value(inputs, np.float32, ("n", d))],
        outputs=[onnx.value(outputs, np.float32, ("n", k))],
        weights=[onnx.tensor("w", np.zeros((d, k), np.float32))],
    )


def test_everything_that_the_policy_names_is_loaded(tmp_path: Path) -> None:
    artifacts = loaded(letters(tmp_path))
    assert list(artifacts.models) == ["primary", "small"]
    assert set(artifacts.fitted.guards) == {"ood"}
    assert artifacts.fitted.guards["ood"].input_only is not None
    assert {name: model.digest for name, model in artifacts.models.items()} == dict(
        artifacts.certificate.digests.models
    )


def test_the_tag_names_the_policy_its_version_and_everything_that_decides(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    tag = loaded(folder).tag
    assert tag.startswith("letters@1#")
    assert len(tag) == len("letters@1#") + 12
    assert loaded(folder).tag == tag, "the same files give the same tag"
    edit(folder, ("capacity: *", "capacity: 10001"))
    assert loaded(folder).tag != tag
    edit(folder, ("capacity: *", "capacity: 10000"))
    path = folder / "certificate.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert loaded(folder).tag != tag, "another certificate is another promise"


def test_the_layout_of_the_file_is_no_part_of_the_tag(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    tag = loaded(folder).tag
    path = folder / "gateway.yaml"
    path.write_text("# a remark\n" + path.read_text().replace("guards:\n", "guards:\n\n"))
    assert loaded(folder).tag == tag


CORRUPT = {
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"not a model",
    "a pickle": lambda content: b"\x80\x04\x95\x00",
    "of inputs without a batch": lambda content: onnx.identity(()),
}


@pytest.mark.parametrize("corrupt", CORRUPT.values(), ids=CORRUPT)
@pytest.mark.parametrize(("name", "rung"), [("primary.onnx", 0), ("fallback.onnx", 1)])
def test_a_corrupt_model_is_reported_with_rung_file_and_line(
    tmp_path: Path, name: str, rung: int, corrupt: object
) -> None:
    folder = letters(tmp_path)
    path = folder / name
    path.write_bytes(corrupt(path.read_bytes()))  # type: ignore[operator]
    (problem,) = refused(folder, PolicyError)
    assert problem.field == f"rungs[{rung}].model.path"
    assert str(path) in problem.what
    line = (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    assert f"path: {name}" in line


def test_missing_models_are_all_reported_with_the_nearest_file(tmp_path: Path) -> None:
    folder = letters(tmp_path, ("path: primary.onnx", "path: primery.onnx"))
    (folder / "fallback.onnx").rename(folder / "fall-back.onnx")
    told = [(problem.field, problem.nearest) for problem in refused(folder, PolicyError)]
    assert told == [("rungs[0].model.path", "primary.onnx"), ("rungs[1].model.path", "fall-back.onnx")]


def test_a_folder_in_place_of_a_model_is_reported(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    (folder / "primary.onnx").unlink()
    (folder / "primary.onnx").mkdir()
    assert refused(folder, PolicyError)[0].field == "rungs[0].model.path"


def test_a_model_that_loads_but_cannot_run_is_refused_at_start(tmp_path: Path) -> None:
    """It looks up row 100 + x of 26: onnxruntime loads it, and fails at the first row."""
    folder = letters(tmp_path)
    nodes = [
        onnx.node("ReduceMax", ["attributes"], ["most"], keepdims=0),
        onnx.node("Cast", ["most"], ["whole"], to=7),
        onnx.node("Add", ["whole", "hundred"], ["index"]),
        onnx.node("Gather", ["w", "index"], ["column"]),
        onnx.node("MatMul", ["attributes", "w"], ["z"]),
        onnx.node("Add", ["z", "column"], ["logits"]),
        onnx.node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    broken = onnx.model(
        nodes,
        inputs=[onnx.value("attributes", np.float32, ("n", 16))],
        outputs=[onnx.value("probabilities", np.float32, ("n", 26))],
        weights=[
            onnx.tensor("w", np.zeros((16, 26), np.float32)),
            onnx.tensor("hundred", np.array(100, np.int64)),
        ],
    )
    (folder / "fallback.onnx").write_bytes(broken)
    bind(folder)
    with pytest.raises(Problems) as caught:
        Gateway.open(folder)
    assert "small" in str(caught.value) or "fallback.onnx" in str(caught.value)


def test_a_guards_file_that_lacks_a_stage_is_reported_by_its_name(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    held = arrays.load(folder / "guards.npz")
    arrays.save(folder / "guards.npz", {k: a for k, a in held.items() if not k.startswith("ood.input_only")})
    bind(folder)
    (problem,) = refused(folder)
    assert problem.file == str(folder / "guards.npz")
    assert problem.what.startswith("ood.input_only")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_a_guards_file_that_is_no_npz_is_reported_by_name(tmp_path: Path, content: bytes) -> None:
    folder = letters(tmp_path)
    (folder / "guards.npz").write_bytes(content)
    bind(folder)
    (problem,) = refused(folder)
    assert problem.file == str(folder / "guards.npz")
    assert "not a readable .npz" in problem.what


def test_the_contract_has_the_names_ranges_and_row_limit_of_the_policy(tmp_path: Path) -> None:
    contract = contract_in(
        letters(tmp_path, ("anonymous: loopback", "anonymous: loopback, max_batch_rows: 7"))
    )
    (taken,) = contract.inputs
    assert (taken.name, taken.dtype, taken.shape) == ("attributes", F4, (None, 16))
    assert (taken.low, taken.high) == (0, 15)
    assert (contract.model, contract.version, contract.max_rows) == ("letters", "1", 7)


def test_only_what_is_exposed_is_in_the_contract(tmp_path: Path) -> None:
    assert [spec.name for spec in contract_in(letters(tmp_path / "a")).outputs] == ["probabilities"]
    both = letters(tmp_path / "b", ("expose: [probabilities]", "expose: [probabilities, logits]"))
    assert [spec.name for spec in contract_in(both).outputs] == ["probabilities", "logits"]


@pytest.mark.parametrize(
    ("fallback", "field"),
    [
        (table_model(inputs="rows"), "rungs[1].model"),
        (table_model(d=15), "rungs[1].model"),
        (table_model(k=25), "expose[0]"),
        (table_model(outputs="scores"), "expose[0]"),
    ],
    ids=["another input", "another width", "other classes", "no probabilities"],
)
def test_rungs_with_different_inputs_or_outputs_are_reported(
    tmp_path: Path, fallback: bytes, field: str
) -> None:
    folder = letters(tmp_path)
    (folder / "fallback.onnx").write_bytes(fallback)
    bind(folder)
    (problem,) = refused(folder, PolicyError)
    assert problem.field == field
    assert problem.line > 1


def test_labels_need_no_number_of_classes_that_the_model_leaves_open(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    model = onnx.model(
        [onnx.node("Softmax", ["attributes"], ["probabilities"], axis=1)],
        inputs=[onnx.value("attributes", np.float32, ("n", "k"))],
        outputs=[onnx.value("probabilities", np.float32, ("n", "k"))],
    )
    for name in ("primary.onnx", "fallback.onnx"):
        (folder / name).write_bytes(model)
    edit(folder, ("detectors: [gen, fdbd, rmd, residual, knn, raw]", "detectors: [raw]"))
    assert [spec.shape for spec in contract_in(folder).outputs] == [(None, None)]


def test_what_was_loaded_ends_with_close_and_with_failure(tmp_path: Path) -> None:
    good, bad = letters(tmp_path / "good"), letters(tmp_path / "bad")
    (bad / "certificate.json").unlink()
    before = set(threading.enumerate())
    loaded(good)
    refused(bad)
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(2)
    assert set(threading.enumerate()) <= before


def test_what_was_saved_scores_as_what_was_fitted(tmp_path: Path) -> None:
    artifacts = loaded(letters(tmp_path))
    save_guards(tmp_path / "again.npz", artifacts.fitted, artifacts.kept)
    again = arrays.load(tmp_path / "again.npz")
    committed = arrays.load(CONFIGS / "letters" / "guards.npz")
    assert {key: a.tobytes() for key, a in again.items()} == {
        key: a.tobytes() for key, a in committed.items()
    }
    form = artifacts.fitted.guards["ood"].input_only
    restored = arrays.unpack(Ood, "ood.input_only", again)
    assert form is not None
    rows = Signals(None, clean_rows(50))
    assert restored.score(rows).tobytes() == form.score(rows).tobytes()


def test_other_files_in_the_folder_are_ignored(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    tag = loaded(folder).tag
    (folder / "notes.txt").write_text("hello")
    (folder / "third.onnx").write_bytes(b"not named by the policy")
    assert loaded(folder).tag == tag
    assert {name for name in FILES if not (folder / name).is_file()} == set()


@pytest.mark.parametrize(
    ("name", "told"),
    [("guards.npz", "is no regular file"), ("certificate.json", "is not a certificate of this version")],
)
def test_a_pipe_in_place_of_a_file_is_reported_and_not_waited_for(
    tmp_path: Path, name: str, told: str
) -> None:
    folder = letters(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    (problem,) = refused(folder)
    assert problem.file == str(folder / name)
    assert told in problem.what


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("guards.npz", 3 * 2**30, "has 3221225472 bytes, over the 536870912 allowed"),
        ("certificate.json", 2**28, "is not a certificate of this version"),
    ],
)
def test_a_file_beyond_its_limit_is_refused_unread(tmp_path: Path, name: str, size: int, told: str) -> None:
    folder = letters(tmp_path)
    with (folder / name).open("wb") as file:
        file.truncate(size)
    (problem,) = refused(folder)
    assert told in problem.what
