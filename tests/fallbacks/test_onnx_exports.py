"""Classifiers as scikit-learn and boosters are exported: without their ZipMap, with the classes they name."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fallbacks.predictor import ModelTensor
from tests.fallbacks.conftest import ML, Load, export

F4, I8, OBJECT = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.object_)
FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
value, node = helper.make_tensor_value_info, helper.make_node
X = np.array([[3, 0], [0, 3], [1, 1.5]], np.float32)
X_INFO = value("x", FLOAT, ["n", 2])
INTS: dict[str, Any] = {"classlabels_int64s": [10, 20, 30]}
TEXTS: dict[str, Any] = {"classlabels_strings": ["cat", "dog", "jäger"]}


def linear(labels: str = "classlabels_ints", values: Sequence[Any] = (10, 20, 30)) -> NodeProto:
    """A linear classifier of two inputs and three classes: outputs `label` and `scores`."""
    weights = [1.0, 0.0, 0.0, 1.0, 0.5, 0.5]
    classes: dict[str, Any] = {labels: list(values)}
    return node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain=ML,
        coefficients=weights,
        intercepts=[0.0, 0.0, 0.0],
        **classes,
    )


def zipmap(source: str, target: str, **labels: Any) -> NodeProto:
    return node("ZipMap", [source], [target], domain=ML, **labels)


def maps(name: str, key: int = INT64) -> Any:
    """The declaration of a ZipMap's output: a sequence of maps from labels to float."""
    values = helper.make_tensor_type_proto(FLOAT, None)
    return helper.make_value_info(
        name, helper.make_sequence_type_proto(helper.make_map_type_proto(key, values))
    )


def as_scikit_learn(labels: dict[str, Any], element: int, classifier: NodeProto) -> ModelProto:
    """What skl2onnx writes by default: a label, and probabilities through a ZipMap."""
    nodes = [
        classifier,
        node("Normalizer", ["scores"], ["probabilities"], domain=ML, norm="L1"),
        node("Identity", ["label"], ["output_label"]),
        zipmap("probabilities", "output_probability", **labels),
    ]
    outputs = [value("output_label", element, ["n"]), maps("output_probability", element)]
    return export(nodes, [X_INFO], outputs)


@pytest.mark.parametrize(
    ("model", "classes", "label"),
    [
        (as_scikit_learn(INTS, INT64, linear()), (10, 20, 30), [10, 20, 20]),
        (
            as_scikit_learn(TEXTS, STRING, linear("classlabels_strings", TEXTS["classlabels_strings"])),
            ("cat", "dog", "jäger"),
            [b"cat", b"dog", b"dog"],
        ),
    ],
    ids=["labels that are numbers", "labels that are text"],
)
def test_a_default_export_answers_a_tensor_where_it_had_a_zipmap(
    load: Load, model: ModelProto, classes: tuple[int | str, ...], label: list[Any]
) -> None:
    one = load(model)
    assert one.outputs == (
        ModelTensor("output_label", OBJECT if isinstance(classes[0], str) else I8, (None,)),
        ModelTensor("output_probability", F4, (None, 3)),
    )
    assert (one.classes, one.ignored_outputs, one.fixed_rows) == (classes, (), None)
    assert one.digest == hashlib.sha256(model.SerializeToString()).hexdigest(), (
        "of the file, not of the change"
    )
    scores = X @ np.array([[1, 0, 0.5], [0, 1, 0.5]], F4)
    for got in (one.run({"x": X}), asyncio.run(one.predict({"x": X}))):
        np.testing.assert_allclose(
            got["output_probability"], scores / scores.sum(1, keepdims=True), rtol=1e-6
        )
        assert got["output_label"].tolist() == label


def test_several_zipmaps_are_dropped_and_name_classes_only_where_they_agree(load: Load) -> None:
    for second, classes in ((INTS, (10, 20, 30)), ({"classlabels_int64s": [1, 2, 3]}, None)):
        nodes = [linear(), zipmap("scores", "first", **INTS), zipmap("scores", "second", **second)]
        one = load(export(nodes, [X_INFO], [maps("first"), maps("second"), value("label", INT64, ["n"])]))
        assert [spec.name for spec in one.outputs] == ["first", "second", "label"]
        got = one.run({"x": X})
        assert got["first"].tolist() == got["second"].tolist() == [[3, 0, 1.5], [0, 3, 1.5], [1, 1.5, 1.25]]
        assert one.classes == classes


