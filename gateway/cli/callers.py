"""`gateway callers`: how many bits callers have learnt from a running gateway, and which are suspects."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway.cli.options import (
    AsJson,
    Folder,
    StateDir,
    app,
    exit_with_problems,
    print_line,
    print_warning,
)
from gateway.core.errors import Problems

BUDGET_ROWS = "PRINCIPAL", "SPENT", "LEFT", "OF", "ROWS REFUSED"
SUSPECT_ROWS = "EVIDENCE", "STEP", "PRINCIPALS", "ROWS", "WHO"
NAMED = 5


@app.command()
def callers(
    folder: Folder,
    most: Annotated[int, typer.Option(min=1, max=100, help="How many callers and suspects at most.")] = 20,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Lists what callers have spent of budgets of bits since the start, and which are suspects."""
    from gateway.cli.running_gateway import callers_at_replicas
    from gateway.deployment.deployment import Deployment
    from gateway.serving.folders import state_folder
    from gateway.serving.spent import merged
    from gateway.serving.suspected import merged_suspects

    try:
        name = Deployment.read(folder).policy.name
    except Problems as error:
        exit_with_problems(error, as_json)
    state = state_folder([folder], state_dir)
    replicas = callers_at_replicas(state, name)
    if replicas is None:
        print_warning(f"no running gateway answers for {name} in {state / 'run'}: one that is served with")
        print_warning(
            "--state-dir, or with other deployments, has its sockets there: give this command the same"
        )
        sys.exit(1)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for part, together in (("budgets", merged), ("suspects", merged_suspects)):
        guards = sorted({guard for one in replicas for guard in one.get(part, {})})
        found[part] = {
            guard: together((one.get(part, {}).get(guard, ()) for one in replicas), most) for guard in guards
        }
    if as_json:
        print_line(json.dumps({"deployment": name, "replicas": len(replicas), **found}))
        return
    _print(name, len(replicas), found)


def _print(name: str, replicas: int, found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    at = f"at {replicas} replica{'s' * (replicas != 1)}"
    if not found["budgets"]:
        print_line(f"{name} has no budget of bits: its policy names no guard of `kind: budget`")
    for guard, buckets in found["budgets"].items():
        _print_table(f"{guard}: bits, {at}", BUDGET_ROWS, [_bucket(one) for one in buckets])
    for guard, suspects in found["suspects"].items():
        if not suspects:
            print_line(f"{guard}: no caller is suspected, {at}")
            continue
        _print_table(f"{guard}: suspects, {at}", SUSPECT_ROWS, [_suspect(one) for one in suspects])


def _bucket(one: dict[str, Any]) -> tuple[str, ...]:
    spent = "" if one["spent"] is None else f"{one['spent']:,.0f}"
    left = "unknown" if one["left"] is None else f"{round(one['left']):,}"
    return one["principal"], spent, left, f"{one['burst']:,.0f}", f"{one['refused']:,}"


def _suspect(one: dict[str, Any]) -> tuple[str, ...]:
    names = [member["principal"] for member in one["members"][:NAMED]]
    more = one["principals"] - len(names)
    who = ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
    return f"{one['evidence']:,.3g}", one["step"] or "-", f"{one['principals']:,}", f"{one['rows']:,}", who


def _print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print_line(title)
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
