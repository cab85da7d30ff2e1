"""Models of scikit-learn, exported by skl2onnx as its documentation shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from exported import Columns, Exported, outliers, split
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

TRAINED = 500


def logistic_regression() -> Exported:
    """Handwritten digits, all defaults: one input `X`, the label, and probabilities behind a ZipMap."""
    x, y = _shuffled(*load_digits(return_X_y=True))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x[:TRAINED], y[:TRAINED])
    rows, asked = split({"X": x, "y": y, "expected": model.predict_proba(x)}, 1_500)
    rows = {name: values[TRAINED:] for name, values in rows.items()}
    noise = np.random.default_rng(1).integers(0, 160, (1, 64)).astype(np.float32)
    return Exported(to_onnx(model, x[:1]).SerializeToString(), rows, asked, {"noise": {"X": noise}})


def forest_columns() -> Exported:
    """Customers, a column an input: numbers with missing values, integers, categories; labels are words."""
    from tables import churn

    table, y = churn(4_000, seed=1)
    model = make_pipeline(_by_kind(table), RandomForestClassifier(60, max_depth=9, random_state=0))
    model.fit(table[:2_000], y[:2_000])
    columns = columns_of(table) | {"y": y, "expected": model.predict_proba(table).astype(np.float32)}
    _, held = split(columns, 2_000)
    rows, asked = split(held, 1_600)
    return Exported(_onnx(model, table), rows, asked, outliers(columns_of(table)), table=True)


def regressor() -> Exported:
    """What a flat costs, a column an input: numbers, integers, categories."""
    from tables import rents

    table, y = rents(3_000, seed=2)
    model = make_pipeline(_by_kind(table), RandomForestRegressor(40, max_depth=10, random_state=0))
    model.fit(table[:1_000], y[:1_000])
    columns = columns_of(table) | {"y": y, "expected": model.predict(table).astype(np.float32)}
    rows, asked = split({name: values[1_000:] for name, values in columns.items()}, 1_600)
    return Exported(_onnx(model, table), rows, asked, outliers(columns_of(table)))


def label_only() -> Exported:
    """Breast cancer, and of the export the label alone."""
    x, y = _shuffled(*load_breast_cancer(return_X_y=True))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:150], y[:150])
    exported = select_model_inputs_outputs(to_onnx(model, x[:1]), ["label"])
    held = {"X": x[150:], "y": y[150:], "expected": model.predict(x[150:])}
    rows, asked = split(held, 300)
    return Exported(exported.SerializeToString(), rows, asked, {"another unit": {"X": 100 * x[-20:]}})


def fixed_batch() -> Exported:
    """Handwritten digits, declared with a batch of one, as a graph is that was traced with a single row."""
    x, y = _shuffled(*load_digits(return_X_y=True))
    model = make_pipeline(StandardScaler(), MLPClassifier((48,), max_iter=150, random_state=0))
    model.fit(x[:TRAINED], y[:TRAINED])
    exported = to_onnx(model, initial_types=[("pixels", FloatTensorType([1, 64]))], options={"zipmap": False})
    held = {"pixels": x[TRAINED:], "y": y[TRAINED:], "expected": model.predict_proba(x[TRAINED:])}
    rows, asked = split(held, 1_000)
    noise = np.random.default_rng(1).integers(0, 160, (1, 64)).astype(np.float32)
    return Exported(exported.SerializeToString(), rows, asked, {"noise": {"pixels": noise}})


def columns_of(table: pd.DataFrame) -> Columns:
    """A data frame as the inputs of its export: float32, int64 or text, [n, 1] each."""
    return {
        name: (column.astype(str).to_numpy(str) if column.dtype.kind not in "fi" else column.to_numpy())[
            :, None
        ]
        for name, column in table.items()
    }


def _by_kind(table: pd.DataFrame) -> ColumnTransformer:
    numbers = [name for name in table if table[name].dtype.kind == "f"]
    counts = [name for name in table if table[name].dtype.kind == "i"]
    words = [name for name in table if name not in numbers + counts]
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("counts", StandardScaler(), counts),
            ("words", OneHotEncoder(handle_unknown="ignore"), words),
        ]
    )


def _onnx(model: object, table: pd.DataFrame) -> bytes:
    """The export of a pipeline over a data frame, with skl2onnx's defaults."""
    exported: bytes = to_onnx(model, table[:1]).SerializeToString()
    return exported


def _shuffled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), y[order].astype(np.int64)
