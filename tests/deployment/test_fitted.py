"""What calibration fitted, written to guards.npz and read back, and what is said where a part is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.core.errors import ArtifactError
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import Fitted, load_guards, save_guards
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.schema import Policy
from guards import arrays
from tests.support.regressors import calibrated, drawn, interval, policy_of, regressor

OOD = {
    "kind": "ood",
    "detectors": ["raw"],
    "cuts": {"degrade": "certified"},
    "budget_s": 5.0,
    "on_error": "defer",
}
GUARDS = [
    OOD | {"name": "far"},
    {"name": "rate", "kind": "rate", "per_s": 1e6, "burst": 1e6, "budget_s": 5.0, "on_error": "allow"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regressor with a certified guard, a fixed one, a rung with intervals and one without."""
    folder = tmp_path_factory.mktemp("fitted")
    calibrated(folder, policy_of([interval(), None], guards=GUARDS), [regressor(), regressor(2)])
    return folder


@pytest.fixture
def loaded(folder: Path) -> tuple[Policy, Fitted, KeptRows]:
    policy = Deployment.read(folder).policy
    return (policy, *load_guards(policy, folder / "guards.npz"))


def test_everything_that_is_fitted_comes_back_by_its_name(loaded: tuple[Policy, Fitted, KeptRows]) -> None:
    policy, fitted, kept = loaded
    assert set(fitted.guards) == {"far"}, "a fixed guard has no state"
    assert set(fitted.intervals) == {"rung0"}, "one for each rung that checks them"
    assert fitted.view.table is not None
    assert fitted.view.table.columns == ("x[0]", "x[1]", "x[2]")
    assert len(kept) == 64
    assert kept.sizes(["x"]) == {"x": (3,)}
    assert kept.answer == {}, "guards read nothing of a number"
    assert policy.task == "regression"


def test_what_is_read_is_written_again_to_the_same_bytes(
    folder: Path, loaded: tuple[Policy, Fitted, KeptRows], tmp_path: Path
) -> None:
    _, fitted, kept = loaded
    save_guards(tmp_path / "guards.npz", fitted, kept)
    assert (tmp_path / "guards.npz").read_bytes() == (folder / "guards.npz").read_bytes()


def test_the_kept_rows_are_rows_of_the_file_that_was_calibrated_on(
    folder: Path, loaded: tuple[Policy, Fitted, KeptRows]
) -> None:
    x, _ = drawn(np.random.default_rng(0), 1500)
    known = {row.tobytes() for row in x}
    assert all(row.tobytes() in known for row in loaded[2].x["x"])


@pytest.mark.parametrize(
    ("prefix", "named"),
    [
        ("view", "view#"),
        ("far/", "far/"),
        ("far.input_only", "far.input_only"),
        ("rung0.interval", "rung0.interval#"),
    ],
)
def test_a_missing_part_is_named_with_the_file(folder: Path, tmp_path: Path, prefix: str, named: str) -> None:
    packed = arrays.load(folder / "guards.npz")
    path = tmp_path / "guards.npz"
    arrays.save(path, {name: array for name, array in packed.items() if not name.startswith(prefix)})
    with pytest.raises(ArtifactError) as caught:
        load_guards(Deployment.read(folder).policy, path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    assert problem.what.startswith(named)
    assert problem.what.endswith("missing from the file; calibrate again")


def test_a_file_without_kept_rows_asks_for_another_calibration(folder: Path, tmp_path: Path) -> None:
    packed = arrays.load(folder / "guards.npz")
    path = tmp_path / "guards.npz"
    arrays.save(path, {name: array for name, array in packed.items() if not name.startswith("kept.")})
    with pytest.raises(ArtifactError) as caught:
        load_guards(Deployment.read(folder).policy, path)
    assert caught.value.problems[0].what == "holds no rows to try the models with; calibrate again"


def test_intervals_of_a_rung_that_has_none_in_the_file_are_missed(folder: Path) -> None:
    """A policy whose second rung has gained a check, and the file from before."""
    policy = Policy.model_validate(policy_of([interval(), interval()], guards=GUARDS))
    with pytest.raises(ArtifactError, match=r"rung1\.interval#"):
        load_guards(policy, folder / "guards.npz")


def test_a_file_that_is_no_archive_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "guards.npz").write_bytes(b"PK\3\4 and nothing else")
    with pytest.raises(ArtifactError, match=r"not a readable \.npz"):
        load_guards(Deployment.read(folder).policy, tmp_path / "guards.npz")


def test_models_are_tried_at_load_with_kept_rows(folder: Path, tmp_path: Path) -> None:
    """The loaded model's answers to them are those of calibration."""
    artifacts = load_artifacts(Deployment.read(folder))
    answer: dict[str, Any] = dict(artifacts.models["rung0"].run(artifacts.kept.x))
    artifacts.close()
    assert set(answer) == {"value", "lower", "upper"}
    assert all(len(array) == 64 for array in answer.values())
