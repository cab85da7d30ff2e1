"""`gateway policy list` and `diff`: the last policies that were in force, and what a reload would change."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.cli.options import (
    AsJson,
    Folder,
    StateDir,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
)
from gateway.cli.policy_options import WhichVersion, chosen, kept_versions, policy
from gateway.core.errors import Problems

if TYPE_CHECKING:
    from gateway.serving.versions import Version


@policy.command("list")
def listkept_versions(folder: Folder, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Lists the last policies that were in force, the newest first."""
    versions = list(reversed(kept_versions(folder, state_dir, as_json)))
    if as_json:
        fields = [{"version": one.number, "policy": one.tag, "since": _since(one)} for one in versions]
        print_line(json.dumps({"versions": fields}))
        return
    for one in versions:
        print_line(f"{one.number:>6}  {_since(one)}  {one.tag}")
    if not versions:
        print_line("none was in force yet: `gateway serve` keeps what it serves")


@policy.command()
def diff(
    folder: Folder, version: WhichVersion = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """Shows what differs in the folder from a version; default: from the one that was in force last."""
    from gateway.cli.policy_diff import PolicyText, compare
    from gateway.policy.observation import utc_now

    versions = kept_versions(folder, state_dir, as_json)
    old = chosen(versions, version) if version is not None else versions[-1] if versions else None
    if old is None:
        exit_with_usage_error(f"{folder}: no policy of it was in force yet, so there is none to compare with")
    try:
        found = compare(PolicyText.read(old.folder, utc_now()), PolicyText.read(folder, utc_now()))
    except Problems as error:
        exit_with_problems(error, as_json)
    if as_json:
        print_line(json.dumps(asdict(found)))
        return
    if found.old == found.new:
        print_line(f"{found.old}: nothing differs" + " but how it is written" * bool(found.lines))
    for line in found.lines:
        print_line(line)
    for sentence in found.lost:
        print_line(f"- promised: {sentence}")
    for sentence in found.gained:
        print_line(f"+ promised: {sentence}")


def _since(version: Version) -> str:
    return f"{datetime.fromtimestamp(version.at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
