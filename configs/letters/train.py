"""Train the two letter-recognition models of this deployment and write its data files.

Needs   pip install scikit-learn onnx onnxruntime numpy
        letters.npz beside this script: UCI Letter Recognition, 20,000 rows of 16 integers 0..15

Run     python configs/letters/train.py [--out DIR] [--seed 0]
        python configs/letters/train.py --data-only      (numpy alone, under a second)

A seeded permutation splits the rows: 10,000 train, 500 fit the temperatures, 6,000 are held out
for calibration, 3,500 are the test set, which nothing is fitted on. The same seed on the same
kind of processor gives the same weights.

Writes  primary.onnx          perceptron: probabilities, logits, features
        fallback.onnx         logistic regression: probabilities, logits
        samples.npz           attributes float32[1000,16], y: test rows
        outliers.npz          shuffled (each column permuted over the test rows), uniform (random
                              integers), fractional (test rows plus noise), float32[200,16] each
        var/calibration.npz   attributes float32[6000,16], y                  (not committed)
        var/heldout_test.npz  attributes float32[3500,16], y, samples first   (not committed)
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it when it is imported

TRAIN, VALIDATION, CALIBRATION, TEST = 10_000, 500, 6_000, 3_500
SAMPLES, OUTLIERS = 1_000, 200
HIGHEST = 15
HIDDEN = (256, 96)
PHASES = ((0.2, 40), (0.04, 20), (0.008, 10))  # learning rate, epochs

Layer = tuple[np.ndarray, np.ndarray]  # weights [inputs, outputs] and bias


class Labelled(NamedTuple):
    """Rows of attributes, float32[n,16], and their classes, 0 for A."""

    attributes: np.ndarray
    y: np.ndarray

    def at(self, rows: np.ndarray | slice) -> Labelled:
        return Labelled(self.attributes[rows], self.y[rows])


class Data(NamedTuple):
    """The seeded split."""

    train: Labelled
    validation: Labelled
    calibration: Labelled
    test: Labelled


def split(seed: int) -> Data:
    """Everything this script uses, read from the file beside it."""
    with np.load(Path(__file__).with_name("letters.npz")) as stored:
        y = np.array([ord(letter) - ord("A") for letter in stored["y"]], np.int64)
        rows = Labelled(stored["x"].astype(np.float32), y)
    order = np.random.default_rng(seed).permutation(len(y))
    return Data(*map(rows.at, np.split(order, np.cumsum([TRAIN, VALIDATION, CALIBRATION]))))


def write_data(data: Data, out: Path) -> None:
    """The two files for calibration and benchmarks."""
    var = out / "var"
    var.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(var / "calibration.npz", **data.calibration._asdict())
    np.savez_compressed(var / "heldout_test.npz", **data.test._asdict())


def write_examples(test: Labelled, out: Path, seed: int) -> None:
    """Good rows for the demo, and three families of bad ones made from the other test rows."""
    np.savez_compressed(out / "samples.npz", **test.at(slice(SAMPLES))._asdict())
    rng = np.random.default_rng(seed)
    rows = test.attributes[SAMPLES:]
    families = {
        "shuffled": rng.permuted(rows, axis=0)[:OUTLIERS],
        "uniform": rng.integers(0, HIGHEST + 1, (OUTLIERS, rows.shape[1])),
        "fractional": rows[:OUTLIERS] + rng.uniform(-0.5, 0.5, (OUTLIERS, rows.shape[1])),
    }
    arrays = {name: np.clip(x, 0, HIGHEST).astype(np.float32) for name, x in families.items()}
    np.savez_compressed(out / "outliers.npz", **arrays)


def train(data: Labelled, seed: int) -> dict[str, list[Layer]]:
    """Fit both models on one thread; each as its affine layers, on raw attributes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    scaler = StandardScaler().fit(data.attributes)
    x = scaler.transform(data.attributes)
    linear = LogisticRegression(C=10, max_iter=2_000)
    options = {"batch_size": 64, "alpha": 0.01, "n_iter_no_change": 100, "warm_start": True}
    network = MLPClassifier(HIDDEN, solver="sgd", random_state=seed, **options)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # each phase ends by its epochs
        linear.fit(x, data.y)
        for rate, epochs in PHASES:
            network.set_params(learning_rate_init=rate, max_iter=epochs).fit(x, data.y)
            print(f"  learning rate {rate}: loss {network.loss_:.4f}", flush=True)
    layers = {
        "fallback": [(linear.coef_.T, linear.intercept_)],
        "primary": list(zip(network.coefs_, network.intercepts_, strict=True)),
    }
    for weights in layers.values():  # standardise inside the first layer
        weight, bias = weights[0]
        weight = weight / scaler.scale_[:, None]
        weights[0] = weight, bias - scaler.mean_ @ weight
    return layers


