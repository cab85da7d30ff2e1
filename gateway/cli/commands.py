"""The `gateway` command. Exit code 0: done; 1: failed; 2: wrong input. `admin`, `serve`, `calibrate`, `key`,
`stop` and those for a new model have files of their own, which add them to the application when imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import gateway.cli.admin
import gateway.cli.calibrate
import gateway.cli.callers
import gateway.cli.key
import gateway.cli.keys_on_file
import gateway.cli.model
import gateway.cli.policy
import gateway.cli.policy_change
import gateway.cli.redteam
import gateway.cli.serve
import gateway.cli.sign
import gateway.cli.stop  # noqa: F401 (each adds its commands)
from gateway.cli.options import (
    AdminPort,
    AsJson,
    Folder,
    GrpcPort,
    Port,
    StateDir,
    app,
    exit_with_problems,
    print_line,
    print_warning,
)
from gateway.core.errors import PolicyError, Problems


@app.command()
def demo(
    folder: Folder,
    once: Annotated[bool, typer.Option("--once", help="Exit after the walk-through.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows to send (.npz, .csv, .parquet); default: samples, else what calibration kept."
        ),
    ] = None,
    port: Port = 8080,
    grpc_port: GrpcPort = 8081,
    admin_port: AdminPort = 8082,
) -> None:
    """Serves a deployment on Ray and shows every outcome on real inputs."""
    from gateway.cli.demo import run
    from gateway.replica import ListenAddress

    address = ListenAddress("127.0.0.1", port, grpc_port, admin_port)
    sys.exit(run(folder, data, once=once, address=address))


@app.command()
def check(
    folder: Folder,
    state_dir: StateDir = None,
    graph: Annotated[bool, typer.Option("--graph", help="Draws every path of a row, as Mermaid.")] = False,
    as_json: AsJson = False,
) -> None:
    """Does all that a start does but listen, and proves where every path of a row ends."""
    from gateway.cli.check import checked, ready_data, ready_lines, warnings_of
    from gateway.deployment.proof.drawing import as_data, drawn, mermaid

    try:
        gateway = checked(folder, state_dir)
    except Problems as error:
        exit_with_problems(error, as_json)
    proof = gateway.loaded.proof
    if graph and not as_json:
        print_line(mermaid(drawn(proof.graph)))
    if proof.problems:
        exit_with_problems(PolicyError(proof.problems), as_json)
    if graph and not as_json:
        return
    if as_json:
        drawing = {"graph": as_data(drawn(proof.graph))} if graph else {}
        print_line(json.dumps(ready_data(gateway) | drawing))
        return
    for line in ready_lines(folder, gateway):
        print_line(line)
    for warning in warnings_of(gateway):
        print_warning(f"warning: {warning}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def bench(context: typer.Context) -> None:
    """Load test of a running gateway: `gateway bench URL [--key K]`; `gateway bench --help` says more."""
    # A process of its own: the load generator shares no interpreter, and nothing here imports upwards.
    sys.exit(subprocess.call([sys.executable, "-m", "bench", *context.args]))  # noqa: S603 (our own module)


def main() -> None:
    """The console script. Problems of the deployment and of the system are printed without a traceback."""
    # Before numpy is imported: guards multiply small matrices, and BLAS threads would wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app()
    except Problems as error:
        exit_with_problems(error, as_json=False)
    except OSError as error:  # a full disk, a closed pipe
        place = "" if error.filename is None else f"{error.filename}: "
        print_warning(f"{place}{error.strerror or error}")
        sys.exit(1)
