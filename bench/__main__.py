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
from bench.curve import LoadCurve
from bench.load import LoadPlan, ProgressCallback, run_load
from bench.measurements import Measurements
from bench.page import render_page
from bench.requests import RequestMix, WrongInput, deadline_ms, find_target, render_requests
from bench.results import LoadFigures, LoadResults, RunDescription, load_tables

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

UrlArgument = Annotated[str, typer.Argument(help="Where the gateway listens, such as http://127.0.0.1:8080.")]
FolderOption = Annotated[
    Path,
    typer.Option("--dir", help="The deployment it serves, whose rows are sent: its samples or kept rows."),
]
DataOption = Annotated[
    Path | None, typer.Option(help="Rows to send instead (.npz, .csv, .parquet), as of `gateway calibrate`.")
]
KeyOption = Annotated[str | None, typer.Option(help="A caller's key.", envvar="GATEWAY_KEY")]
SecondsOption = Annotated[float, typer.Option(min=0.1, help="How long to measure; with --curve, each step.")]
WarmUpOption = Annotated[float, typer.Option(min=0, help="Seconds of the same load before that.")]
ConnectionsOption = Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight at most.")]
RateOption = Annotated[
    float | None, typer.Option(min=0.1, help="Requests a second at Poisson times. [default: a closed loop]")
]
CurveOption = Annotated[bool, typer.Option("--curve", help="Latency by throughput, and where it saturates.")]
LimitOption = Annotated[
    float | None, typer.Option(min=0, help="Of --curve, in ms. [default: the deadline of the deployment]")
]
AbusiveOption = Annotated[
    float, typer.Option(min=0, max=1, help="The share of connections of one caller that takes all it can.")
]
AbusiveKeyOption = Annotated[str | None, typer.Option(help="Its key. [default: none, an anonymous caller]")]
OutliersOption = Annotated[float, typer.Option(min=0, max=1, help="The share of requests made of outliers.")]
BinaryOption = Annotated[bool, typer.Option("--binary", help="Tensors as bytes, not as JSON numbers.")]
RowsOption = Annotated[int, typer.Option(min=1, help="Rows a request.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Everything as one page with plots.")]


@dataclass(frozen=True, slots=True)
class LoadTestJob:
    """All that is to be measured. limit_ms: of the curve, None without one."""

    plan: LoadPlan
    warm_up_s: float
    abusive: LoadPlan | None
    limit_ms: float | None

    @property
    def loads(self) -> int:
        """How many run, one after the other."""
        if self.limit_ms is not None:
            return 1 + len(curves.CAPACITY_SHARES)
        return 1 if self.abusive is None else 2


@app.command(help=HELP)
def bench(
    url: UrlArgument,
    folder: FolderOption = Path("configs/fashion"),
    data: DataOption = None,
    key: KeyOption = None,
    seconds: SecondsOption = 10.0,
    warm_up: WarmUpOption = 1.0,
    connections: ConnectionsOption = 16,
    rate: RateOption = None,
    curve: CurveOption = False,
    p99_limit: LimitOption = None,
    abusive: AbusiveOption = 0.0,
    abusive_key: AbusiveKeyOption = None,
    outliers: OutliersOption = 0.1,
    binary: BinaryOption = False,
    rows: RowsOption = 1,
    seed: int = 0,
    out: JsonOption = None,
    html: HtmlOption = None,
) -> None:
    console = output.console(out)
    try:
        limit_ms = _limit_ms(folder, p99_limit, curve, alone=rate is None and abusive == 0)
        target, mix = find_target(url, folder, key), RequestMix(rows, outliers, binary, seed, data)
        plan = LoadPlan(
            target.origin, render_requests(target, folder, mix), rows, connections, seconds, rate, seed
        )
        job = LoadTestJob(plan, warm_up, None, limit_ms)
        if abusive > 0:
            bad = render_requests(replace(target, key=abusive_key), folder, replace(mix, seed=seed + 1))
            job = _with_abuse(job, abusive, bad, same=key == abusive_key)
        about = RunDescription.of(
            target.contract.model, _command(key, abusive_key), job.plan, outliers, warm_up
        )
        with output.LoadProgressBar(console, job.loads, seconds, warm_up) as steps:
            results = uvloop.run(_measure(job, about, steps.begin))
    except WrongInput as error:
        output.wrong_input(str(error))
    for table in load_tables(results):
        console.print(table, "")
    output.write(out, results)
    if html is not None:
        html.write_text(render_page(results), encoding="utf-8")
    sys.exit(0 if results.clean else 1)


