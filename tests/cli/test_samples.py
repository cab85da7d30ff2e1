"""Samples for the demo and the load test: what is missing is named before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.cli.samples import load_samples
from guards.arrays import save

MEND = "; save held-out rows there with np.savez('samples.npz', **{'a': rows}, y=labels)"


def saved(folder: Path, **arrays: Any) -> Path:
    save(folder / "samples.npz", {name: np.array(array) for name, array in arrays.items()})
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as refused:
        load_samples(folder, "a")
    return str(refused.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("name", ["a", "x"])
def test_rows_stand_under_the_name_of_the_input_or_under_x(tmp_path: Path, name: str) -> None:
    found = load_samples(saved(tmp_path, **{name: [[0, 255]], "y": [3]}), "a")
    assert (found.clean.tolist(), found.y.tolist(), found.families) == ([[0, 255]], [3], {})


def test_pictures_are_stored_as_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "outliers.npz", noise=np.full((2, 1), 255, np.uint8), of=np.arange(2))
    found = load_samples(saved(tmp_path, a=np.array([[51]], np.uint8), y=[0]), "a")
    assert found.clean.tolist() == [[np.float32(0.2)]]
    assert {name: rows.tolist() for name, rows in found.families.items()} == {"noise": [[1], [1]]}


def test_what_is_missing_is_named_with_what_to_save(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"samples.npz: cannot be read: No such file or directory{MEND}"
    assert refusal(saved(tmp_path, b=[1], y=[0])) == f"samples.npz: holds b, y, and no 'a'{MEND}"
    assert refusal(saved(tmp_path, a=[1])) == f"samples.npz: holds a, and no y{MEND}"
    (tmp_path / "samples.npz").write_bytes(b"")
    assert refusal(tmp_path).endswith(MEND)


def test_samples_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    assert refusal(saved(tmp_path, a=["u"], y=[0])) == "samples.npz: a is <U1, and samples are numbers"
    assert refusal(saved(tmp_path, a=[0], y=["no"])) == "samples.npz: y is <U2, and samples are numbers"
