"""One run: the servers started on their core, the loads run from another, the figures collected."""

from __future__ import annotations

import os
import resource
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.machine import machine
from bench.overload import slow_model
from bench.overload.figures import GreedyFigures, OverloadFigures
from bench.overload.generator import compile_generator
from bench.overload.measure import Grid, Loads, measure
from bench.overload.results import OverloadResults
from bench.overload.scenarios import Traffic
from bench.overload.served_rows import write_served_rows
from bench.overload.servers import Server, serve_bare, serve_tree
from bench.overload.slow_deployment import slow_deployment
from bench.overload.tables import line
from bench.overload.targets import missed
from bench.peers.load_cases import BARE
from bench.requests import WrongInput, deadline_ms
from bench.same_answers.tree import require_environment

ROOT = Path(__file__).resolve().parents[2]
HERE, THERE = "here", "there"


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure. tree: another checkout beside this one; bare: bare uvicorn as well."""

    deployment: str
    tree: Path | None
    bare: bool
    grid: Grid
    seconds: float
    connections: int

    def __post_init__(self) -> None:
        if self.bare and self.deployment == slow_model.NAME:
            raise WrongInput("--peers: bare uvicorn runs a model file, which the deployment `slow` has not")


@dataclass(frozen=True, slots=True)
class Cores:
    """A core for the servers, and one for the generator and for the server of the slow model."""

    servers: frozenset[int]
    generator: frozenset[int]

    @classmethod
    def of_this_process(cls) -> Cores:
        """Raises WrongInput if it may use one core alone."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise WrongInput("one core is not enough: the generator needs one of its own beside the server's")
        return cls(frozenset({cores[0]}), frozenset({cores[-1]}))


def run(settings: Settings, console: Console) -> OverloadResults:
    """Measures everything, printing each load as it ends. Raises WrongInput, WrongTree."""
    cores = Cores.of_this_process()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # of the servers that it starts
    with TemporaryDirectory(prefix="overload-") as temporary, ExitStack() as stack:
        work = Path(temporary)
        program = compile_generator(work)
        with console.status("starting the servers"):
            folder = _deployment(stack, settings.deployment, work, cores)
            servers = _serve(stack, settings, folder, work, cores)
            write_served_rows(servers[0].target, folder, work / "served.npz")
        traffic = Traffic(
            folder,
            work / "served.npz",
            deadline_ms(folder) / 1e3,
            settings.seconds,
            settings.connections,
        )
        progress = stack.enter_context(_progress(console))
        task = progress.add_task("", total=settings.grid.seconds(len(servers), traffic))
        loads = Loads(
            program,
            work,
            cores.generator,
            lambda name, done_s: progress.update(task, description=name, completed=done_s),
        )
        found = []
        for one in measure(servers, traffic, settings.grid, loads):
            console.print(line(one))
            found.append(one)
    return _results(settings, traffic.deadline_s, found)


def _results(
    settings: Settings, deadline_s: float, found: list[OverloadFigures | GreedyFigures]
) -> OverloadResults:
    return OverloadResults(
        machine(),
        settings.deployment,
        deadline_s,
        settings.seconds,
        settings.connections,
        [one for one in found if isinstance(one, OverloadFigures)],
        [one for one in found if isinstance(one, GreedyFigures)],
        [f"{one.load}: {what}" for one in found if one.server == HERE for what in missed(one, deadline_s)],
    )


def _deployment(stack: ExitStack, name: str, work: Path, cores: Cores) -> Path:
    if name == slow_model.NAME:
        return stack.enter_context(slow_deployment(work / "slow", cores.generator))
    folder = ROOT / "configs" / name
    if not folder.is_dir():
        raise WrongInput(f"--deployment: {name!r} is neither a folder of configs/ nor {slow_model.NAME!r}")
    return folder


def _serve(stack: ExitStack, settings: Settings, folder: Path, work: Path, cores: Cores) -> list[Server]:
    trees = {HERE: ROOT} | ({} if settings.tree is None else {THERE: require_environment(settings.tree)})
    servers = [
        stack.enter_context(serve_tree(name, at, folder, work / name, cores.servers))
        for name, at in trees.items()
    ]
    if settings.bare:
        servers.append(stack.enter_context(serve_bare(servers[0], folder, work / BARE, cores.servers)))
    return servers


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(None), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
