"""Train the two price models of this deployment and write its data files.

Needs   python3.11 -m venv ENV && ENV/bin/pip install scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.20.1 \\
            protobuf==5.29.6 onnxruntime==1.32.0 numpy==2.4.6 pandas==3.1.1 plotnine==0.15.9
        An environment of its own: none of these is a dependency of the gateway. With protobuf 7, skl2onnx
        1.20 cannot write a histogram gradient boosting.

Run     ENV/bin/python configs/diamonds/train.py CSV [--out DIR] [--seed 0]
        ENV/bin/python configs/diamonds/train.py CSV --data-only      (numpy and pandas alone, a second)
        CSV: plotnine/data/diamonds.csv in the packages of that environment:
        ENV/bin/python -c "import plotnine.data as d; print(d.DATA_DIR / 'diamonds.csv')"

Data    53,940 round cut diamonds with their prices in US dollars, collected for the R package ggplot2
        (https://ggplot2.tidyverse.org/reference/diamonds.html), shipped by plotnine under the MIT licence
        (Copyright (c) 2022 Hassan Kibirige; ggplot2 is under the MIT licence as well). A length of 0 mm, in
        20 rows, is how the data writes a length that is not known.

A seeded permutation splits the rows: 8,940 are the test set, which nothing is fitted on, 20,000 are held out
for calibration, 25,000 train. The same seed on the same kind of processor gives the same files. Both graphs
are as skl2onnx writes them: one input a column, float32[n,1] or string[n,1], and one output, `variable`, the
price in dollars. The table's x, y and z are called length, width and height, since `y` is the truth. Rows of
the files below have the same columns, float32[n,1] or text [n,1], and y: float32[n].

Writes  primary.onnx          gradient boosting on histograms, least absolute error
        fallback.onnx         one regression tree
        samples.npz           200 test rows
        outliers.npz          shuffled (each column permuted over the test rows), inches (lengths in inches),
                              grams (weight in grams), unknown_colour (a category that no row has): 100 rows
                              each, as NAME/COLUMN
        var/calibration.npz   20,000 rows                                     (not committed)
        var/heldout_test.npz  8,940 rows, samples first                       (not committed)
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it when it is imported

TEST, CALIBRATION = 8_940, 20_000
SAMPLES, OUTLIERS = 200, 100
NUMBERS = ("carat", "depth", "table", "x", "y", "z")
CATEGORIES = ("cut", "color", "clarity")
INPUT_NAMES = {"x": "length", "y": "width", "z": "height"}
TREES, LEAVES, FALLBACK_LEAVES = 300, 24, 300

Columns = dict[str, np.ndarray]  # float32[n,1] or text [n,1], by input


class Priced(NamedTuple):
    """Diamonds and their prices, float32[n]."""

    columns: Columns
    y: np.ndarray

    def at(self, rows: np.ndarray | slice) -> Priced:
        return Priced({name: column[rows] for name, column in self.columns.items()}, self.y[rows])

    def arrays(self) -> dict[str, np.ndarray]:
        return {**self.columns, "y": self.y}


class Data(NamedTuple):
    """The seeded split."""

    test: Priced
    calibration: Priced
    train: Priced


def split(csv: Path, seed: int) -> Data:
    """Everything this script uses."""
    import pandas

    table = pandas.read_csv(csv).rename(columns=INPUT_NAMES)
    columns: Columns = {}
    for name in (*(INPUT_NAMES.get(name, name) for name in NUMBERS), *CATEGORIES):
        text = name in CATEGORIES
        columns[name] = table[[name]].to_numpy().astype(np.str_ if text else np.float32)
    rows = Priced(columns, table["price"].to_numpy(np.float32))
    order = np.random.default_rng(seed).permutation(len(rows.y))
    return Data(*map(rows.at, np.split(order, np.cumsum([TEST, CALIBRATION]))))


def write_data(data: Data, out: Path) -> None:
    """The two files for calibration and benchmarks."""
    var = out / "var"
    var.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(var / "calibration.npz", **data.calibration.arrays())
    np.savez_compressed(var / "heldout_test.npz", **data.test.arrays())


def write_examples(test: Priced, out: Path, seed: int) -> None:
    """Good rows, and four families of bad ones made from the other test rows."""
    np.savez_compressed(out / "samples.npz", **test.at(slice(SAMPLES)).arrays())
    rng = np.random.default_rng(seed)
    rows = test.at(slice(SAMPLES, None)).columns
    some = {name: column[:OUTLIERS] for name, column in rows.items()}
    families = {
        "shuffled": {name: rng.permuted(column, axis=0)[:OUTLIERS] for name, column in rows.items()},
        "inches": some | {name: some[name] / np.float32(25.4) for name in INPUT_NAMES.values()},
        "grams": some | {"carat": some["carat"] * np.float32(0.2)},
        "unknown_colour": some | {"color": np.full_like(some["color"], "Z")},
    }
    arrays = {f"{family}/{name}": column for family, of in families.items() for name, column in of.items()}
    np.savez_compressed(out / "outliers.npz", **arrays)


def frame(columns: Columns) -> Any:
    """A pandas.DataFrame: scikit-learn and skl2onnx know columns by name."""
    import pandas

    return pandas.DataFrame({name: column[:, 0] for name, column in columns.items()})


def train(data: Priced, seed: int) -> dict[str, Any]:
    """Fit both pipelines."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeRegressor

    def pipeline(regressor: Any) -> Any:
        one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        numbers = [name for name in data.columns if name not in CATEGORIES]
        columns = [("numbers", "passthrough", numbers), ("categories", one_hot, list(CATEGORIES))]
        return make_pipeline(ColumnTransformer(columns), regressor).fit(frame(data.columns), data.y)

    boosting = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=TREES, max_leaf_nodes=LEAVES, random_state=seed
    )
    tree = DecisionTreeRegressor(max_leaf_nodes=FALLBACK_LEAVES, random_state=seed)
    return {"primary": pipeline(boosting), "fallback": pipeline(tree)}


