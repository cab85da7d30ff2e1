"""The last policies that were in force, kept in the folder for state: to compare with, and to go back to.

A version is a folder `policies/NUMBER` with the policy, its certificate and what that binds, as they were,
and `version.json` with the digests of the model files, which are not copied. The replicas of a deployment
share them: each keeps what it puts in force unless another one has. A policy that comes into force again gets
a new number, and its earlier copy is removed.

What is kept is what is in force, and not what the folder holds by then: the copy has to have the tag of the
policy in force, and its files the digests in its certificate.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.core.errors import ArtifactError, Problem, Problems
from gateway.deployment.artifacts import tag_of
from gateway.deployment.certificate import (
    CERTIFICATE_FILE,
    GUARDS_FILE,
    SCORES_FILE,
    load_certificate,
    sha256,
)
from gateway.deployment.deployment import Deployment
from gateway.deployment.folder_files import FIXED_FILES, model_files
from gateway.private_files import make_private_folder, sync_folder, write_lock, write_private_file

MOST_KEPT = 10
VERSIONS_FOLDER, DRAFT, RECORD_FILE = "policies", "draft", "version.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Version:
    """A policy that was in force.

    at_s: since when, Unix time. models: sha256 of each model file, by its name in the deployment folder.
    folder: where the other files are.
    """

    number: int
    tag: str
    at_s: float
    models: Mapping[str, str]
    folder: Path


def keep_version(folder: Path, state: Path, tag: str, at_s: float) -> None:
    """Keeps the files of a policy that has come into force; no more than MOST_KEPT. Blocks.

    Never raises: that a policy is not kept is logged, and stops nothing.
    Cost: 20 ms and the size of the files, or 1 ms if it is the latest that is kept.
    """
    root = state / VERSIONS_FOLDER
    try:
        with write_lock(root):
            kept = versions_in(state)
            if not kept or kept[-1].tag != tag:
                kept.append(_copy(folder, root, kept[-1].number + 1 if kept else 1, tag, at_s))
            _prune(root, kept)
    except (Problems, OSError) as error:
        log.error("policy %s is not kept among the last policies: %s", tag, error)


def versions_in(state: Path) -> list[Version]:
    """Every version that is kept, the oldest first. Blocks. Raises ArtifactError for one that is damaged."""
    records = sorted((state / VERSIONS_FOLDER).glob(f"[0-9]*/{RECORD_FILE}"))
    return sorted(map(_read, records), key=lambda one: one.number)


def _read(record: Path) -> Version:
    try:
        fields: Any = orjson.loads(record.read_bytes())
        models = {str(name): str(digest) for name, digest in fields["models"].items()}
        return Version(
            int(record.parent.name), str(fields["tag"]), float(fields["at_s"]), models, record.parent
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"is no record of a policy ({type(error).__name__}): remove the folder {record.parent}"
        raise ArtifactError([Problem("", what, str(record))]) from error


def _copy(folder: Path, root: Path, number: int, tag: str, at_s: float) -> Version:
    """Copies the files, complete on the disk before they have their number."""
    draft = root / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    make_private_folder(draft)
    for name in FIXED_FILES:
        if (folder / name).is_file():
            write_private_file(draft / name, (folder / name).read_bytes())
    models = _verified(draft, folder, tag)
    record = {"tag": tag, "at_s": at_s, "models": models}
    write_private_file(draft / RECORD_FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    final = root / f"{number:06d}"
    draft.rename(final)
    sync_folder(root)
    return Version(number, tag, at_s, models, final)


def _verified(draft: Path, folder: Path, tag: str) -> dict[str, str]:
    """The digests of the model files. Raises ArtifactError if the copy is not of the policy of this tag."""
    policy, certificate = Deployment.read(draft).policy, load_certificate(draft)
    bound = {GUARDS_FILE: certificate.digests.guards, SCORES_FILE: certificate.digests.scores}
    whole = all(digest == _digest(draft / name) for name, digest in bound.items())
    if not whole or tag_of(policy, sha256(draft / CERTIFICATE_FILE)) != tag:
        raise ArtifactError([Problem("", "has changed since it was loaded", str(folder))])
    return {name: _digest(folder / name) for name in model_files(policy)}


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def _prune(root: Path, kept: list[Version]) -> None:
    """Removes earlier copies of one policy, and the oldest beyond MOST_KEPT."""
    newest = {one.tag: one.number for one in kept}
    once = [one for one in kept if newest[one.tag] == one.number]
    for one in [one for one in kept if one not in once] + once[:-MOST_KEPT]:
        shutil.rmtree(root / DRAFT, ignore_errors=True)
        one.folder.rename(root / DRAFT)  # at once: a folder of a number is complete
        shutil.rmtree(root / DRAFT)
