"""The rows that the demo and the load test send: good ones, and families of outliers.

| the good rows are | if |
|---|---|
| those of a file | one is named with `--data` |
| those of `samples.npz` | the folder brings it, as the ready deployments do |
| those that calibration kept in `guards.npz` | otherwise |

Outliers are those of `outliers.npz`, else they are made from the good rows (`outliers.py`). `samples.npz`
holds an array an input; `outliers.npz` an array `FAMILY/INPUT` each, or `FAMILY` for a model of one input.
Bytes for an input of floats are pictures there, 255 for 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.data_files import load_columns
from gateway.calibration.dataset import read
from gateway.cli.outliers import made_outliers, sendable, take
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.certificate import GUARDS_FILE
from gateway.deployment.kept_rows import KeptRows
from gateway.protocol.contract import Contract
from guards import arrays

Rows: TypeAlias = NDArray[np.float32]
"""The rows of a model of one input of floats."""

SAMPLES_FILE, OUTLIERS_FILE = "samples.npz", "outliers.npz"
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """clean: n >= 1 good rows, each input by name; families: of outliers, the same by name.

    prepared: the good rows came with the deployment, whose makers know how such rows end; kept: they are
    those of its calibration.
    """

    clean: Tensors
    families: Mapping[str, Tensors]
    prepared: bool = False
    kept: bool = False


def load_samples(folder: Path, contract: Contract, data: Path | None = None, seed: int = SEED) -> Samples:
    """The rows to send to this model.

    Args:    data: a file of rows, as of `gateway calibrate`; seed: of the outliers that are made.
    Raises:  ArtifactError that names the file, what is wrong and what to do.
    """
    prepared = data is None and (folder / SAMPLES_FILE).exists()
    if data is not None:
        clean = _rows_of_file(data, contract)
    elif prepared:
        clean = _prepared_rows(folder / SAMPLES_FILE, contract)
    else:
        clean = _kept_rows(folder / GUARDS_FILE, contract)
    path = folder / OUTLIERS_FILE
    families = _families(path, contract) if path.exists() else made_outliers(contract.inputs, clean, seed)
    return Samples(clean, families, prepared, kept=data is None and not prepared)


def _rows_of_file(path: Path, contract: Contract) -> Tensors:
    with _naming(path, "give rows as .npz, .csv or .parquet"):
        texts = {spec.name for spec in contract.inputs if spec.datatype == "BYTES"}
        return read(load_columns(path, texts), contract, labels_needed=False).x


def _prepared_rows(path: Path, contract: Contract) -> Tensors:
    """Raises ArtifactError that says what to save in the file."""
    named = ", ".join(f"{spec.name!r}: rows" for spec in contract.inputs)
    mend = f"save held-out rows there with np.savez({SAMPLES_FILE!r}, **{{{named}}}), or remove it"
    with _naming(path, mend):
        try:
            return read(_scaled(arrays.load(path), contract), contract, labels_needed=False).x
        except ValueError as error:
            raise ValueError(f"{error}; {mend}") from error


def _kept_rows(path: Path, contract: Contract) -> Tensors:
    """Those of the kept rows that still fit: the policy may have another range than when they were kept."""
    mend = "run `gateway calibrate`, which keeps some rows, or give --data ROWS"
    with _naming(path, mend):
        x = KeptRows.unpack(arrays.load(path)).x
        for spec in contract.inputs:
            if spec.name not in x or not spec.fits(x[spec.name]):
                raise ValueError(f"the rows that calibration kept do not fit input {spec.name!r}; {mend}")
        x = {spec.name: x[spec.name] for spec in contract.inputs}
        x = take(x, np.flatnonzero(sendable(contract.inputs, x)))
        if not len(x[contract.inputs[0].name]):
            raise ValueError(
                f"no row that calibration kept lies in the ranges of the policy's inputs; {mend}"
            )
        return x


def _families(path: Path, contract: Contract) -> dict[str, Tensors]:
    first, found = contract.inputs[0].name, dict[str, dict[str, NDArray[Any]]]()
    with _naming(path, "remove it to send outliers that are made from the good rows"):
        for name, array in arrays.load(path).items():
            family, of_input, own = name.partition("/")
            if of_input or array.ndim > 1:
                found.setdefault(family, {})[own or first] = array
        return {name: _family(name, held, contract) for name, held in found.items()}


def _family(name: str, held: Mapping[str, NDArray[Any]], contract: Contract) -> Tensors:
    try:
        return read(_scaled(held, contract), contract, labels_needed=False).x
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _scaled(held: Mapping[str, NDArray[Any]], contract: Contract) -> dict[str, NDArray[Any]]:
    """The arrays, bytes for an input of floats as 0 to 1. `x` will do for the first input, as in any file."""
    specs = {"x": contract.inputs[0], **contract.inputs_by_name}
    floats = {name for name, spec in specs.items() if spec.dtype.kind == "f"}
    return {
        name: array / np.float32(255) if array.dtype == np.uint8 and name in floats else array
        for name, array in held.items()
    }


@contextmanager
def _naming(path: Path, mend: str) -> Iterator[None]:
    """Raises ArtifactError naming the file for OSError and ValueError."""
    try:
        yield
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}; {mend}"
        raise ArtifactError([Problem("", what, str(path))]) from error
    except ValueError as error:
        raise ArtifactError([Problem("", str(error).removeprefix(f"{path}: "), str(path))]) from error
