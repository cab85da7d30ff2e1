"""Which folders `gateway serve DIR...` serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import PolicyError
from gateway.serving.folders import deployment_folders


def folder(at: Path, policy: bool = True) -> Path:
    at.mkdir(parents=True)
    if policy:
        (at / "gateway.yaml").write_text("schema: 1\n")
    return at


def test_folders_are_taken_as_they_are_given(tmp_path: Path) -> None:
    b, a = folder(tmp_path / "b"), folder(tmp_path / "a")
    assert deployment_folders([b, a]) == [b, a]


def test_a_folder_of_deployments_stands_for_its_subfolders_with_a_policy(tmp_path: Path) -> None:
    found = [folder(tmp_path / name) for name in ("a", "b")]
    folder(tmp_path / "data", policy=False)
    assert deployment_folders([tmp_path]) == found


def test_a_folder_with_a_policy_is_itself_the_deployment(tmp_path: Path) -> None:
    outer = folder(tmp_path / "outer")
    folder(outer / "inner")
    assert deployment_folders([outer]) == [outer]


def test_one_of_several_that_has_no_policy_is_a_deployment_that_is_not_ready(tmp_path: Path) -> None:
    a, empty = folder(tmp_path / "a"), folder(tmp_path / "empty", policy=False)
    assert deployment_folders([a, empty]) == [a, empty]


def test_one_of_several_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no folder"):
        deployment_folders([folder(tmp_path / "a"), tmp_path / "nowhere"])
