"""LightGBM and XGBoost, exported by onnxmltools as its documentation shows."""

from __future__ import annotations

import numpy as np
from exported import Exported, outliers, split
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from xgboost import XGBClassifier

TRAINED = 1_000


def lightgbm() -> Exported:
    """Customers' numbers, some missing, which boosted trees take as they are. Two classes, ZipMap."""
    from tables import churn

    table, words = churn(4_000, seed=3)
    x = table.select_dtypes("number").to_numpy(np.float32)
    y = (words == "stay").astype(np.int64)
    model = LGBMClassifier(n_estimators=40, num_leaves=15, n_jobs=1, verbose=-1).fit(x[:2_000], y[:2_000])
    exported = convert_lightgbm(model, initial_types=[("input", FloatTensorType([None, x.shape[1]]))])
    held = {"input": x[2_000:], "y": y[2_000:], "expected": model.predict_proba(x[2_000:]).astype(np.float32)}
    rows, asked = split(held, 1_600)
    return Exported(exported.SerializeToString(), rows, asked, outliers({"input": x}))


def xgboost() -> Exported:
    """Handwritten digits, ten classes."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order].astype(np.int64)
    model = XGBClassifier(n_estimators=60, max_depth=3, n_jobs=1).fit(x[:600], y[:600])
    exported = convert_xgboost(model, initial_types=[("float_input", FloatTensorType([None, x.shape[1]]))])
    held = {"float_input": x[600:], "y": y[600:], "expected": model.predict_proba(x[600:]).astype(np.float32)}
    rows, asked = split(held, 1_000)
    noise = np.random.default_rng(1).integers(0, 160, (1, 64)).astype(np.float32)
    return Exported(exported.SerializeToString(), rows, asked, {"noise": {"float_input": noise}})
