"""`python -m bench.micro`: every micro-benchmark through pytest-benchmark, as one table.

Exit code 0: measured; otherwise pytest's, with its output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer

from bench import output
from bench.micro.results import MicroReport, table

ROOT = Path(__file__).parents[2]
PYTEST = ("--benchmark-enable", "--benchmark-only", "-p", "no:cacheprovider")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # as `gateway` sets it before numpy is imported

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def micro(
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """What each stage of one request costs at 1, 8, 32 and 128 rows: about a minute."""
    console = output.console(out)
    with tempfile.TemporaryDirectory() as scratch, console.status("measuring"):
        path = Path(scratch) / "found.json"
        done = subprocess.run(  # noqa: S603 (our own benchmarks)
            [sys.executable, "-m", "pytest", "bench/micro", *PYTEST, f"--benchmark-json={path}"],
            cwd=ROOT,
            env=ONE_THREAD | os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stdout, file=sys.stderr)
            sys.exit(done.returncode)
        report = MicroReport.of(orjson.loads(path.read_bytes()))
    console.print(table(report))
    output.write(out, report)


if __name__ == "__main__":
    app(prog_name="python -m bench.micro")
