"""`gateway calibrate`, and the plan that needs no rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import (
    AsJson,
    Folder,
    app,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
    print_warning,
)
from gateway.core.errors import Problems

if TYPE_CHECKING:
    from gateway.deployment.certificate import Certificate


@app.command()
def calibrate(
    folder: Folder,
    data: Annotated[
        Path | None,
        typer.Option(help="Held-out rows: .npz, .csv or .parquet with the model's inputs, y, maybe group."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say which promise takes how many rows; --data is optional.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fits the guards on held-out data and writes artefacts, certificate and report."""
    if plan:
        _plan(folder, data, as_json)
    elif data is None:
        exit_with_usage_error("--data: is missing; give held-out rows, or --plan to see how many it takes")
    else:
        _calibrate(folder, data, as_json)


def _calibrate(folder: Path, data: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.status import Status

    from gateway.calibration.calibrate import REPORT_FILE
    from gateway.calibration.calibrate import calibrate as run
    from gateway.calibration.report import certificate_table
    from gateway.calibration.told_prices import prices_told
    from gateway.deployment.certificate import GUARDS_FILE
    from gateway.deployment.deployment import Deployment
    from gateway.deployment.fitted import load_guards

    console = Console(stderr=as_json)
    try:
        with Status("loading", console=console) as status:
            deployment = Deployment.read(folder)
            certificate = run(deployment, data, status.update)
    except Problems as error:
        exit_with_problems(error, as_json)
    for line in _remarks(certificate, data):
        print_warning(line)
    if as_json:
        print_line(certificate.model_dump_json(by_alias=True))
        return
    console.print(certificate_table(certificate, deployment.policy))
    fitted, _ = load_guards(deployment.policy, folder / GUARDS_FILE)
    for name, prices in fitted.prices.items():
        for line in prices_told(name, prices).lines():
            print_line(line)
    if certificate.parity is not None:
        print_line(certificate.parity.finding)
    print_line(f"report: {folder / REPORT_FILE}")


def _remarks(certificate: Certificate, data: Path) -> Iterator[str]:
    """What is odd about the rows or the model, one line each."""
    if certificate.samples.unused:
        yield f"note: nothing takes {', '.join(certificate.samples.unused)} of {data}"
    for warning in (certificate.samples.warning, certificate.parity and certificate.parity.warning):
        if warning:
            yield f"warning: {warning}"


def _plan(folder: Path, data: Path | None, as_json: bool) -> None:
    """Prints which promise takes how many rows."""
    from rich.console import Console

    from gateway.calibration.calibrate import independent_rows
    from gateway.calibration.report import plan_rows, plan_table
    from gateway.deployment.deployment import Deployment

    try:
        deployment = Deployment.read(folder)
        samples = None if data is None else independent_rows(deployment, data)
    except Problems as error:
        exit_with_problems(error, as_json)
    if as_json:
        print_line(json.dumps([asdict(one) for one in plan_rows(deployment.policy, samples)]))
    else:
        Console().print(plan_table(deployment.policy, samples))
