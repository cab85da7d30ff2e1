"""Two replicas beside one: `python -m bench.replicas`. How much throughput a second core brings.

N replicas get N cores for everything: each replica is pinned to one of its own, and the rest of Ray and the
load generator share the same N. If they had every core both times, a single replica would have its whole core
to itself while two would share theirs with a generator and Ray's daemons (a tenth of a core each), and the
ratio would compare 1 core with 1.8.

One cluster runs at a time, anew in each round, in turns: one replica, two, one, two. `busy` shows whether the
load reached every replica: the kernel spreads connections, not requests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from bench import output
from bench.client import Origin
from bench.load import LoadPlan
from bench.machine import machine
from bench.peers.compare import copy_with_key
from bench.peers.load_cases import LOAD_CASES, LoadCase
from bench.peers.measure import Round, measure_round
from bench.peers.proc import Process, tree
from bench.peers.process import free_port, running
from bench.peers.ratios import MedianWithRange, ratios
from bench.requests import WrongInput

TITLE = b"ray::ServeReplica:"
READY = "serving "
REPLICA_COUNTS = (1, 2)
START_S, POLL_S = 120.0, 0.1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class ReplicaRound:
    """One round. busy: the share of its core that each replica used in the middle half of it."""

    round: Round
    busy: list[float]


@dataclass(frozen=True, slots=True)
class ReplicaResults:
    """rounds: of each number of replicas. throughput: of two over one, round by round."""

    machine: dict[str, str]
    case: str
    connections: int
    seconds: float
    rounds: dict[str, list[ReplicaRound]]
    throughput: MedianWithRange


@app.command()
def replicas(
    rounds: Annotated[int, typer.Option(min=1, help="Clusters of each size.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a round measures.")] = 8.0,
    warm_up: Annotated[float, typer.Option(min=0.1, help="Seconds of the same load before that.")] = 2.0,
    connections: Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight.")] = 64,
    case: Annotated[str, typer.Option(help=f"Of {', '.join(LOAD_CASES)}.")] = "json1",
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/fashion"),
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures one and two replicas in turns, and prints the ratio."""
    console = output.console(out)
    found: dict[str, list[ReplicaRound]] = {str(count): [] for count in REPLICA_COUNTS}
    try:
        if case not in LOAD_CASES:
            raise WrongInput(f"--case: {case!r} is none of {', '.join(LOAD_CASES)}")
        if len(os.sched_getaffinity(0)) < max(REPLICA_COUNTS):
            raise WrongInput(f"{max(REPLICA_COUNTS)} replicas need {max(REPLICA_COUNTS)} cores")
        with ProcessPoolExecutor(1, get_context("spawn")) as generator:
            for count in REPLICA_COUNTS * rounds:
                one = _round(count, LOAD_CASES[case], folder, connections, seconds, warm_up, generator)
                found[str(count)].append(one)
                console.print(_round_text(count, one))
    except WrongInput as error:
        output.wrong_input(str(error))
    single, double = ([one.round.requests_per_s for one in found[str(count)]] for count in REPLICA_COUNTS)
    ratio = ratios(double, single)
    console.print(f"two over one: {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    output.write(out, ReplicaResults(machine(), case, connections, seconds, found, ratio))


def _round_text(count: int, one: ReplicaRound) -> str:
    busy = ", ".join(f"{share:.2f}" for share in one.busy)
    found = one.round
    return f"{count} replicas: {found.requests_per_s:.0f} requests/s, p99 {found.p99_ms:.1f} ms, busy {busy}"


def _round(
    count: int,
    case: LoadCase,
    folder: Path,
    connections: int,
    seconds: float,
    warm_up_s: float,
    generator: ProcessPoolExecutor,
) -> ReplicaRound:
    """One cluster from its start to its end."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    with TemporaryDirectory(prefix="replicas-") as temporary:
        bodies = copy_with_key(folder, Path(temporary) / "deployment", outliers=0.0)
        origin, log = Origin("127.0.0.1", free_port(), tls=False), Path(temporary) / "log"
        ports = ["--port", str(origin.port), "--grpc-port", str(free_port())]
        ports += ["--admin-port", str(free_port())]
        serve = [sys.executable, "-m", "gateway", "serve", str(bodies.folder), "--replicas", str(count)]
        requests = bodies.requests(origin, case)
        with running([*serve, *ports], {}, frozenset(cores), log) as child:
            _wait(child, log)
            pids = replica_pids(child.pid, count)
            pin(pids, cores)
            plan = LoadPlan(origin, requests, case.rows, case.connections or connections, seconds)
            measurement = generator.submit(measure_round, plan, warm_up_s, child.pid, frozenset(cores))
            time.sleep(warm_up_s + seconds / 4)
            busy = busy_shares(pids, seconds / 2)
            return ReplicaRound(measurement.result(), busy)


def _wait(child: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once every replica listens and the gateway has printed so. Raises WrongInput with its log."""
    until_s = time.monotonic() + START_S
    while READY not in (text := log.read_text("utf-8", "replace")):
        if child.poll() is not None or time.monotonic() > until_s:
            raise WrongInput(f"the gateway does not serve: {text}")
        time.sleep(POLL_S)


def replica_pids(pid: int, count: int) -> list[int]:
    """The processes below `pid` that Ray calls replicas. Raises WrongInput unless there are so many."""
    pids = []
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{one.pid}/cmdline").read_bytes().startswith(TITLE):
                pids.append(one.pid)
    if len(pids) != count:
        raise WrongInput(f"{len(pids)} replicas run, not {count}")
    return pids


def pin(pids: Sequence[int], cores: Sequence[int]) -> None:
    """Each process with all its threads to a core of its own."""
    for pid, core in zip(pids, cores, strict=True):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(int(thread.name), {core})


def busy_shares(pids: Sequence[int], seconds: float) -> list[float]:
    """The share of one core that each process uses in the next seconds. Raises WrongInput where one ends."""
    begin_s, before = time.perf_counter(), [Process.read(pid) for pid in pids]
    time.sleep(seconds)
    elapsed_s, after = time.perf_counter() - begin_s, [Process.read(pid) for pid in pids]
    shares = [(b.cpu_s - a.cpu_s) / elapsed_s for a, b in zip(before, after, strict=True) if a and b]
    if len(shares) != len(pids):
        raise WrongInput("a replica ended under load")
    return shares


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped too
    app(prog_name="python -m bench.replicas")
