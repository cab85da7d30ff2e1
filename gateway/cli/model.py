"""`gateway init` and `gateway inspect`: the commands of a newcomer with a model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.calibrate import calibrate
from gateway.cli.options import AsJson, app, exit_with_problems, print_line
from gateway.core.errors import Problems


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new deployment folder.", metavar="DIR")],
    model: Annotated[Path | None, typer.Option(help="The model: an ONNX file, which is copied.")] = None,
    fallback: Annotated[Path | None, typer.Option(help="A smaller model with the same inputs.")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="A model in another server, asked first: URL/v2/models/NAME.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out rows (.npz, .csv, .parquet): calibrates as well.")
    ] = None,
) -> None:
    """Writes a commented policy that fits a model, and calibrates it if rows are given."""
    from gateway.cli.descriptions import chosen
    from gateway.scaffold.scaffold import scaffold
    from gateway.scaffold.sources import Sources

    try:
        files = tuple(file for file in (model, fallback) if file is not None)
        draft = scaffold(folder, Sources(files, upstream), data)
    except Problems as error:
        exit_with_problems(error, as_json=False)
    for line in chosen(draft, folder):
        print_line(line)
    if data is None:
        print_line(f"next: gateway calibrate {shlex.quote(str(folder))} --data ROWS")
        return
    calibrate(folder, data)
    print_line(f"next: gateway serve {shlex.quote(str(folder))} --local")


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX file.", metavar="M.onnx")], as_json: AsJson = False
) -> None:
    """Shows a model's inputs, outputs, guessed roles, and what can be guarded and promised."""
    from rich.console import Console

    from gateway.cli.descriptions import describe, remarks, tensors_table

    try:
        found = describe(model)
    except Problems as error:
        exit_with_problems(error, as_json)
    if as_json:
        print_line(json.dumps(found))
        return
    Console().print(tensors_table(found, model))
    for line in remarks(found, model):
        print_line(line)
