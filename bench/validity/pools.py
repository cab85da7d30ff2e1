"""Four populations: every row labelled, with every model's answers. The true share of anything is an average.

A calibration file is drawn from a pool with replacement, so that its rows are independent draws from exactly
this population, and may be more than the pool has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.validity.fit_network import fit_network
from bench.validity.synthetic import Table, mixed, survey
from fallbacks.onnx import OnnxModel
from fallbacks.roles import PROBABILITIES
from gateway.calibration.folds import ask
from gateway.core.decision import Tensors
from gateway.policy.kinds.rows import CalibrationRows, Labels

CONFIGS = Path(__file__).parents[2] / "configs"
FASHION_FILES = Path("/usr/share/datasets/fashion-mnist")
POOL_ROWS = 4_000
TRAINING_ROWS = 4_000
HIDDEN = (64, 6)
"""Hidden units of each rung of the synthetic tables. `fdbd` takes 130 rows to fit on at 64 features, and 194
at the 96 of letters, more than a file of 500 rows has for it: letters are judged without it."""
RUNGS = ("primary", "small")

Guard = Mapping[str, Any]
"""The fields of a guard's policy that say what it measures, without cuts and shares."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A population. rows: all of it; models: of each rung; guards: to choose from, by name.

    by: slices for `false_alarm_by`; wrong: the share of wrong answers of each rung over the whole population.
    """

    name: str
    rows: CalibrationRows
    models: Mapping[str, OnnxModel]
    guards: Mapping[str, Guard]
    by: Any
    wrong: Sequence[float]


def _images() -> Pool:
    guards = {
        "ood": _ood(["gen", "rmd", "residual", "knn", "raw"]),
        "second": {"kind": "squeeze", "on_error": "degrade"},
        "observed": _ood(["noise"]),
    }
    models = _models("fashion")
    with TemporaryDirectory() as folder:
        if FASHION_FILES.is_dir():
            _run("fashion", "--fashion", str(FASHION_FILES), "--data-only", "--out", folder)
        made = Path(folder) / "var" / "calibration.npz"
        x, y = _read(made if made.is_file() else CONFIGS / "fashion" / "samples.npz", "image")
    return _pool("images", models, {"image": x.astype(np.float32)}, y, guards, "predicted_class")


def _letters() -> Pool:
    with TemporaryDirectory() as folder:
        _run("letters", "--data-only", "--out", folder)
        x, y = _read(Path(folder) / "var" / "calibration.npz", "attributes")
    guards = _of_table(["gen", "rmd", "residual", "knn", "raw"])
    rows = {"attributes": x.astype(np.float32)}
    return _pool("letters", _models("letters"), rows, y, guards, "predicted_class")


def _survey() -> Pool:
    guards = _of_table(["gen", "rmd", "knn", "raw"])
    return _synthetic("survey", survey(TRAINING_ROWS + POOL_ROWS, 1), guards, "predicted_class")


def _mixed() -> Pool:
    guards = _of_table(["gen", "fdbd", "rmd", "residual", "knn", "raw"])
    return _synthetic("mixed", mixed(TRAINING_ROWS + POOL_ROWS, 2), guards, {"input": "region"})


POOLS: Mapping[str, Callable[[], Pool]] = {
    "images": _images,
    "letters": _letters,
    "survey": _survey,
    "mixed": _mixed,
}


def _of_table(detectors: Sequence[str]) -> dict[str, Guard]:
    return {"ood": _ood(detectors), "second": _ood(["raw"]), "observed": _ood(["raw"])}


def _ood(detectors: Sequence[str]) -> Guard:
    return {"kind": "ood", "detectors": [*detectors], "on_error": "defer"}


def _synthetic(name: str, table: Table, guards: Mapping[str, Guard], by: Any) -> Pool:
    training, rest = table.at(slice(TRAINING_ROWS)), table.at(slice(TRAINING_ROWS, None))
    models = {
        rung: OnnxModel(rung, fit_network(training.x, training.y, table.classes, hidden, seed=5).onnx(), 1)
        for rung, hidden in zip(RUNGS, HIDDEN, strict=True)
    }
    return _pool(name, models, rest.x, rest.y, guards, by)


def _models(config: str) -> dict[str, OnnxModel]:
    files = ("primary.onnx", "fallback.onnx")
    return {rung: OnnxModel.load(CONFIGS / config / file) for rung, file in zip(RUNGS, files, strict=True)}


def _pool(
    name: str, models: Mapping[str, OnnxModel], x: Tensors, y: Labels, guards: Mapping[str, Guard], by: Any
) -> Pool:
    x, y = {k: array[:POOL_ROWS] for k, array in x.items()}, y[:POOL_ROWS]
    answers = {rung: ask(model, x) for rung, model in models.items()}
    rows = CalibrationRows.classified(x, y, answers, RUNGS[0], partial(ask, models[RUNGS[0]]))
    wrong = [float((answer[PROBABILITIES].argmax(1) != y).mean()) for answer in answers.values()]
    return Pool(name, rows, models, guards, by, wrong)


def _read(path: Path, name: str) -> tuple[NDArray[Any], Labels]:
    with np.load(path) as arrays:
        x = arrays[name] * arrays["scale"] if "scale" in arrays else arrays[name]
        return x, arrays["y"].astype(np.int64)


def _run(config: str, *arguments: str) -> None:
    script = CONFIGS / config / "train.py"
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True)  # noqa: S603
