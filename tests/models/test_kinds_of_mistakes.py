"""Kinds of mistakes in rows, models and policies: each is told with where, what, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from gateway.scaffold.scaffold import scaffold
from gateway.scaffold.sources import Sources
from tests.support.kinds import F32, I64, begun, floats, info, initialised, labelled, model, nearest, node
from tests.support.typed_models import Array

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00ff\nsize 7\n"
X, Y = labelled(1200)


def put(array: Array, at: Any, value: object) -> Array:
    changed = array.copy()
    changed[at] = value
    return changed


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment that only lacks rows."""
    return initialised(tmp_path_factory.mktemp("mistakes"), nearest(), None)


def refusal(folder: Path, data: Path) -> str:
    with pytest.raises(Problems) as refused:
        calibrate(Deployment.read(folder), data)
    return str(refused.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"x": put(X, (11, 3), np.nan), "y": Y}, "x: holds NaN, first in row 11, column 3; encode missing"),
        (
            {"x": put(X, (2, 0), np.inf), "y": Y},
            "x: holds infinity, first in row 2, column 0; leave such rows",
        ),
        (
            {"x": X.astype(object), "y": Y},
            "x holds Python objects); save text with astype(str), numbers with",
        ),
        ({"x": X, "y": np.array(["a", None] * 600)}, "y holds Python objects); save text with astype(str)"),
        ({"x": X, "y": put(Y.astype(float), 5, np.nan)}, "y: holds NaN, first in row 5; leave rows without"),
        ({"x": X, "y": Y[:, None]}, "y: is int64[1200, 1], not one number or text a row; give y.reshape(-1)"),
        ({"x": X, "y": np.eye(2)[Y]}, "of a column a class, give y.argmax(axis=1)"),
        ({"x": X, "y": Y[:-3]}, "with 1197 rows; give as many rows of 'x' as of labels and of other inputs"),
        ({"x": X[:, 0], "y": Y}, "it has one value a row: give an array of several in an .npz"),
        ({"x": X, "labels": Y}, "y: missing: name the array or column of labels, or true values, y"),
        ({"X": X, "y": Y}, "x: missing; the file holds X"),
        (
            {"x": X.astype("U"), "y": Y},
            "x: is text, not numbers that FP32 can hold; save it with astype(float)",
        ),
    ],
    ids=lambda one: "" if isinstance(one, dict) else one[:24],
)
def test_what_is_wrong_with_rows_is_told_with_row_column_and_mend(
    plain: Path, tmp_path: Path, rows: dict[str, Any], says: str
) -> None:
    np.savez(tmp_path / "rows.npz", allow_pickle=True, **rows)
    found = refusal(plain, tmp_path / "rows.npz")
    assert found.startswith(f"{tmp_path}/rows.npz: ")
    assert says in found


@pytest.mark.parametrize("name", ["rows.npz", "rows.csv", "rows.parquet"])
def test_rows_that_git_lfs_has_not_fetched_are_told_so(plain: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LFS)
    says = "is a git-lfs pointer, not the rows; run `git lfs pull`"
    assert refusal(plain, tmp_path / name) == f"{tmp_path / name}: {says}"


