"""`gateway admin`: the persons of the administration plane. A running gateway knows of a change at once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gateway.cli.acts import record_act
from gateway.cli.options import (
    AsJson,
    StateDir,
    app,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
    require_choice,
)
from gateway.core.errors import Problems

ROLES = ("viewer", "reviewer", "operator", "scraper")
admin = typer.Typer(no_args_is_help=True, help="Persons of the administration plane: add, list, revoke.")
app.add_typer(admin, name="admin")

Person = Annotated[str, typer.Argument(help="A lower-case name.", metavar="NAME")]
ServedFolders = Annotated[
    list[Path] | None,
    typer.Argument(help="What `gateway serve` is given; not needed with --state-dir.", metavar="[DIR]..."),
]


@admin.command()
def add(
    name: Person,
    folders: ServedFolders = None,
    role: Annotated[
        str, typer.Option(help="viewer, reviewer or operator; scraper: a program that reads /metrics.")
    ] = "viewer",
    identity: Annotated[
        str | None,
        typer.Option(help="What a trusted proxy calls the person, such as an e-mail address."),
    ] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Adds a person, or gives one of this name another token and role; prints the token once."""
    from pydantic import ValidationError

    from gateway.access.persons_file import add_person

    require_choice("--role", role, set(ROLES), "a role: " + ", ".join(ROLES))
    state = _state(folders, state_dir)
    try:
        token = add_person(state, name, role, identity)
    except Problems as error:
        exit_with_problems(error, as_json)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = "NAME" if wrong["loc"] == ("name",) else f"--{wrong['loc'][0]}"
        exit_with_usage_error(f"{option}: {wrong['msg']}, not {wrong['input']!r}")
    except ValueError as error:
        exit_with_usage_error(str(error))
    except OSError as error:
        _exit_unwritable(state, error)
    print_line(json.dumps({"name": name, "role": role, "token": token}) if as_json else token)
    record_act(state, "admin_add", name)


@admin.command("list")
def list_persons(folders: ServedFolders = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Lists the persons with their roles. The one token of GATEWAY_ADMIN_TOKEN is not among them."""
    from gateway.access.persons_file import load_persons

    try:
        persons = load_persons(_state(folders, state_dir))
    except Problems as error:
        exit_with_problems(error, as_json)
    if as_json:
        print_line(json.dumps({"persons": [one.model_dump(exclude={"hash"}) for one in persons]}))
        return
    for one in persons:
        added = time.strftime("%Y-%m-%d", time.localtime(one.added_s))
        print_line(f"{one.name:<20} {one.role:<9} since {added}" + f"   {one.identity or ''}".rstrip())
    if not persons:
        print_line("no persons: gateway admin add NAME --role ROLE adds one")


@admin.command()
def revoke(
    name: Person, folders: ServedFolders = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """Removes a person: the token and the sessions open nothing any more."""
    from gateway.access.persons_file import load_persons, revoke_person

    state = _state(folders, state_dir)
    try:
        require_choice("NAME", name, {one.name for one in load_persons(state)}, f"a person in {state}")
        revoke_person(state, name)
    except Problems as error:
        exit_with_problems(error, as_json)
    except OSError as error:
        _exit_unwritable(state, error)
    record_act(state, "admin_revoke", name)
    print_line(json.dumps({"name": name, "revoked": True}) if as_json else f"{name} is revoked")


def _state(folders: list[Path] | None, state_dir: Path | None) -> Path:
    """The folder of the persons. Exits with code 2 where none is given, or DIR is no deployment."""
    from gateway.serving.agreement import settings_of
    from gateway.serving.folders import deployment_folders, state_folder

    if state_dir is not None:
        return state_dir
    if not folders:
        exit_with_usage_error("give the folders that are served, as to `gateway serve`, or --state-dir")
    try:
        named = deployment_folders(folders)
        settings_of(named)
    except Problems as error:
        exit_with_problems(error, as_json=False)
    return state_folder(named, None)


def _exit_unwritable(state: Path, error: OSError) -> NoReturn:
    what = f"{error.strerror or error}; persons are kept in the folder that a running gateway writes to"
    exit_with_usage_error(f"{error.filename or state}: cannot be written: {what}")
