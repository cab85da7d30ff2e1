"""Replaces several files of a deployment folder so that at no moment it holds a mixture that can be loaded.

One file is renamed into its place. Of several, the certificate is removed first and put in its place last:
without it nothing can be loaded, so a reload meanwhile, or after a crash, is refused and the old policy stays
in force. Everything is on the disk under other names before the first file changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.deployment.certificate import CERTIFICATE_FILE
from gateway.private_files import sync_folder

NEW = ".new"


def replace_files(folder: Path, contents: Mapping[str, bytes | None]) -> list[str]:
    """Puts files in their place, and removes those of None; the names of those that changed, in order.

    Blocks until all of it is on the disk. A file keeps its mode. Raises OSError: before the first change
    where the disk is full or the folder cannot be written.
    """
    changed = [name for name, content in contents.items() if _content(folder / name) != content]
    if not changed:
        return []
    if len(changed) > 1 and CERTIFICATE_FILE not in changed:
        contents = {**contents, CERTIFICATE_FILE: _content(folder / CERTIFICATE_FILE)}
    order = sorted({*changed, *([CERTIFICATE_FILE] if len(changed) > 1 else [])}, key=_certificate_last)
    drafts = {name: content for name in order if (content := contents[name]) is not None}
    for name, content in drafts.items():
        _write_draft(folder / name, content)
    for step in _steps(order):
        path = folder / step.removeprefix("-")
        if step.startswith("-") or step not in drafts:
            path.unlink(missing_ok=True)
        else:
            _draft_of(path).replace(path)
        sync_folder(path.parent)
    return changed


def _steps(order: list[str]) -> Iterator[str]:
    """The names in the order of their changes; with `-` before one that is only removed."""
    if len(order) > 1:
        yield f"-{CERTIFICATE_FILE}"
    yield from order


def _certificate_last(name: str) -> tuple[bool, str]:
    return name == CERTIFICATE_FILE, name


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{NEW}")


def _write_draft(path: Path, content: bytes) -> None:
    """The content on the disk under another name, with the mode that the file has, or a new one gets."""
    draft = _draft_of(path)
    draft.unlink(missing_ok=True)
    with draft.open("xb") as file:
        if path.is_file():
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
