"""`gateway key list` and `gateway key revoke`: the keys on file, whatever state the policy is in."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.moments import format_moment
from gateway.cli.options import (
    AsJson,
    Folders,
    StateDir,
    app,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
    print_warning,
)
from gateway.core.errors import PolicyError, Problem, Problems

if TYPE_CHECKING:
    from gateway.access.keys import Key


@app.command("key list")
def list_keys(folders: Folders, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Lists the keys on file: what each allows, until when, and when it was last used."""
    from gateway.access.keys import load_keys
    from gateway.access.last_used import read_last_used

    try:
        var = folder_of_keys(folders, state_dir)
        used, now_s = read_last_used(var), time.time()
        rows = [_row(key, used, now_s) for key in load_keys(var)]
    except Problems as error:
        _exit(error, as_json, "list")
    if as_json:
        print_line(json.dumps(rows))
    else:
        for line in _table(rows):
            print_line(line)


@app.command("key revoke")
def revoke(
    folders: Folders,
    name: Annotated[str, typer.Argument(help="Whose key.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Revokes a caller's key: a running gateway refuses it within a second."""
    from gateway.access.keys import load_keys, revoke_key
    from gateway.policy.locate import closest

    try:
        var = folder_of_keys(folders, state_dir)
        known = [key.name for key in load_keys(var)]
        revoked = name in known and revoke_key(var, name)
    except Problems as error:
        _exit(error, as_json, "revoke")
    if not revoked:
        nearest = closest(name, known)
        exit_with_usage_error(
            f"NAME: {name!r} has no key here" + f"; did you mean {nearest!r}?" * bool(nearest)
        )
    print_line(json.dumps({"name": name, "revoked": True}) if as_json else f"revoked the key of {name}")


def folder_of_keys(folders: Sequence[Path], state_dir: Path | None) -> Path:
    """Where the keys of these deployments are. Raises PolicyError for what is no deployment folder."""
    from gateway.policy.read import POLICY_FILE
    from gateway.serving.folders import deployment_folders, state_folder

    named = deployment_folders(folders)
    for folder in named:
        if not (folder / POLICY_FILE).is_file():
            raise PolicyError(
                [Problem("", "there is none: name a deployment folder", str(folder / POLICY_FILE))]
            )
    if state_dir is None and len(named) > 1:
        what = "several deployments share keys only with --state-dir, the one that they are served with"
        exit_with_usage_error(f"{what}; or name one deployment")
    return state_folder(named, state_dir)


def _exit(error: Problems, as_json: bool, command: str) -> None:
    """Prints the problems, and what a folder with the name of the command is written as."""
    if not as_json and (Path(command) / "gateway.yaml").exists():
        print_warning(
            f"`key {command}` is a command: to make a key for the folder of that name write ./{command}"
        )
    exit_with_problems(error, as_json)


def _row(key: Key, used: dict[str, int], now_s: float) -> dict[str, Any]:
    """A key as JSON. last_used: of this key, not of an earlier one of the same name."""
    made_s = 0.0 if key.made is None else key.made.timestamp()
    used_s = used.get(key.name, 0)
    last = datetime.fromtimestamp(used_s, UTC) if used_s and used_s >= made_s else None
    return {
        **key.model_dump(mode="json", exclude={"hash", "scopes", "models"}),
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "expired": key.expires is not None and key.expires.timestamp() <= now_s,
        "last_used": None if last is None else f"{last:%Y-%m-%dT%H:%M:%SZ}",
    }


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The keys in aligned columns, with a heading."""
    lines = [("NAME", "TIER", "ROWS/S", "SCOPES", "MODELS", "MADE", "EXPIRES", "LAST USED")]
    lines += [
        (
            row["name"],
            row["tier"],
            "policy's" if row["per_s"] is None else f"{row['per_s']:g}",
            ",".join(row["scopes"]),
            "all" if row["models"] is None else ",".join(row["models"]),
            _shown(row["made"], "unknown"),
            _shown(row["expires"], "never") + " (expired)" * row["expired"],
            _shown(row["last_used"], "not yet"),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]


def _shown(moment: str | None, otherwise: str) -> str:
    return otherwise if moment is None else format_moment(datetime.fromisoformat(moment))
