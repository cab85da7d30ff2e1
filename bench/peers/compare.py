"""The comparison: starts the servers of each group, loads them in turn, and stops them.

Every case of every group begins with fresh servers and fresh copies of the deployment, so that no review
queue fills and no log grows over the whole run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.client import Origin
from bench.growth.server_process import UNDELAYED
from bench.load import LoadPlan
from bench.peers.bodies import MODEL_FILE, Bodies
from bench.peers.launch import SERVERS_BY_NAME, ServerPlacement
from bench.peers.load_cases import LoadCase, interleave, server_groups
from bench.peers.measure import Round, measure_round
from bench.peers.process import free_port, running
from bench.peers.verify import verify_answers, wait_until_ready
from bench.peers.wrk import wrk
from fallbacks.onnx import OnnxModel
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR

CALLER, UNLIMITED_PER_S = "bench", 1e6  # the rate guard counts, and is never exceeded


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. outliers: the share of requests made of them; 0, and all servers do the same work."""

    folder: Path
    peers: tuple[str, ...]
    cases: tuple[LoadCase, ...]
    rounds: int
    seconds: float
    warm_up_s: float
    connections: int
    outliers: float
    server_cores: frozenset[int]
    generator_cores: frozenset[int]
    wrk: bool


@dataclass(frozen=True, slots=True)
class ServerRound:
    """One round of one server. group: the servers it was measured with, by the name of the last of them."""

    case: str
    group: str
    server: str
    number: int
    round: Round


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers, and the load it is sent."""

    pid: int
    plan: LoadPlan


def compare_servers(settings: Settings) -> Iterator[ServerRound]:
    """Every round as it ends. Raises WrongInput where a server does not start or answers something else."""
    for name in settings.peers:
        SERVERS_BY_NAME[name].python()  # installed now, not between two rounds
    with ProcessPoolExecutor(1, get_context("spawn")) as generator:
        for case in settings.cases:
            able = [name for name in settings.peers if SERVERS_BY_NAME[name].binary or not case.binary]
            for group in server_groups(able):
                yield from _group(settings, case, group, generator)


def _group(
    settings: Settings, case: LoadCase, group: Sequence[str], generator: ProcessPoolExecutor
) -> Iterator[ServerRound]:
    cores = settings.generator_cores
    with TemporaryDirectory(prefix="peers-") as temporary, ExitStack() as stack:
        work = Path(temporary)
        bodies = copy_with_key(settings.folder, work / "deployment", settings.outliers)
        running_servers = {
            name: stack.enter_context(_running_server(name, case, bodies, settings, work)) for name in group
        }
        for number, name in interleave(group, settings.rounds):
            measurement = generator.submit(
                measure_round,
                running_servers[name].plan,
                settings.warm_up_s,
                running_servers[name].pid,
                cores,
            )
            found = measurement.result()
            if settings.wrk:
                found = replace(found, wrk_per_s=wrk(running_servers[name].plan, work, cores))
            yield ServerRound(case.name, group[-1], name, number, found)


def copy_with_key(folder: Path, copy: Path, outliers: float) -> Bodies:
    """A copy with one key that is limited so high that it is never refused."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(VAR))
    key = add_key(copy / VAR, CALLER, tier="trusted", per_s=UNLIMITED_PER_S, scopes=UNDELAYED)
    return Bodies(copy, outliers, key)


@contextmanager
def _running_server(
    name: str, case: LoadCase, bodies: Bodies, settings: Settings, work: Path
) -> Iterator[RunningServer]:
    """One server on a copy of its own, which has answered as the model does."""
    server = SERVERS_BY_NAME[name]
    own = work / name
    own.mkdir()
    copy = shutil.copytree(bodies.folder, own / "deployment")
    many = case.connections or settings.connections
    placement = ServerPlacement(server.python(), copy, own, free_port(), concurrent=many > 1)
    origin = Origin("127.0.0.1", placement.port, tls=False)
    requests = bodies.requests(origin, case)
    log = own / "log"
    with (
        running(server.command(placement), server.variables(placement), settings.server_cores, log) as child,
        closing(OnnxModel.load(bodies.folder / MODEL_FILE)) as model,
    ):
        wait_until_ready(name, child, origin, requests[0], log)
        verify_answers(name, origin, requests, model)
        yield RunningServer(
            child.pid, LoadPlan(origin, requests, case.rows, many, settings.seconds, peer=not server.ours)
        )
