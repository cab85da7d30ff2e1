"""The load test of a running gateway: `gateway bench URL`, which is `python -m bench URL`.

Exit code 0: every request ended in one of the four outcomes; 1: something else came back, or nothing did;
2: wrong input.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench import curve as curves
from bench import output
from bench.client import send_once
from bench.curve import Curve
from bench.load import Plan, ProgressCallback, run
from bench.measurements import Measurements
from bench.page import page
from bench.requests import Mix, WrongInput, deadline_ms, find, render
from bench.results import Figures, Results, RunDescription, tables

PROBE_S = 10.0
HELP = """Load test of a running gateway: outcomes, throughput and latency.

Callers without a key share one small budget, and a refusal is quickly made: then this measures the rate
limit. Make a key of your own: gateway key DIR bench --per-s 1000000 --tier trusted

What is deferred goes to the reviewers of that deployment, and fills their queue: serve a copy of the folder,
for --curve with a larger review.capacity.

With --rate, latency counts from the time at which a request was to be sent, whether it could be or not.

With --curve, a closed loop finds the capacity and open loops of --seconds each offer 10 to 110 % of it. The
saturation point is the highest offered rate that achieves 99 % of itself with p99 within --p99-limit.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Url = Annotated[str, typer.Argument(help="Where the gateway listens, such as http://127.0.0.1:8080.")]
Folder = Annotated[
    Path, typer.Option("--dir", help="The deployment it serves: what is sent are its samples.")
]
Key = Annotated[str | None, typer.Option(help="A caller's key.", envvar="GATEWAY_KEY")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long to measure; with --curve, each step.")]
WarmUp = Annotated[float, typer.Option(min=0, help="Seconds of the same load before that.")]
Connections = Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight at most.")]
Rate = Annotated[
    float | None, typer.Option(min=0.1, help="Requests a second at Poisson times. [default: a closed loop]")
]
CurveToo = Annotated[bool, typer.Option("--curve", help="Latency by throughput, and where it saturates.")]
Limit = Annotated[
    float | None, typer.Option(min=0, help="Of --curve, in ms. [default: the deadline of the deployment]")
]
Abusive = Annotated[
    float, typer.Option(min=0, max=1, help="The share of connections of one caller that takes all it can.")
]
AbusiveKey = Annotated[str | None, typer.Option(help="Its key. [default: none, an anonymous caller]")]
Outliers = Annotated[float, typer.Option(min=0, max=1, help="The share of requests made of outliers.")]
Binary = Annotated[bool, typer.Option("--binary", help="Tensors as bytes, not as JSON numbers.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows a request.")]
Out = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]
Html = Annotated[Path | None, typer.Option("--html", help="Everything as one page with plots.")]


@dataclass(frozen=True, slots=True)
class Job:
    """All that is to be measured. limit_ms: of the curve, None without one."""

    plan: Plan
    warm_up_s: float
    abusive: Plan | None
    limit_ms: float | None

    @property
    def loads(self) -> int:
        """How many run, one after the other."""
        if self.limit_ms is not None:
            return 1 + len(curves.SHARES)
        return 1 if self.abusive is None else 2


@app.command(help=HELP)
def bench(
    url: Url,
    folder: Folder = Path("configs/fashion"),
    key: Key = None,
    seconds: Seconds = 10.0,
    warm_up: WarmUp = 1.0,
    connections: Connections = 16,
    rate: Rate = None,
    curve: CurveToo = False,
    p99_limit: Limit = None,
    abusive: Abusive = 0.0,
    abusive_key: AbusiveKey = None,
    outliers: Outliers = 0.1,
    binary: Binary = False,
    rows: Rows = 1,
    seed: int = 0,
    out: Out = None,
    html: Html = None,
) -> None:
    console = output.console(out)
    try:
        limit_ms = _limit_ms(folder, p99_limit, curve, alone=rate is None and abusive == 0)
        target, mix = find(url, folder, key), Mix(rows, outliers, binary, seed)
        plan = Plan(target.origin, render(target, folder, mix), rows, connections, seconds, rate, seed)
        job = Job(plan, warm_up, None, limit_ms)
        if abusive > 0:
            bad = render(replace(target, key=abusive_key), folder, replace(mix, seed=seed + 1))
            job = _with_abuse(job, abusive, bad, same=key == abusive_key)
        about = RunDescription.of(target.model, _command(key, abusive_key), job.plan, outliers, warm_up)
        with output.Steps(console, job.loads, seconds, warm_up) as steps:
            results = uvloop.run(_measure(job, about, steps.begin))
    except WrongInput as error:
        output.wrong(str(error))
    for table in tables(results):
        console.print(table, "")
    output.write(out, results)
    if html is not None:
        html.write_text(page(results), encoding="utf-8")
    sys.exit(0 if results.clean else 1)