def test_what_a_zipmap_takes_may_be_an_output_too_and_may_be_wider_than_float32(load: Load) -> None:
    nodes = [
        node("Cast", ["x"], ["scores"], to=DOUBLE),
        zipmap("scores", "zipped", classlabels_int64s=[0, 1]),
    ]
    one = load(export(nodes, [X_INFO], [value("scores", DOUBLE, ["n", 2]), maps("zipped")]))
    got = one.run({"x": X})
    assert (got["scores"].dtype, got["zipped"].dtype) == (np.dtype(np.float64), F4)
    assert got["scores"].tolist() == got["zipped"].tolist() == X.tolist()


def test_outputs_that_are_no_tensors_are_ignored_unless_they_are_asked_for(load: Load) -> None:
    sequence = helper.make_tensor_sequence_value_info("pieces", FLOAT, None)
    nodes = [linear(), node("SequenceConstruct", ["scores"], ["pieces"])]
    content = export(nodes, [X_INFO], [sequence, value("scores", FLOAT, ["n", 3])])
    one = load(content)
    assert (one.ignored_outputs, [spec.name for spec in one.outputs]) == (("pieces",), ["scores"])
    assert list(one.run({"x": X})) == list(asyncio.run(one.predict({"x": X}))) == ["scores"]
    with pytest.raises(ValueError, match=r"'pieces' is seq\(tensor\(float\)\); export it as a plain tensor"):
        load(content, names={"probabilities": "pieces"})


def test_a_batch_that_only_outputs_declare_is_no_fixed_batch(load: Load) -> None:
    """LightGBM's converter declares a label of [1] for any number of rows."""
    one = load(export([linear()], [X_INFO], [value("label", INT64, [1]), value("scores", FLOAT, [1, 3])]))
    assert [spec.shape for spec in one.outputs] == [(None,), (None, 3)]
    assert one.fixed_rows is None
    assert one.run({"x": X})["label"].tolist() == [10, 20, 20]


def test_text_is_put_in_lower_case_without_the_locale_that_exporters_ask_for(load: Load) -> None:
    texts = [value(name, STRING, ["n"]) for name in ("x", "y")]
    for locale in ({}, {"locale": "en_US"}, {"locale": "en_US.UTF-8"}):
        lower = node(
            "StringNormalizer", ["x"], ["y"], case_change_action="LOWER", is_case_sensitive=1, **locale
        )
        x = np.array(["JÄGER Ω".encode()], object)
        assert load(export([lower], texts[:1], texts[1:])).run({"x": x})["y"].tolist() == ["jäger ω".encode()]


SCORES = node("Identity", ["x"], ["scores"])
ARGMAX = node("ArgMax", ["scores"], ["index"], axis=1, keepdims=1)
NAMES = numpy_helper.from_array(np.array([b"a", b"b", b"c"], object), "names")
NUMBERS = numpy_helper.from_array(np.array([7, 8, 9], np.int64), "numbers")


def extract(constant: str) -> list[NodeProto]:
    """What skl2onnx writes for classifiers without an operator of their own."""
    feature = node("ArrayFeatureExtractor", [constant, "index"], ["found"], domain=ML)
    shape = numpy_helper.from_array(np.array([-1], np.int64), "flat")
    return [
        SCORES,
        ARGMAX,
        feature,
        node("Constant", [], ["flat"], value=shape),
        node("Reshape", ["found", "flat"], ["made"]),
    ]


def encode(source: str, **table: Any) -> NodeProto:
    return node("LabelEncoder", [source], ["made"], domain=ML, **table)


