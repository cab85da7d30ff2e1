"""`gateway callers`: how many bits callers have learnt from a running gateway, and may learn yet."""

from __future__ import annotations

import json
import sys
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

ROWS = "PRINCIPAL", "SPENT", "LEFT", "OF", "ROWS REFUSED"


@app.command()
def callers(
    folder: Folder,
    most: Annotated[int, typer.Option(min=1, max=100, help="How many callers, those that spent most.")] = 20,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Lists what callers have spent of their budgets of bits since the start, and what they have left."""
    from gateway.cli.running_gateway import spent_at_replicas
    from gateway.deployment.deployment import Deployment
    from gateway.serving.folders import state_folder
    from gateway.serving.spent import merged

    try:
        name = Deployment.read(folder).policy.name
    except Problems as error:
        exit_with_problems(error, as_json)
    state = state_folder([folder], state_dir)
    replicas = spent_at_replicas(state, name)
    if replicas is None:
        print_warning(f"no running gateway answers for {name} in {state / 'run'}: one that is served with")
        print_warning(
            "--state-dir, or with other deployments, has its sockets there: give this command the same"
        )
        sys.exit(1)
    guards = sorted({guard for one in replicas for guard in one})
    found = {guard: merged((one.get(guard, ()) for one in replicas), most) for guard in guards}
    if as_json:
        print_line(json.dumps({"deployment": name, "replicas": len(replicas), "budgets": found}))
        return
    if not found:
        print_line(f"{name} has no budget of bits: its policy names no guard of `kind: budget`")
    for guard, buckets in found.items():
        print_line(f"{guard}: bits, at {len(replicas)} replica{'s' * (len(replicas) != 1)}")
        for line in _table(buckets):
            print_line(line)


def _table(buckets: list[dict[str, Any]]) -> list[str]:
    lines = [ROWS]
    for one in buckets:
        spent = "" if one["spent"] is None else f"{one['spent']:,.0f}"
        left = "unknown" if one["left"] is None else f"{round(one['left']):,}"
        lines.append((one["principal"], spent, left, f"{one['burst']:,.0f}", f"{one['refused']:,}"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(ROWS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
