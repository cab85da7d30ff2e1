"""`gateway policy apply` and `rollback`: changes that are checked before a file is written."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import (
    AsJson,
    Folder,
    StateDir,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
    print_warning,
)
from gateway.cli.policy_options import (
    WhichVersion,
    chosen,
    kept_versions,
    policy,
    require_folder,
    state_of,
)
from gateway.core.errors import Problems

if TYPE_CHECKING:
    from gateway.cli.policy_candidate import Candidate


@policy.command()
def apply(
    folder: Folder,
    source: Annotated[Path, typer.Option("--from", help="A deployment folder, or a policy file.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Checks a policy as `check` does, puts it into the folder, and has a running gateway load it."""
    from gateway.cli.policy_candidate import Candidate

    try:
        candidate = Candidate.from_path(folder, source)
    except Problems as error:
        exit_with_problems(error, as_json)
    _put(candidate, state_dir, as_json, "policy_apply")


@policy.command()
def rollback(
    folder: Folder, version: WhichVersion = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """Goes back to a version; default: the last one that is not what the folder holds."""
    from gateway.cli.policy_candidate import Candidate

    versions = kept_versions(folder, state_dir, as_json)
    if version is not None:
        goal = chosen(versions, version)
    else:
        held = _tag_of(folder)
        others = [one for one in versions if one.tag != held]
        if not others:
            exit_with_usage_error(
                f"{folder}: no other policy of it was in force, so there is none to go back to"
            )
        goal = others[-1]
    try:
        candidate = Candidate.from_version(folder, goal)
    except Problems as error:
        exit_with_problems(error, as_json)
    _put(candidate, state_dir, as_json, "policy_rollback")


def _put(candidate: Candidate, state_dir: Path | None, as_json: bool, act: str) -> None:
    """Checks and applies a change, tells the replicas, and says what they have in force then.

    Exits with code 2 for a change that is refused, with 1 if a replica keeps the old policy.
    """
    from gateway.cli.acts import record_act
    from gateway.cli.running_gateway import reload_running

    require_folder(candidate.folder)
    state = state_of(candidate.folder, state_dir)
    try:
        tag = candidate.check(state)
    except Problems as error:
        exit_with_problems(error, as_json)
    changed = candidate.apply(state)
    record_act(state, act, tag)
    replicas = reload_running(state_dir or state, tag.partition("@")[0])
    if as_json:
        fields: dict[str, Any] = {"policy": tag, "changed": changed}
        print_line(json.dumps(fields | {"replicas": [asdict(one) for one in replicas]}))
    else:
        print_line(f"{candidate.folder}: {tag}" + f" ({', '.join(changed)})" * bool(changed))
        _print_replicas(tag, [(one.replica, one.tag, one.problems) for one in replicas])
    if any(one.tag != tag for one in replicas):
        sys.exit(1)


def _print_replicas(tag: str, replicas: list[tuple[str, str, tuple[str, ...]]]) -> None:
    taken = sum(in_force == tag for _, in_force, _ in replicas)
    print_line(
        f"in force at {taken} of {len(replicas)} replicas"
        if replicas
        else "no running gateway has its state here: the next start, or reload, takes it"
    )
    for replica, in_force, problems in replicas:
        if in_force != tag:
            why = "; ".join(problems) or f"it has {in_force} in force"
            print_warning(f"{replica}: the old policy stays in force: {why}")


def _tag_of(folder: Path) -> str:
    """The tag of what a folder holds; empty if that cannot be loaded."""
    from gateway.cli.policy_diff import PolicyText
    from gateway.policy.observation import utc_now

    try:
        return PolicyText.read(folder, utc_now()).tag
    except Problems:
        return ""
