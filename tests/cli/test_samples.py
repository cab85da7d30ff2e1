"""Which rows the demo and the load test send, and what is said where there are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gateway.cli.samples import load_samples
from gateway.core.errors import ArtifactError
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.protocol.contract import Contract
from guards import arrays
from tests.support.deployments import CONFIGS, clean_rows, letters, rebound
from tests.support.served import copy_of
from tests.support.typed import deployed
from tests.support.typed_models import texts, three_inputs
from tests.support.wire_parts import contract_of, spec_of


def contract(folder: Path) -> Contract:
    artifacts = load_artifacts(Deployment.read(folder))
    artifacts.close()
    return artifacts.contract


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("letters", {"shuffled", "uniform", "fractional"}),
        ("fashion", {"digits", "perturbed", "perturbed_small"}),
    ],
)
def test_a_ready_deployment_sends_the_samples_that_it_brings(
    name: str, families: set[str], tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path)
    [spec] = contract(folder).inputs
    samples = load_samples(folder, contract(folder))
    assert (samples.prepared, samples.kept) == (True, False)
    assert set(samples.families) == families
    for rows in (samples.clean, *samples.families.values()):
        assert spec.fits(rows[spec.name])
        assert spec.low is not None and spec.high is not None
        assert spec.low <= rows[spec.name].min() and rows[spec.name].max() <= spec.high
    assert len(samples.clean[spec.name]) == 1000


def test_any_other_sends_the_rows_that_calibration_kept_with_outliers_made_of_them(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    samples = load_samples(folder, contract(folder))
    assert (samples.prepared, samples.kept) == (False, True)
    assert samples.clean["attributes"].shape == (64, 16)
    assert list(samples.families) == ["numbers far off"]


def test_every_input_is_sent_whatever_its_datatype(tmp_path: Path) -> None:
    folder = deployed(tmp_path, three_inputs(), ["said", "total"], three_inputs_rows())
    samples = load_samples(folder, contract(folder))
    assert {name: array.dtype.kind for name, array in samples.clean.items()} == {
        "words": "O",
        "mask": "b",
        "series": "f",
    }
    assert set(samples.clean["words"]) <= {b"w%d" % i for i in range(1000)}
    assert list(samples.families) == ["numbers far off", "unseen text"]


def three_inputs_rows() -> dict[str, np.ndarray]:
    n = 1000
    total = np.where(np.arange(n) % 3 == 0, 50.0, np.arange(n) % 2 * 100.0)
    return {
        "words": texts(*(b"w%d" % i for i in range(n))),
        "mask": np.arange(4 * n).reshape(n, 2, 2) % 3 == 0,
        "series": np.stack([total - 1, np.ones(n)], 1),
        "y": np.where(total == 50, np.arange(n) % 2, total > 50).astype(np.int64),
    }


def test_a_file_of_rows_comes_before_both(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    file = tmp_path / "mine.csv"
    np.savetxt(file, clean_rows(7), "%d", ",", header=",".join(f"a{i}" for i in range(16)), comments="")
    samples = load_samples(folder, contract(folder), file)
    assert (samples.prepared, samples.kept) == (False, False)
    assert np.array_equal(samples.clean["attributes"], clean_rows(7))
    assert set(samples.families) == {"shuffled", "uniform", "fractional"}


def test_kept_rows_outside_a_range_that_came_later_are_not_sent(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    before = load_samples(folder, contract(folder)).clean["attributes"]
    rebound(folder, ("{low: 0, high: 15}", "{low: 0, high: 14}"))
    after = load_samples(folder, contract(folder)).clean["attributes"]
    assert np.array_equal(after, before[before.max(1) <= 14])
    assert 0 < len(after) < len(before)


def test_outliers_of_several_inputs_are_arrays_of_family_and_input(tmp_path: Path) -> None:
    age, plan = spec_of("FP32", (None, 1), "age"), spec_of("BYTES", (None, 1), "plan")
    held = {"age": np.ones((3, 1), np.float32), "plan": np.array([["a"], ["b"], ["c"]])}
    arrays.save(tmp_path / "samples.npz", held)
    both = {f"{family}/{name}": array[:2] for family in ("one", "two") for name, array in held.items()}
    arrays.save(tmp_path / "outliers.npz", both)
    found = load_samples(tmp_path, contract_of(age, plan)).families
    assert {family: rows["plan"].ravel().tolist() for family, rows in found.items()} == {
        "one": [b"a", b"b"],
        "two": [b"a", b"b"],
    }


@pytest.mark.parametrize("name", ["a", "x"])
def test_rows_stand_under_the_name_of_the_input_or_under_x(tmp_path: Path, name: str) -> None:
    arrays.save(tmp_path / "samples.npz", {name: np.array([[0, 255]]), "y": np.array([3])})
    found = load_samples(tmp_path, contract_of(spec_of("FP32", name="a")))
    assert found.clean["a"].tolist() == [[0, 255]]


@pytest.mark.parametrize("name", ["a", "x"])
def test_pictures_are_stored_as_bytes(tmp_path: Path, name: str) -> None:
    bytes_ = {name: np.array([[0, 51]], np.uint8), "y": np.array([0])}
    arrays.save(tmp_path / "samples.npz", bytes_)
    noise: dict[str, np.ndarray] = {"noise": np.full((2, 2), 255, np.uint8), "of": np.arange(2)}
    arrays.save(tmp_path / "outliers.npz", noise)
    found = load_samples(tmp_path, contract_of(spec_of("FP32", name="a", low=0.0, high=1.0)))
    assert found.clean["a"].tolist() == [[0, np.float32(0.2)]]
    assert {family: rows["a"].tolist() for family, rows in found.families.items()} == {
        "noise": [[1, 1], [1, 1]]
    }
    whole = load_samples(tmp_path, contract_of(spec_of("UINT8", name="a")))
    assert whole.clean["a"].tolist() == [[0, 51]]


def test_what_is_wrong_with_samples_is_named_with_what_to_save(tmp_path: Path) -> None:
    known = contract_of(spec_of("FP32", name="a"))
    mend = "; save held-out rows there with np.savez('samples.npz', **{'a': rows}), or remove it"
    text, rows = np.array([["u", "v"]]), np.ones((1, 2))
    cases: list[tuple[dict[str, np.ndarray] | None, str]] = [
        ({"b": rows, "y": np.zeros(1)}, "a: missing; the file holds b"),
        ({"a": text}, "a: is text, not numbers that FP32 can hold: row 0 holds 'u'"),
        ({"a": rows[:0]}, "a: holds no rows"),
        (None, ""),
    ]
    for held, what in cases:
        (tmp_path / "samples.npz").write_bytes(b"")
        if held is not None:
            arrays.save(tmp_path / "samples.npz", held)
        with pytest.raises(ArtifactError) as refused:
            load_samples(tmp_path, known)
        message = str(refused.value)
        assert message.startswith(f"{tmp_path}/samples.npz: {what}") and message.endswith(mend), message


def test_what_is_missing_or_does_not_fit_is_said_with_the_file_and_the_way_out(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    known = contract(folder)
    other = contract_of(spec_of("FP32", (None, 3), "attributes"))
    one_family = letters(tmp_path / "family")
    arrays.save(one_family / "outliers.npz", {"odd": np.ones((2, 3), np.float32)})
    mine = tmp_path / "mine.npz"
    arrays.save(mine, {"nothing": np.ones((2, 3), np.float32)})
    (tmp_path / "empty").mkdir()
    shutil.copy(CONFIGS / "letters" / "gateway.yaml", tmp_path / "empty")
    wrong: dict[tuple[Path, Contract, Path | None], tuple[str, str]] = {
        (tmp_path / "empty", known, None): ("guards.npz", "run `gateway calibrate`"),
        (folder, other, None): ("guards.npz", "do not fit input 'attributes'; run `gateway calibrate`"),
        (folder, known, tmp_path / "none.csv"): ("none.csv", "cannot be read: No such file"),
        (folder, known, mine): ("mine.npz", "attributes: missing; the file holds nothing"),
        (one_family, known, None): ("outliers.npz", "odd: attributes: has shape (2, 3)"),
    }
    for (at, wanted, data), (file, what) in wrong.items():
        with pytest.raises(ArtifactError) as caught:
            load_samples(at, wanted, data)
        assert file in str(caught.value) and what in str(caught.value), str(caught.value)
