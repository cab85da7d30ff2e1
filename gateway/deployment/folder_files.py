"""The files of a folder that a load reads, and whether they have changed, without reading them again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gateway.deployment.certificate import CERTIFICATE_FILE, GUARDS_FILE, SCORES_FILE
from gateway.deployment.signature import SIGNATURE_FILE
from gateway.deployment.upstreams import UPSTREAMS_FILE
from gateway.policy.read import POLICY_FILE
from gateway.policy.schema import OnnxPolicy, Policy

FIXED_FILES = (
    POLICY_FILE,
    CERTIFICATE_FILE,
    SIGNATURE_FILE,
    GUARDS_FILE,
    SCORES_FILE,
    UPSTREAMS_FILE,
)
"""The files whose names are the same in every folder; the policy names those of models."""


class FileState(NamedTuple):
    """What differs after a file was written or replaced; zeros for a file that cannot be looked at."""

    name: str
    mtime_ns: int
    size: int
    inode: int


FolderState: TypeAlias = tuple[FileState, ...]
"""The state of each file, those of FIXED_FILES first."""


def model_files(policy: Policy) -> tuple[str, ...]:
    """The names of the model files of a policy, each once, in its order."""
    named = (
        rung.model.path if isinstance(rung.model, OnnxPolicy) else rung.model.encoder for rung in policy.rungs
    )
    return tuple(dict.fromkeys(name for name in named if name is not None))


def folder_state(folder: Path, models: Iterable[str]) -> FolderState:
    """The state of the files of a folder. Blocks: a look at each, 3 us on a local disk. Never raises."""
    return tuple(_file_state(folder, name) for name in (*FIXED_FILES, *models))


def _file_state(folder: Path, name: str) -> FileState:
    try:
        found = (folder / name).stat()
    except (OSError, ValueError):
        return FileState(name, 0, 0, 0)
    return FileState(name, found.st_mtime_ns, found.st_size, found.st_ino)
