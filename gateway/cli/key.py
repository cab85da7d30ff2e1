"""`gateway key`: a caller's key, printed once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.keys_on_file import folder_of_keys
from gateway.cli.moments import format_moment, parse_moment
from gateway.cli.options import (
    AsJson,
    Folders,
    StateDir,
    app,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
    print_warning,
    require_choice,
)
from gateway.core.errors import Problems


@app.command()
def key(
    folders: Folders,
    name: Annotated[str, typer.Argument(help="Who the key is for: a lower-case name.")],
    tier: Annotated[str, typer.Option(help="A tier of the policy's `disclosure`.")] = "anonymous",
    per_s: Annotated[
        float | None, typer.Option(min=0, help="Rows a second; default: what the policy says.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What the key allows: infer (default), metadata, explain.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Models that it may ask; default: all.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 30d, 12h, 2027-01-31 (UTC); default: never.")
    ] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Makes a caller's key and prints it once; only its keyed hash is kept.

    `gateway key list` and `gateway key revoke` are commands: a folder of such a name is given as `./list`.
    """
    from gateway.access.keys import SCOPES
    from gateway.deployment.deployment import Deployment
    from gateway.serving.folders import deployment_folders

    try:
        deployments = [Deployment.read(folder) for folder in deployment_folders(folders)]
    except Problems as error:
        exit_with_problems(error, as_json)
    var, policies = folder_of_keys(folders, state_dir), [one.policy for one in deployments]
    tiers = {tier for policy in policies for tier in policy.disclosure}
    require_choice("--tier", tier, {"anonymous", *tiers}, "in the policy's disclosure")
    for one in scope or ():
        require_choice("--scope", one, set(SCOPES), "a scope")
    for one in model or ():
        require_choice("--model", one, {policy.name for policy in policies}, "served here")
    until = None if expires is None else _moment(expires)
    allowed = {"scopes": frozenset(scope or ["infer"]), "models": frozenset(model) if model else None}
    made = _made(var, name, tier=tier, per_s=per_s, expires=until, **allowed)
    _print_key(name, made, until, as_json)


def _print_key(name: str, made: str, until: datetime | None, as_json: bool) -> None:
    if as_json:
        ends = {} if until is None else {"expires": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
        print_line(json.dumps({"name": name, "key": made, **ends}))
        return
    print_line(made)
    if until is not None:
        print_warning(f"it ends at {format_moment(until)}")


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text, datetime.now(UTC))
    except ValueError as error:
        exit_with_usage_error(f"--expires: {error}")


def _made(var: Path, name: str, **granted: Any) -> str:
    """A new key in a folder's file of keys. Exits with code 2 where it cannot be made."""
    from pydantic import ValidationError

    from gateway.access.callers import add_key

    try:
        return add_key(var, name, **granted)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = {"name": "NAME", "per_s": "--per-s"}.get(str(wrong["loc"][0]), str(wrong["loc"][0]))
        exit_with_usage_error(f"{option}: {wrong['msg']}, not {wrong['input']!r}")
    except OSError as error:
        what = f"{error.strerror or error}; keys are kept in the folder that a running gateway writes to"
        exit_with_usage_error(f"{error.filename or var}: cannot be written: {what}")
