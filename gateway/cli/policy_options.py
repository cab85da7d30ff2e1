"""What the commands of `gateway policy` share: the group, which version is meant, and where versions are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import app, exit_with_problems, exit_with_usage_error
from gateway.core.errors import Problems

if TYPE_CHECKING:
    from gateway.serving.versions import Version

policy = typer.Typer(no_args_is_help=True, help="Policies: list, diff, apply, rollback.")
app.add_typer(policy, name="policy")

WhichVersion = Annotated[
    str | None, typer.Argument(help="A number of `gateway policy list`, or a hash.", metavar="[VERSION]")
]


def chosen(versions: list[Version], named: str) -> Version:
    """The version of this number, or whose hash begins so. Exits with code 2 if it is not one."""
    by_hash = named.rpartition("#")[2]
    found = [
        one
        for one in versions
        if named == str(one.number) or (by_hash and one.tag.rpartition("#")[2].startswith(by_hash))
    ]
    exact = [one for one in found if named == str(one.number)] or found
    if len(exact) != 1:
        kept = ", ".join(str(one.number) for one in versions) or "none"
        what = "several versions" if exact else "no version"
        exit_with_usage_error(f"VERSION: {named!r} is {what}; there are {kept}")
    return exact[0]


def kept_versions(folder: Path, state_dir: Path | None, as_json: bool) -> list[Version]:
    """The versions of a deployment, the oldest first. Exits with code 2 if they cannot be read."""
    from gateway.serving.versions import versions_in

    require_folder(folder)
    try:
        return versions_in(state_of(folder, state_dir))
    except Problems as error:
        exit_with_problems(error, as_json)


def require_folder(folder: Path) -> None:
    """Exits with code 2 if there is no such folder."""
    if not folder.is_dir():
        exit_with_usage_error(f"{folder}: is no folder; give a deployment folder")


def state_of(folder: Path, state_dir: Path | None) -> Path:
    """Where a gateway keeps what belongs to this deployment: of several in one --state-dir, a subfolder."""
    from gateway.deployment.deployment import VAR
    from gateway.serving.folders import name_of

    if state_dir is None:
        return folder / VAR
    own = state_dir / name_of(folder, ())
    return own if own.is_dir() else state_dir