def _limit_ms(folder: Path, asked_ms: float | None, curve: bool, alone: bool) -> float | None:
    """The limit of the 99th percentile, where there is a curve."""
    if not curve and asked_ms is not None:
        raise WrongInput("--p99-limit is a limit of --curve")
    if curve and not alone:
        raise WrongInput("--curve chooses its own rates and callers: give neither --rate nor --abusive")
    return deadline_ms(folder) if curve and asked_ms is None else asked_ms


def _with_abuse(job: LoadTestJob, share: float, requests: Sequence[bytes], same: bool) -> LoadTestJob:
    """Some of the connections send these, as fast as they can."""
    plan = job.plan
    bad = max(1, round(share * plan.connections))
    if same:
        raise WrongInput("--abusive needs two callers: give --key, or another --abusive-key")
    if bad >= plan.connections:
        raise WrongInput(f"--abusive {share:g} leaves none of {plan.connections} connections to others")
    abusive = replace(plan, requests=requests, connections=bad, rate=None)
    return replace(job, plan=replace(plan, connections=plan.connections - bad), abusive=abusive)


async def _measure(
    job: LoadTestJob, about: RunDescription, begin: Callable[[str], ProgressCallback]
) -> LoadResults:
    await _probe(job.plan)
    if job.abusive is not None:
        return await _measure_beside_abusive(job, job.abusive, about, begin)
    if job.limit_ms is not None:
        return await _measure_curve(job, job.limit_ms, about, begin)
    return LoadResults(
        about, LoadFigures.of(job.plan, *await run_load(job.plan, job.warm_up_s, begin("load")))
    )


async def _measure_beside_abusive(
    job: LoadTestJob, abusive: LoadPlan, about: RunDescription, begin: Callable[[str], ProgressCallback]
) -> LoadResults:
    """The callers alone, then beside the abusive one: only the difference shows its effect."""
    await _probe(abusive)
    alone = await run_load(job.plan, job.warm_up_s, begin("callers alone"))
    callers, other = await asyncio.gather(
        run_load(job.plan, job.warm_up_s, begin("beside an abusive one")), run_load(abusive, job.warm_up_s)
    )
    return LoadResults(
        about,
        callers=LoadFigures.of(job.plan, *callers),
        alone=LoadFigures.of(job.plan, *alone),
        abusive=LoadFigures.of(abusive, *other),
    )


async def _measure_curve(
    job: LoadTestJob, limit_ms: float, about: RunDescription, begin: Callable[[str], ProgressCallback]
) -> LoadResults:
    measurements, elapsed_s = await run_load(job.plan, job.warm_up_s, begin("closed loop"))
    capacity_per_s = curves.achieved_per_s(measurements, job.plan.seconds)
    if capacity_per_s <= 0:
        raise WrongInput("the closed loop met nothing but refusals and errors: there is no capacity to share")
    steps = await curves.steps(job.plan, capacity_per_s, limit_ms, job.warm_up_s, begin)
    curve = LoadCurve(capacity_per_s, limit_ms, steps, curves.saturation_per_s(steps))
    return LoadResults(about, LoadFigures.of(job.plan, measurements, elapsed_s), curve=curve)


async def _probe(plan: LoadPlan) -> None:
    """Raises WrongInput unless one request has an outcome: better now than after ten thousand errors."""
    measurements = Measurements()
    try:
        async with asyncio.timeout(PROBE_S):
            answer = await send_once(plan.origin, plan.requests[0])
    except OSError as error:
        raise WrongInput(f"the first request failed: {error or type(error).__name__}") from error
    measurements.record(answer, 0.0, 0.0, plan.rows)
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
