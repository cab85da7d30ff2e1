"""Several files replaced, with a crash at every step: what is left is old, new or cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import Problems
from gateway.deployment.artifacts import tag_of
from gateway.deployment.certificate import CERTIFICATE_FILE, sha256
from gateway.deployment.deployment import Deployment
from gateway.deployment.replace_files import replace_files
from tests.support.deployments import edit, letters, load, rebound

STEPS = ("replace", "unlink")
"""The methods of `Path` that change what a folder holds under the names that are read."""


class Crashed(Exception):
    """The process ends here."""


def crash_at(step: int, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Lets the n-th change of a folder be the last that does not happen. How many were begun."""
    begun = 0

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(self: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal begun
            if not (method.__name__ == "unlink" and self.name.endswith(".new")):
                begun += 1
                if begun == step:
                    raise Crashed
            return method(self, *arguments, **options)

        return counted

    for name in STEPS:
        patch.setattr(Path, name, counting(getattr(Path, name)))
    return lambda: begun


def held(folder: Path) -> str:
    """The tag of what a folder holds; `refused` if it cannot be loaded."""
    try:
        load(folder)
    except Problems:
        return "refused"
    return tag_of(Deployment.read(folder).policy, sha256(folder / CERTIFICATE_FILE))


def other(to: Path) -> Path:
    """Another policy with a certificate of its own, and other settings that no certificate binds."""
    folder = letters(to, ("anonymous: loopback", "anonymous: nobody"))
    rebound(folder, ("{defer: certified}", "{refuse: certified}"))
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {name: (folder / name).read_bytes() for name in ("gateway.yaml", CERTIFICATE_FILE, "guards.npz")}


def test_a_crash_at_any_step_leaves_what_was_there_or_what_cannot_be_loaded_and_a_second_run_completes_it(
    tmp_path: Path,
) -> None:
    new = other(tmp_path / "new")
    old_tag, new_tag = held(letters(tmp_path / "old")), held(new)
    found = []
    for step in range(1, 10):
        folder = letters(tmp_path / f"at{step}")
        with pytest.MonkeyPatch.context() as patch:
            crash_at(step, patch)
            try:
                replace_files(folder, contents(new))
            except Crashed:
                pass
            else:
                break
        found.append(held(folder))
        replace_files(folder, contents(new))
        assert held(folder) == new_tag
    assert held(folder) == new_tag, "without a crash"
    assert found == [old_tag, "refused", "refused"], "the certificate is gone first and comes back last"


def test_one_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = letters(tmp_path)
    text = (folder / "gateway.yaml").read_text().replace('version: "1"', 'version: "2"')
    begun = crash_at(99, monkeypatch)
    assert replace_files(folder, {"gateway.yaml": text.encode()}) == ["gateway.yaml"]
    assert begun() == 1


def test_what_is_equal_is_not_written_and_what_is_given_as_none_is_removed(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    before = (folder / "gateway.yaml").stat()
    (folder / "certificate.sig").write_text("x")
    same = (folder / "gateway.yaml").read_bytes()
    assert replace_files(folder, {"gateway.yaml": same, "certificate.sig": None}) == ["certificate.sig"]
    assert not (folder / "certificate.sig").exists()
    assert (folder / "gateway.yaml").stat() == before


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    (folder / "gateway.yaml").chmod(0o640)
    edited = letters(tmp_path / "other")
    edit(edited, ('version: "1"', 'version: "2"'))
    replace_files(folder, {"gateway.yaml": (edited / "gateway.yaml").read_bytes()})
    assert (folder / "gateway.yaml").stat().st_mode & 0o777 == 0o640
