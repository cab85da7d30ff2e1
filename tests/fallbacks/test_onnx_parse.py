"""Files that are no model that can be served: each is named for what it is, with the mend that helps."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fallbacks.onnx import OnnxModel
from tests.fallbacks.conftest import ML, export
from tests.support.onnx_bytes import identity

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def one_node(op: str, domain: str = "", *opsets: tuple[str, int], ir_version: int = 9) -> bytes:
    nodes = [helper.make_node(op, ["x"], ["y"], domain=domain)]
    return export(nodes, [X], [Y], opsets=opsets or (("", 17),), ir_version=ir_version).SerializeToString()


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, w=np.zeros(3))
    return file.getvalue()


def without(field: str) -> bytes:
    model = onnx.load_model_from_string(identity())
    model.ClearField(field)
    content: bytes = model.SerializeToString()
    return content


SAFETENSORS = (60).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "the file is empty; copy or export it again", id="empty"),
        pytest.param(POINTER, "a git-lfs pointer, not the model; run `git lfs pull`", id="git-lfs"),
        pytest.param(identity()[:-10], "is cut short or damaged at 65 bytes; copy", id="cut short"),
        pytest.param(identity()[:3], "is cut short or damaged at 3 bytes", id="cut very short"),
        pytest.param(without("opset_import"), "is cut short or damaged", id="cut between two fields"),
        pytest.param(without("graph"), "is cut short or damaged", id="without a graph"),
        pytest.param(identity().replace(b"x", b"\xff"), "is damaged; copy or export it again", id="bad name"),
        pytest.param(b"not a model", "not an ONNX file: it begins with b'not a model'; export", id="noise"),
        pytest.param(b"\n<!DOCTYPE html><html></html>", "but a web page; download the file", id="HTML"),
        pytest.param(archive(), "but a zip archive.*; export the model to ONNX", id="zip"),
        pytest.param(pickle.dumps({"a": 1}), "but a pickle.*; convert the model with skl2onnx", id="pickle"),
        pytest.param(zlib.compress(b"a" * 99), "compressed with zlib, as joblib writes", id="joblib"),
        pytest.param(gzip.compress(identity()), "but compressed with gzip; unpack it", id="gzip"),
        pytest.param(b"\x89HDF\r\n\x1a\n", "but an HDF5 file, as Keras writes", id="HDF5"),
        pytest.param(b"\x1c\0\0\0TFL3\0", "but a TensorFlow Lite file", id="TensorFlow Lite"),
        pytest.param(SAFETENSORS, "but a safetensors file: weights without a graph", id="safetensors"),
        pytest.param(b'{"learner": {}}', "as boosters write; convert it with onnxmltools", id="XGBoost"),
        pytest.param(b"tree\nversion=v4\n", "as boosters write; convert it with onnxmltools", id="LightGBM"),
    ],
)
def test_bytes_that_are_no_whole_onnx_file_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, says: str
) -> None:
    assert refused(tmp_path, content).startswith(f"{tmp_path / 'm.onnx'}: ")
    with pytest.raises(ValueError, match=says):
        OnnxModel.load(tmp_path / "m.onnx")


def refused(folder: Path, content: bytes) -> str:
    """The message of the refusal."""
    (folder / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx") as error:
        OnnxModel.load(folder / "m.onnx")
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            one_node("Identity", ir_version=99),
            r"has IR version 99, and onnxruntime \S+ takes at most \d+; export it with a lower ir_version",
            id="IR version",
        ),
        pytest.param(
            one_node("Identity", "", ("", 99)),
            r"has opset 99 of ai.onnx, and onnxruntime \S+ takes at most \d+; export it with a lower opset",
            id="opset",
        ),
        pytest.param(
            one_node("Identity", "", ("", 17), (ML, 99)),
            r"has opset 99 of ai.onnx.ml, and onnxruntime \S+ takes at most \d+;",
            id="opset of classical models",
        ),
        pytest.param(
            one_node("Wonder"),
            r"uses the operator Wonder, which is not in opset 17; export it with ONNX's own",
            id="unknown operator",
        ),
        pytest.param(
            one_node("Split", "ai.onnx.contrib", ("", 17), ("ai.onnx.contrib", 1)),
            "operator Split of the domain 'ai.onnx.contrib', and operators of another domain are not loaded",
            id="foreign domain",
        ),
        pytest.param(
            one_node("Wonder", "org.acme"),
            "operators of the domain 'org.acme', and operators of another domain are not loaded",
            id="domain that is not even imported",
        ),
        pytest.param(
            export(
                [
                    helper.make_node(
                        "StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_XX"
                    )
                ],
                [helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])],
                [helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])],
            ).SerializeToString(),
            "needs the locale xx_XX, which is not installed; install it",
            id="locale",
        ),
        pytest.param(
            export(
                [helper.make_node("Conv", ["x", "w"], ["y"])],
                [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 1, 3])],
                [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 1, 3])],
                [numpy_helper.from_array(np.ones((1, 1, 1)), "w")],
                opsets=(("", 17),),
            ).SerializeToString(),
            "uses the operator Conv in a form that onnxruntime .* has not on a CPU",
            id="no such kernel",
        ),
        pytest.param(
            export([helper.make_node("Add", ["x", "nothing"], ["y"])], [X], [Y]).SerializeToString(),
            "cannot load it: .*; hold it against onnx.checker.check_model",
            id="anything else",
        ),
    ],
)
def test_what_onnxruntime_refuses_says_what_to_change_at_export_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    message = refused(tmp_path, content)
    with pytest.raises(ValueError, match=says):
        raise ValueError(message)
    assert capfd.readouterr().err == ""


def test_weights_in_another_file_name_that_file_and_the_command_that_mends_it(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.ones((3, 3), np.float32), "w")]
    model = export([helper.make_node("MatMul", ["x", "w"], ["y"])], [X], [Y], weights)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    content = (tmp_path / "m.onnx").read_bytes()
    assert "another file ('w.bin'), which is not loaded; export one file" in refused(tmp_path, content)
    onnx.save(onnx.load(tmp_path / "m.onnx"), tmp_path / "one.onnx")  # as the message says
    with_weights = OnnxModel.load(tmp_path / "one.onnx")
    assert with_weights.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[3, 3, 3]]
    with_weights.close()


def test_weights_outside_are_found_in_attributes_and_inner_graphs_too(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("w", 1, [3])])
    choose = helper.make_node("If", ["go"], ["y"], then_branch=branch, else_branch=branch)
    go = numpy_helper.from_array(np.array(True), "go")
    for nodes in ([constant, helper.make_node("Add", ["x", "w"], ["y"])], [choose]):
        content = export(nodes, [X], [Y], [go]).SerializeToString()
        assert "another file ('/etc/passwd'), which is not loaded" in refused(tmp_path, content)
