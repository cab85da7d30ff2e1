"""The load test of a running gateway: `gateway bench URL`, which is `python -m bench URL`.

Exit code 0: every request ended in one of the four outcomes; 1: something else came back, or nothing did;
2: wrong input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench import output
from bench.client import Connection
from bench.load import Plan, Told, run
from bench.requests import Mix, Target, WrongInput, find, render
from bench.results import Results, tables
from bench.tally import Tally

PROBE_S = 10.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Url = Annotated[str, typer.Argument(help="Where the gateway listens, such as http://127.0.0.1:8080.")]
Folder = Annotated[
    Path, typer.Option("--dir", help="The deployment it serves: what is sent are its samples.")
]
Key = Annotated[str | None, typer.Option(help="A caller's key.", envvar="GATEWAY_KEY")]
Rate = Annotated[
    float | None, typer.Option(min=0.1, help="Requests a second at Poisson times. [default: a closed loop]")
]
Outliers = Annotated[float, typer.Option(min=0, max=1, help="The share of requests made of outliers.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows a request.")]
Out = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]


@app.command()
def bench(
    url: Url,
    folder: Folder = Path("configs/fashion"),
    key: Key = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 10.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds of the same load before that.")] = 1.0,
    connections: Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight at most.")] = 16,
    rate: Rate = None,
    outliers: Outliers = 0.1,
    binary: Annotated[bool, typer.Option("--binary", help="Tensors as bytes, not as JSON numbers.")] = False,
    rows: Rows = 1,
    seed: int = 0,
    out: Out = None,
) -> None:
    """Load test of a running gateway: outcomes, throughput and latency.

    Callers without a key share one small budget, and a refusal is quickly made: then this measures the rate
    limit. Make a key of your own: gateway key DIR bench --per-s 1000000 --tier trusted

    What is deferred goes to the people of that deployment, and fills their queue: serve a copy of the folder.

    With --rate, latency counts from the time at which a request was to be sent, whether it could be or not.
    """
    console = output.console(out)
    try:
        target = find(url, folder, key)
        requests = render(target, folder, Mix(rows, outliers, binary, seed))
        plan = Plan(target.origin, requests, rows, connections, seconds, rate, seed)
        results = uvloop.run(_measure(target, plan, warm_up, console))
    except WrongInput as error:
        output.wrong(str(error))
    for table in tables(results):
        console.print(table, "")
    output.write(out, results)
    sys.exit(1 if results.errors or not results.ended else 0)


async def _measure(target: Target, plan: Plan, warm_up_s: float, console: Console) -> Results:
    await _probe(plan)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(None),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tally, elapsed_s = await run(plan, warm_up_s, _bar(progress, plan, warm_up_s))
    return Results.of(target, plan, tally, elapsed_s)


def _bar(progress: Progress, plan: Plan, warm_up_s: float) -> Told:
    task = progress.add_task(f"warming up for {warm_up_s:g} s", total=plan.seconds, told="")

    def tell(done_s: float, tally: Tally) -> None:
        told = f"{tally.requests} requests, {tally.errors.total()} errors"
        progress.update(task, description="measuring", completed=min(done_s, plan.seconds), told=told)

    return tell


async def _probe(plan: Plan) -> None:
    """Raises WrongInput unless one request comes back judged: better now than ten thousand errors later."""
    connection, tally = Connection(plan.origin), Tally()
    try:
        async with asyncio.timeout(PROBE_S):
            answer = await connection.ask(plan.requests[0])
    except (OSError, ValueError) as error:
        raise WrongInput(f"the first request failed: {error or type(error).__name__}") from error
    finally:
        connection.close()
    tally.take(answer, 0.0, plan.rows)
    if tally.errors:
        what = answer.body.decode("utf-8", "replace")[:300]
        raise WrongInput(f"the first request ended with {next(iter(tally.errors))}: {what}")


if __name__ == "__main__":
    app(prog_name="gateway bench")
