"""The comparison itself: servers come up, take their turns under load, and go.

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
from bench.load import Plan
from bench.peers.bodies import MODEL, Bodies
from bench.peers.cases import Case, groups, turns
from bench.peers.launch import SERVERS_BY_NAME, Site
from bench.peers.measure import Round, measure
from bench.peers.process import free_port, running
from bench.peers.verify import verify, wait
from bench.peers.wrk import wrk
from fallbacks.onnx import OnnxModel
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR

CALLER, PER_S = "bench", 1e6  # the rate guard counts, and is never exceeded


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. outliers: the share of requests made of them; 0, and all servers do the same work."""

    folder: Path
    peers: tuple[str, ...]
    cases: tuple[Case, ...]
    rounds: int
    seconds: float
    warm_up_s: float
    connections: int
    outliers: float
    server_cores: frozenset[int]
    generator_cores: frozenset[int]
    wrk: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one server. group: what it was measured with, by the name of the last of them."""

    case: str
    group: str
    server: str
    number: int
    round: Round


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers, and the load it is to get."""

    pid: int
    plan: Plan


def compare(settings: Settings) -> Iterator[Turn]:
    """Every turn as it ends. Raises WrongInput where a server does not come up or answers something else."""
    for name in settings.peers:
        SERVERS_BY_NAME[name].python()  # installed now, not between two rounds
    with ProcessPoolExecutor(1, get_context("spawn")) as generator:
        for case in settings.cases:
            able = [name for name in settings.peers if SERVERS_BY_NAME[name].binary or not case.binary]
            for group in groups(able):
                yield from _group(settings, case, group, generator)


def _group(
    settings: Settings, case: Case, group: Sequence[str], generator: ProcessPoolExecutor
) -> Iterator[Turn]:
    cores = settings.generator_cores
    with TemporaryDirectory(prefix="peers-") as temporary, ExitStack() as stack:
        work = Path(temporary)
        bodies = deployment(settings.folder, work / "deployment", settings.outliers)
        running_servers = {
            name: stack.enter_context(_running_server(name, case, bodies, settings, work)) for name in group
        }
        for number, name in turns(group, settings.rounds):
            measurement = generator.submit(
                measure, running_servers[name].plan, settings.warm_up_s, running_servers[name].pid, cores
            )
            found = measurement.result()
            if settings.wrk:
                found = replace(found, wrk_per_s=wrk(running_servers[name].plan, work, cores))
            yield Turn(case.name, group[-1], name, number, found)


def deployment(folder: Path, copy: Path, outliers: float) -> Bodies:
    """A copy with one key that is limited so high that it is never refused."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(VAR))
    key = add_key(copy / VAR, CALLER, tier="trusted", per_s=PER_S, scopes=frozenset({"infer"}))
    return Bodies(copy, outliers, key)


@contextmanager
def _running_server(
    name: str, case: Case, bodies: Bodies, settings: Settings, work: Path
) -> Iterator[RunningServer]:
    """One server on a copy of its own, which has answered as the model does."""
    server = SERVERS_BY_NAME[name]
    own = work / name
    own.mkdir()
    copy = shutil.copytree(bodies.folder, own / "deployment")
    many = case.connections or settings.connections
    site = Site(server.python(), copy, own, free_port(), concurrent=many > 1)
    origin = Origin("127.0.0.1", site.port, tls=False)
    requests = bodies.requests(origin, case)
    log = own / "log"
    with (
        running(server.command(site), server.variables(site), settings.server_cores, log) as child,
        closing(OnnxModel.load(bodies.folder / MODEL)) as model,
    ):
        wait(name, child, origin, requests[0], log)
        verify(name, origin, requests, model)
        yield RunningServer(
            child.pid, Plan(origin, requests, case.rows, many, settings.seconds, peer=not server.ours)
        )