def of_opset(content: bytes, opset: int) -> bytes:
    """The same file with another version of its operators, the last field but one."""
    old, new = b"\x42\x04\x0a\x00\x10\x11", b"\x42\x04\x0a\x00\x10" + bytes([opset])
    assert content.count(old) == 1
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LFS, "a git-lfs pointer, not the model; run `git lfs pull`"),
        (b"", "the file is empty; copy or export it again"),
        (nearest()[:-40], "the file is cut short or damaged"),
        (nearest()[:10], "the file is cut short or damaged"),
        (of_opset(nearest(), 99), "has opset 99 of ai.onnx"),
        (
            model([node("Swish2", ["x"], ["p"])], [info("x", F32, ["n", 2])], [info("p", F32, ["n", 2])]),
            "uses the operator Swish2",
        ),
        (
            model(
                [node("BertTokenizer", ["x"], ["p"], domain="ai.onnx.contrib")],
                [info("x", F32, ["n", 2])],
                [info("p", F32, ["n", 2])],
            ),
            "uses the operator BertTokenizer of the domain 'ai.onnx.contrib', and operators of another",
        ),
        (
            nearest(
                outputs=[info("probabilities", F32, ["n", 2]), info("label", I64, [])],
                extra=[node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)],
            ),
            "'label' is a scalar; give it a first axis, the batch",
        ),
    ],
    ids=["git-lfs", "empty", "cut", "cut early", "opset", "operator", "domain", "scalar"],
)
def test_what_is_wrong_with_a_model_is_told_of_the_file_that_was_given(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(Problems) as refused:
        scaffold(tmp_path / "new", Sources((tmp_path / "model.onnx",)), None)
    assert str(refused.value).startswith(f"{tmp_path}/model.onnx: ")
    assert says in str(refused.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_in_the_place_of_a_model_is_told(tmp_path: Path) -> None:
    folder = initialised(tmp_path, nearest(), None)
    (folder / "primary.onnx").unlink()
    (folder / "primary.onnx").mkdir()
    np.savez(tmp_path / "rows.npz", x=X, y=Y)
    assert "'primary.onnx' is a folder; give the path of one .onnx file" in refusal(
        folder, tmp_path / "rows.npz"
    )


@pytest.mark.parametrize(
    ("fallback", "says"),
    [
        (nearest(x="features"), "smaller.onnx: the fallback takes the inputs features, and primary x; begin"),
        (
            nearest(3),
            "'probabilities' of rung 'fallback' is float32[n, 3], and of the first rung float32[n, 2]",
        ),
        (nearest(2, 5), "takes 'x' as float32[n, 5], and the first rung as float32[n, 4]"),
    ],
    ids=["other names", "other classes", "other width"],
)
def test_a_fallback_that_does_not_fit_is_told_without_a_file_that_is_gone(
    tmp_path: Path, fallback: bytes, says: str
) -> None:
    with pytest.raises(Problems) as refused:
        initialised(tmp_path, nearest(), {"x": X, "y": Y}, fallback)
    assert says in str(refused.value)
    assert ".init-" not in str(refused.value)
    assert not (tmp_path / "typed" / "gateway.yaml").exists()


REPLACED: dict[str, tuple[Callable[[str], str], str]] = {
    "exponent": (lambda t: re.sub(r"deadline_s: \S+", "deadline_s: 2e-6", t), "write 0.000002 or 2.0e-6"),
    "large": (lambda t: re.sub(r"deadline_s: \S+", "deadline_s: 1e30", t), "reads it as text; write 1.0e+30"),
    "comma": (lambda t: re.sub(r"deadline_s: \S+", "deadline_s: 0,5", t), "not '0,5'; write 0.5"),
    "no": (lambda t: t + "labels: [si, no]\n", "labels[1]: input should be a valid string: YAML reads no as"),
    "number": (
        lambda t: t + "labels: [a, 1]\n",
        "labels[1]: input should be a valid string: YAML reads 1 as",
    ),
    "twice": (lambda t: t + "labels: [a, a]\n", "labels[1]: 'a' is there twice"),
    "empty": (lambda _: "\n# nothing yet\n", "the file is empty; a policy is fields such as `schema: 1`"),
    "list": (lambda _: "- schema: 1\n", "the file holds a list; a policy is fields such as `schema: 1`"),
    "spelling": (lambda t: t.replace("expose:", "exposed:"), "exposed: is not a field here; did you mean"),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_what_yaml_reads_otherwise_is_told_with_its_line_and_what_to_write(
    plain: Path, tmp_path: Path, kind: str
) -> None:
    change, says = REPLACED[kind]
    (tmp_path / "gateway.yaml").write_text(change((plain / "gateway.yaml").read_text()))
    with pytest.raises(Problems) as refused:
        Deployment.read(tmp_path)
    assert says in str(refused.value)
    assert re.match(rf"{re.escape(str(tmp_path))}/gateway\.yaml:\d+: ", str(refused.value))


@pytest.mark.parametrize("n", [3, 60, 200])
def test_too_few_rows_are_told_with_how_many_it_takes(tmp_path: Path, n: int) -> None:
    folder = initialised(tmp_path, nearest(), {"x": X[:n], "y": Y[:n]})
    found = refusal(folder, tmp_path / "rows.npz")
    assert re.search(rf"gateway\.yaml:\d+: .*takes \d+ independent rows in the file, and it has {n}", found)
    assert "fold" not in found


@pytest.mark.parametrize("n", [300, 500])
def test_few_rows_get_a_budget_that_they_can_certify(tmp_path: Path, n: int) -> None:
    folder = begun(tmp_path, nearest(), {"x": X[:n], "y": Y[:n]})
    assert yaml.safe_load((folder / "gateway.yaml").read_text())["false_alarm_budget"] > 0.02


@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e6, 1e30])
def test_a_promise_of_any_size_is_written_as_a_number(tmp_path: Path, offset: float) -> None:
    weights = np.ones((4, 1), np.float32)
    content = model(
        [node("MatMul", ["x", "w"], ["variable"])],
        [info("x", F32, ["n", 4])],
        [info("variable", F32, ["n", 1])],
        w=weights,
    )
    y = (X @ weights)[:, 0].astype(np.float64) + offset
    promised = Deployment.read(initialised(tmp_path, content, {"x": X, "y": y})).policy.absolute_error
    assert promised is not None
    assert promised.mean < promised.clip


@pytest.mark.parametrize("y", [np.array(["low", "high"])[Y], Y == 1], ids=["text", "bool"])
def test_true_values_of_a_regressor_that_are_no_numbers_are_told(tmp_path: Path, y: Array) -> None:
    content = model(
        [node("MatMul", ["x", "w"], ["variable"])],
        [info("x", F32, ["n", 4])],
        [info("variable", F32, ["n", 1])],
        w=floats([[1], [1], [1], [1]]),
    )
    with pytest.raises(Problems, match=r"rows\.npz: y: is .*, not numbers, and the policy says task: regr"):
        initialised(tmp_path, content, {"x": X, "y": y})