def forward(layers: list[Layer], x: np.ndarray) -> np.ndarray:
    """The logits: affine layers with rectifiers between."""
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = layers[-1]
    return x @ weight + bias


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def fit_temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """The temperature of least negative log-likelihood: bisection on its slope, convex in 1/T."""
    low, high = 0.05, 20.0
    for _ in range(60):
        beta = (low * high) ** 0.5
        slope = (softmax(beta * logits) * logits).sum(1) - logits[np.arange(len(y)), y]
        low, high = (low, beta) if slope.mean() > 0 else (beta, high)
    return 1 / beta


def export(layers: list[Layer], path: Path, properties: dict[str, str]) -> None:
    """Write the layers as ONNX: attributes -> probabilities, logits and, if hidden, features."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, width: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])

    nodes, weights, source = [], [], "attributes"
    for i, (weight, bias) in enumerate(layers, 1):
        names = [f"weight{i}", f"bias{i}"]
        for name, value in zip(names, (weight, bias), strict=True):
            weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        target = "logits" if i == len(layers) else f"hidden{i}"
        nodes.append(helper.make_node("Gemm", [source, *names], [target], name=target))
        if i < len(layers):
            source = "features" if i == len(layers) - 1 else f"active{i}"
            nodes.append(helper.make_node("Relu", [target], [source], name=source))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    inputs, classes = len(layers[0][0]), len(layers[-1][1])
    outputs = [tensor("probabilities", classes), tensor("logits", classes)]
    if source == "features":
        outputs.append(tensor("features", len(layers[-1][0])))
    graph = helper.make_graph(nodes, path.stem, [tensor("attributes", inputs)], outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def calibration_error(probabilities: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the top class, bins of equal width."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    box = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(box, right - confidence, bins)).sum() / len(y))


class Served:
    """A written model as the gateway will run it: onnxruntime on one thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.path = path
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, attributes: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {"attributes": attributes})

    def microseconds(self, attributes: np.ndarray, repeats: int = 2_000) -> float:
        """Median time per row of this batch."""
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.run(attributes)
            spent.append(time.perf_counter() - start)
        return float(np.median(spent[repeats // 10 :])) * 1e6 / len(attributes)

    def verify(self, attributes: np.ndarray) -> None:
        """A row's answer is finite, consistent, and the same alone as in a batch."""
        together = self.run(attributes)
        alone = [self.run(row[None]) for row in attributes]
        for i, batch in enumerate(together):
            assert np.isfinite(batch).all()
            np.testing.assert_allclose(batch, np.concatenate([a[i] for a in alone]), atol=1e-5)
        np.testing.assert_allclose(together[0], softmax(together[1]), atol=1e-6)

    def report(self, test: Labelled, temperature: float) -> str:
        found = self.run(test.attributes)[0]
        accuracy = (found.argmax(1) == test.y).mean()
        one, many = (self.microseconds(test.attributes[:n]) for n in (1, 32))
        return (
            f"{self.path.stem:10}{accuracy:10.2%}{temperature:13.3f}"
            f"{calibration_error(found, test.y):9.4f}{self.path.stat().st_size / 1000:9.0f}"
            f"{one:11.1f}{many:12.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-only", action="store_true", help="write var/ only, with numpy")
    chosen = parser.parse_args()
    data = split(chosen.seed)
    write_data(data, chosen.out)
    if chosen.data_only:
        return
    write_examples(data.test, chosen.out, chosen.seed)
    lines = ["model       accuracy  temperature      ECE       kB   us/row 1   us/row 32"]
    for name, layers in train(data.train, chosen.seed).items():
        logits = forward(layers, data.validation.attributes)
        temperature = fit_temperature(logits, data.validation.y)
        weight, bias = layers[-1]
        layers[-1] = weight / temperature, bias / temperature
        properties = {"temperature": f"{temperature:.6f}", "seed": str(chosen.seed)}
        path = chosen.out / f"{name}.onnx"
        export(layers, path, properties)
        served = Served(path)
        served.verify(data.test.attributes[:100])
        lines.append(served.report(data.test, temperature))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
