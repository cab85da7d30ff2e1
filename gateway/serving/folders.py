"""Which folders are served: those named, or the deployments in a folder that is none itself."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from itertools import chain, count
from pathlib import Path

import yaml

from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import VAR
from gateway.policy.read import MOST_BYTES, POLICY_FILE

VALID_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""As a policy's `name`."""


def deployment_folders(named: Sequence[Path]) -> list[Path]:
    """The deployment folders that these folders are, or have as subfolders in the order of their names.

    Raises: PolicyError for what is no folder, or has no policy in itself or in any subfolder.
    """
    return [folder for path in named for folder in _deployments_in(path, alone=len(named) == 1)]


def _deployments_in(path: Path, *, alone: bool) -> list[Path]:
    inner = sorted(policy.parent for policy in path.glob(f"*/{POLICY_FILE}"))
    if inner and not (path / POLICY_FILE).exists():
        return inner
    if alone or path.is_dir():
        return [path]  # without a policy it cannot be loaded, which is reported then
    raise PolicyError([Problem("", "is no folder; give deployment folders, or one that has some", str(path))])


def state_folder(folders: Sequence[Path], state_dir: Path | None) -> Path:
    """Where a process writes what belongs to all its deployments: persons, sessions, `run/`.

    Without a folder for state it is `var` of the first deployment.
    """
    return state_dir if state_dir is not None else folders[0] / VAR


def name_of(folder: Path, taken: Container[str]) -> str:
    """What a deployment whose policy is invalid is called: a name that is not taken. Never raises.

    The name in its file if one can be read, else its folder's; with a number behind it if that is taken.
    """
    path = folder / POLICY_FILE
    try:
        small = path.is_file() and path.stat().st_size <= MOST_BYTES
        name = yaml.safe_load(path.read_text(encoding="utf-8"))["name"] if small else None
    except Exception:  # noqa: BLE001 (whatever is wrong with the file has been reported)
        name = None
    if not (isinstance(name, str) and VALID_NAME.fullmatch(name)):
        name = folder.resolve().name
    return next(one for one in chain([name], (f"{name}-{i}" for i in count(2))) if one not in taken)