@pytest.mark.parametrize(
    ("nodes", "outputs", "classes"),
    [
        pytest.param([linear()], [value("label", INT64, ["n"])], (10, 20, 30), id="a classifier's label"),
        pytest.param([linear()], [value("scores", FLOAT, ["n", 3])], (10, 20, 30), id="a classifier's score"),
        pytest.param(
            [linear(), node("Softmax", ["scores"], ["made"], axis=1)],
            [value("made", FLOAT, ["n", 3])],
            (10, 20, 30),
            id="scores made probabilities",
        ),
        pytest.param(
            [linear("classlabels_ints", [0, 1, 2]), node("Cast", ["label"], ["made"], to=TensorProto.INT32)],
            [value("made", TensorProto.INT32, ["n"])],
            (0, 1, 2),
            id="a label of another width",
        ),
        pytest.param(
            [linear(), node("Cast", ["label"], ["made"], to=STRING)],
            [value("made", STRING, ["n"])],
            None,
            id="a number made text",
        ),
        pytest.param(extract("names"), [value("made", STRING, ["n"])], ("a", "b", "c"), id="a list of texts"),
        pytest.param(extract("numbers"), [value("made", INT64, ["n"])], (7, 8, 9), id="a list of numbers"),
        pytest.param(
            [SCORES, ARGMAX, node("Gather", ["names", "index"], ["made"])],
            [value("made", STRING, ["n", 1])],
            ("a", "b", "c"),
            id="a list that Gather reads",
        ),
        pytest.param(
            [linear(), encode("label", keys_int64s=[30, 20, 10], values_strings=["z", "y", "x"])],
            [value("made", STRING, ["n"])],
            ("x", "y", "z"),
            id="labels that are mapped",
        ),
        pytest.param(
            [linear(), encode("label", keys_int64s=[30, 20], values_strings=["z", "y"])],
            [value("made", STRING, ["n"])],
            None,
            id="labels that are mapped in part",
        ),
        pytest.param(
            [SCORES, ARGMAX, encode("index", keys_int64s=[1, 0], values_int64s=[5, 6])],
            [value("made", INT64, ["n", 1])],
            (6, 5),
            id="columns that are mapped",
        ),
        pytest.param(
            [SCORES, ARGMAX],
            [value("index", INT64, ["n", 1])],
            None,
            id="numbers of columns alone",
        ),
        pytest.param(
            [linear(), node("Concat", ["scores", "scores"], ["made"], axis=1)],
            [value("made", FLOAT, ["n", 6])],
            None,
            id="scores that are features of another model",
        ),
        pytest.param(
            [node("Identity", ["x"], ["made"])], [value("made", FLOAT, ["n", 2])], None, id="no classifier"
        ),
    ],
)
def test_the_classes_are_those_that_the_graph_names(
    load: Load, nodes: list[NodeProto], outputs: list[Any], classes: tuple[int | str, ...] | None
) -> None:
    one = load(export(nodes, [X_INFO], outputs, [NAMES, NUMBERS]))
    assert one.classes == classes
    one.run({"x": X})  # the graph is one that runs


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Identity", ["b"], ["a"]), node("Identity", ["a"], ["b"])],
        [encode("a", keys_int64s=[1], values_int64s=[1]), node("Identity", ["made"], ["a"])],
        [node("ZipMap", [], [], domain=ML)],
        [node("ZipMap", [], ["a"], domain=ML)],
        [node("Identity", [], ["a"])],
    ],
    ids=[
        "a cycle",
        "a cycle of labels",
        "a ZipMap of nothing",
        "a ZipMap without input",
        "a copy of nothing",
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(load: Load, nodes: list[NodeProto]) -> None:
    with pytest.raises(ValueError, match=r"onnxruntime .* cannot load it"):
        load(export(nodes, [X_INFO], [value("a", INT64, ["n"])]))


def test_a_zipmap_that_feeds_another_node_stays(load: Load) -> None:
    nodes = [
        node("Identity", ["x"], ["scores"]),
        zipmap("scores", "zipped", classlabels_int64s=[0, 1]),
        node("SequenceLength", ["zipped"], ["rows"]),
    ]
    with pytest.raises(ValueError, match=r"onnxruntime .* cannot load it"):
        load(export(nodes, [X_INFO], [maps("zipped"), value("rows", INT64, [])]))
