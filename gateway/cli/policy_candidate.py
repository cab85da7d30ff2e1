"""What a deployment folder would be after a change: built beside it, checked as a start does, then applied.

The files of a change are read once: what is checked is what is applied.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.cli.check import checked
from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.certificate import sha256
from gateway.deployment.deployment import Deployment
from gateway.deployment.folder_files import FIXED_FILES, model_files
from gateway.deployment.replace_files import replace_files
from gateway.deployment.signature import SIGNED_FILES
from gateway.policy.read import POLICY_FILE
from gateway.policy.schema import Policy
from gateway.private_files import make_private_folder, write_lock
from gateway.serving.versions import VERSIONS_FOLDER, Version

CARRIED = tuple(dict.fromkeys((*FIXED_FILES, *SIGNED_FILES)))
"""The files whose names are the same in every folder, and that a signature covers."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder with other files.

    contents: of each file that is given, by its name there; None: it is removed. source: the folder, or the
    policy file, that they come from.
    """

    folder: Path
    contents: Mapping[str, bytes | None]
    source: Path

    @classmethod
    def from_path(cls, folder: Path, source: Path) -> Candidate:
        """With a policy file, or with all that a folder has of what a deployment is made of.

        What is not in the source stays as it is. Raises PolicyError; OSError.
        """
        if source.is_file():
            return cls(folder, {POLICY_FILE: source.read_bytes()}, source)
        names = (*CARRIED, *model_files(Deployment.read(source).policy))
        found = [name for name in names if (source / name).is_file()]
        return cls(folder, {name: (source / name).read_bytes() for name in found}, source)

    @classmethod
    def from_version(cls, folder: Path, version: Version) -> Candidate:
        """With the files of a version. Raises ArtifactError naming models that are others now; OSError."""
        problems = [
            _other_model(folder / name, digest)
            for name, digest in version.models.items()
            if _digest(folder / name) != digest
        ]
        if problems:
            raise ArtifactError(problems)
        found = {name: version.folder / name for name in FIXED_FILES}
        contents = {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}
        return cls(folder, contents, version.folder)

    def check(self, state: Path) -> str:
        """The tag that the folder would have. Blocks; does all that a start does but listen.

        Raises:  PolicyError or ArtifactError with every problem, at the place of the file that is given.
        """
        make_private_folder(state)
        with tempfile.TemporaryDirectory(dir=state, prefix="candidate-") as made:
            built = Path(made)
            with self._placing(built):
                self._build(built)
                return checked(built, built / "state").loaded.tag

    def apply(self, state: Path) -> list[str]:
        """Puts the files in their place; the names of those that changed. Blocks. Raises OSError."""
        with write_lock(state / VERSIONS_FOLDER):
            return replace_files(self.folder, self.contents)

    def _build(self, built: Path) -> None:
        """Makes the folder as it would be: what is given as files, the rest as links."""
        for name in CARRIED:
            self._put(built, name)
        for name in named_files(Deployment.read(built).policy):
            if ".." in Path(name).parts:
                what = f"{name!r} lies outside the folder, where no change of it can be checked: name a file"
                raise PolicyError([Problem("", f"{what} inside", str(built / POLICY_FILE))])
            if not Path(name).is_absolute():
                self._put(built, name)

    def _put(self, built: Path, name: str) -> None:
        path, content = built / name, self.contents.get(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        elif name not in self.contents and (self.folder / name).exists() and not path.exists():
            path.symlink_to((self.folder / name).resolve())

    @contextmanager
    def _placing(self, built: Path) -> Iterator[None]:
        """Puts problems of the built folder where its files come from."""
        try:
            yield
        except Problems as error:
            raise type(error)([self._placed(one, built) for one in error.problems]) from error

    def _placed(self, problem: Problem, built: Path) -> Problem:
        path = Path(problem.file)
        if not path.is_relative_to(built):
            return problem
        name = str(path.relative_to(built))
        given = self.source if self.source.is_file() else self.source / name
        return replace(
            problem, file=str(given if self.contents.get(name) is not None else self.folder / name)
        )


def named_files(policy: Policy) -> tuple[str, ...]:
    """The files besides the fixed ones that a policy names."""
    tls = policy.serving.tls
    return (*model_files(policy), *(() if tls is None else (tls.certificate, tls.key)))


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def _other_model(path: Path, digest: str) -> Problem:
    held = "is missing" if not path.is_file() else "is another model than that of the version"
    return Problem("", f"{held}: put back the file with sha256 {digest}", str(path))
