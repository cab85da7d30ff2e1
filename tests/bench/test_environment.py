"""Environments of their own: made once, and again when their file changes or they were not finished."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.environment import python_of


def test_it_is_made_once_and_anew_when_its_file_changes(tmp_path: Path) -> None:
    wanted, folder = tmp_path / "wanted.txt", tmp_path / "environment"
    wanted.write_text("# nothing\n")
    python = python_of(wanted, folder)
    subprocess.run([str(python), "-m", "pip", "--version"], check=True, capture_output=True)
    mark = folder / "mark"
    mark.touch()
    assert python_of(wanted, folder) == python
    assert mark.exists()
    wanted.write_text(f"{tmp_path}/missing-1.0-py3-none-any.whl\n")
    with pytest.raises(subprocess.CalledProcessError):
        python_of(wanted, folder)
    assert not mark.exists()
    mark.touch()
    with pytest.raises(subprocess.CalledProcessError):  # what was not finished is not taken for good
        python_of(wanted, folder)
    assert not mark.exists()