def _limit_ms(folder: Path, asked_ms: float | None, curve: bool, alone: bool) -> float | None:
    """The limit of the 99th percentile, where there is a curve."""
    if not curve and asked_ms is not None:
        raise WrongInput("--p99-limit is a limit of --curve")
    if curve and not alone:
        raise WrongInput("--curve chooses its own rates and callers: give neither --rate nor --abusive")
    return deadline_ms(folder) if curve and asked_ms is None else asked_ms


def _with_abuse(job: Job, share: float, requests: Sequence[bytes], same: bool) -> Job:
    """Some of the connections send these, as fast as they can."""
    plan = job.plan
    bad = max(1, round(share * plan.connections))
    if same:
        raise WrongInput("--abusive needs two callers: give --key, or another --abusive-key")
    if bad >= plan.connections:
        raise WrongInput(f"--abusive {share:g} leaves none of {plan.connections} connections to others")
    abusive = replace(plan, requests=requests, connections=bad, rate=None)
    return replace(job, plan=replace(plan, connections=plan.connections - bad), abusive=abusive)


async def _measure(job: Job, about: RunDescription, begin: Callable[[str], ProgressCallback]) -> Results:
    await _probe(job.plan)
    if job.abusive is not None:
        return await _beside(job, job.abusive, about, begin)
    if job.limit_ms is not None:
        return await _curve(job, job.limit_ms, about, begin)
    return Results(about, Figures.of(job.plan, *await run(job.plan, job.warm_up_s, begin("load"))))


async def _beside(
    job: Job, abusive: Plan, about: RunDescription, begin: Callable[[str], ProgressCallback]
) -> Results:
    """The callers alone, then beside the abusive one: only the difference shows its effect."""
    await _probe(abusive)
    alone = await run(job.plan, job.warm_up_s, begin("callers alone"))
    callers, other = await asyncio.gather(
        run(job.plan, job.warm_up_s, begin("beside an abusive one")), run(abusive, job.warm_up_s)
    )
    return Results(
        about,
        callers=Figures.of(job.plan, *callers),
        alone=Figures.of(job.plan, *alone),
        abusive=Figures.of(abusive, *other),
    )


async def _curve(
    job: Job, limit_ms: float, about: RunDescription, begin: Callable[[str], ProgressCallback]
) -> Results:
    measurements, elapsed_s = await run(job.plan, job.warm_up_s, begin("closed loop"))
    capacity_per_s = curves.achieved_per_s(measurements, job.plan.seconds)
    if capacity_per_s <= 0:
        raise WrongInput("the closed loop met nothing but refusals and errors: there is no capacity to share")
    steps = await curves.steps(job.plan, capacity_per_s, limit_ms, job.warm_up_s, begin)
    curve = Curve(capacity_per_s, limit_ms, steps, curves.saturation_per_s(steps))
    return Results(about, Figures.of(job.plan, measurements, elapsed_s), curve=curve)


async def _probe(plan: Plan) -> None:
    """Raises WrongInput unless one request has an outcome: better now than after ten thousand errors."""
    measurements = Measurements()
    try:
        async with asyncio.timeout(PROBE_S):
            answer = await send_once(plan.origin, plan.requests[0])
    except OSError as error:
        raise WrongInput(f"the first request failed: {error or type(error).__name__}") from error
    measurements.take(answer, 0.0, 0.0, plan.rows)
    if measurements.errors:
        what = answer.body.decode("utf-8", "replace")[:300]
        raise WrongInput(f"the first request ended with {next(iter(measurements.errors))}: {what}")


def _command(*keys: str | None) -> str:
    """The command line, without keys: results are published."""
    command = shlex.join(["gateway", "bench", *sys.argv[1:]])
    for key in filter(None, keys):
        command = command.replace(key, "KEY")
    return command


if __name__ == "__main__":
    app(prog_name="gateway bench")