def export(pipeline: Any, columns: Columns, path: Path) -> None:
    """Write the pipeline as skl2onnx does, one input a column."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = [
        (name, StringTensorType([None, 1]) if name in CATEGORIES else FloatTensorType([None, 1]))
        for name in columns
    ]
    proto = to_onnx(pipeline, initial_types=types, name=path.stem, target_opset={"": 17, "ai.onnx.ml": 3})
    proto.opset_import.sort(key=lambda opset: opset.domain)  # else in the order of a set: other bytes a run
    path.write_bytes(proto.SerializeToString())


class Served:
    """A written model as the gateway will run it: onnxruntime on one thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.path = path
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, columns: Columns) -> np.ndarray:
        """The price, float32[n]."""
        typed = {name: c.astype(object) if c.dtype.kind == "U" else c for name, c in columns.items()}
        return self.session.run(None, typed)[0][:, 0]

    def microseconds(self, columns: Columns, repeats: int = 300) -> float:
        """Median time per row of this batch."""
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.run(columns)
            spent.append(time.perf_counter() - start)
        return float(np.median(spent[repeats // 10 :])) * 1e6 / len(next(iter(columns.values())))

    def verify(self, pipeline: Any, test: Priced) -> None:
        """The graph gives what the pipeline gave, and a row the same alone as in a batch."""
        found = self.run(test.columns)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, pipeline.predict(frame(test.columns)), rtol=1e-4, atol=0.1)
        alone = [self.run(test.at(slice(i, i + 1)).columns) for i in range(100)]
        np.testing.assert_allclose(found[:100], np.concatenate(alone), rtol=1e-6)

    def report(self, test: Priced) -> str:
        error = np.abs(self.run(test.columns).astype(np.float64) - test.y)
        one, many = (self.microseconds(test.at(slice(n)).columns) for n in (1, 32))
        return (
            f"{self.path.stem:10}{error.mean():12.1f}{np.median(error):15.1f}{(error / test.y).mean():11.2%}"
            f"{self.path.stat().st_size / 1000:9.0f}{one:11.1f}{many:12.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path, metavar="CSV", help="plotnine/data/diamonds.csv")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-only", action="store_true", help="write var/ only")
    chosen = parser.parse_args()
    data = split(chosen.csv, chosen.seed)
    write_data(data, chosen.out)
    if chosen.data_only:
        return
    write_examples(data.test, chosen.out, chosen.seed)
    lines = ["model       mean error   median error   relative       kB   us/row 1   us/row 32"]
    for name, pipeline in train(data.train, chosen.seed).items():
        path = chosen.out / f"{name}.onnx"
        export(pipeline, data.train.columns, path)
        served = Served(path)
        served.verify(pipeline, data.test)
        lines.append(served.report(data.test))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
