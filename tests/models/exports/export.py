"""Exports one model and rows for it: `python export.py NAME FOLDER`, in its own environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import boosted
import files
import pictures
import sklearn_models
import text
from exported import Exported, save

EXPORTS: dict[str, Callable[[], Exported]] = {
    "logistic_regression": sklearn_models.logistic_regression,
    "forest_columns": sklearn_models.forest_columns,
    "regressor": sklearn_models.regressor,
    "label_only": sklearn_models.label_only,
    "fixed_batch": sklearn_models.fixed_batch,
    "lightgbm": boosted.lightgbm,
    "xgboost": boosted.xgboost,
    "text_classifier": text.text_classifier,
    "magika": files.magika_files,
    "orientation": pictures.orientation,
    "detector": pictures.detector,
}

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    save(EXPORTS[name](), Path(folder))
