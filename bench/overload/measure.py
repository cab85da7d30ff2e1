"""All loads of one run, in an order in which a machine that slows down slows every server alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from bench.client import send_once
from bench.overload import scenarios, summary
from bench.overload.figures import GreedyFigures, OverloadFigures
from bench.overload.generator import OverloadPlan, run_load
from bench.overload.load_result import LoadResult
from bench.overload.scenarios import MASS, RECOVERY_S, WARM_UP_S, Traffic
from bench.overload.servers import Server
from bench.requests import WrongInput

CAPACITY_S = 4.0
SETTLE_S, SETTLE_POLL_S, SETTLED = 20.0, 0.1, 10
"""How long at most a server may take to answer so many requests in a row with 200 before its next load."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: every load of every server in each round. times: of the capacity, ascending."""

    rows: tuple[int, ...]
    times: tuple[float, ...]
    rounds: int
    greedy: bool

    def seconds(self, servers: int, traffic: Traffic) -> float:
        """About how long all loads take."""
        each = WARM_UP_S + traffic.seconds + RECOVERY_S
        loads = len(self.times) * (each + WARM_UP_S + CAPACITY_S)
        greedy = (2 * traffic.seconds + 2 * WARM_UP_S + CAPACITY_S) * self.greedy
        return self.rounds * servers * (len(self.rows) * loads + greedy)


class Loads:
    """Runs loads one after the other from these cores, with the generator's files in `work`.

    report: gets what is run and the seconds of load up to now.
    """

    def __init__(
        self, program: Path, work: Path, cores: frozenset[int], report: Callable[[str, float], None]
    ) -> None:
        self._program, self._work, self._cores, self._report = program, work, cores, report
        self._done_s = 0.0

    def run(self, name: str, plan: OverloadPlan) -> LoadResult:
        """Raises WrongInput with the name of the load."""
        done_s = self._done_s
        self._done_s += sum(plan.phases)
        try:
            return run_load(
                self._program, plan, self._work, self._cores, lambda s: self._report(name, done_s + s)
            )
        except WrongInput as error:
            raise WrongInput(f"{name}: {error}") from error


def measure(
    servers: Sequence[Server], traffic: Traffic, grid: Grid, loads: Loads
) -> Iterator[OverloadFigures | GreedyFigures]:
    """The figures of each load as it ends.

    A server's capacity is measured just before each of its loads. Servers take turns at every load, in the
    other order in the next round.
    """
    for number in range(grid.rounds):
        turn = list(servers) if number % 2 == 0 else list(reversed(servers))
        for rows in grid.rows:
            for times in grid.times:
                for server in turn:
                    yield _overload(server, traffic, rows, times, number, loads)
        for server in turn if grid.greedy else ():
            yield _greedy(server, traffic, number, loads)


def _overload(
    server: Server, traffic: Traffic, rows: int, times: float, number: int, loads: Loads
) -> OverloadFigures:
    capacity = _capacity(server, traffic, rows, loads)
    name = f"{server.name}, {rows} rows, {times:g} times {capacity:.0f} requests/s"
    plan = replace(scenarios.overload(server, traffic, rows, capacity, times), seed=number)
    return summary.overload_figures(server.name, rows, times, number, capacity, loads.run(name, plan))


def _greedy(server: Server, traffic: Traffic, number: int, loads: Loads) -> GreedyFigures:
    capacity = _capacity(server, traffic, 1, loads)
    plan = replace(scenarios.greedy(server, traffic, 1, capacity), seed=number)
    result = loads.run(f"{server.name}, a greedy caller", plan)
    return summary.greedy_figures(server.name, 1, number, capacity, result)


def _capacity(server: Server, traffic: Traffic, rows: int, loads: Loads) -> float:
    _settle(server, traffic)
    seconds = min(CAPACITY_S, traffic.seconds)
    plan = scenarios.closed_loop(server, replace(traffic, seconds=seconds), rows)
    return summary.capacity_of(loads.run(f"{server.name}, {rows} rows, capacity", plan))


def _settle(server: Server, traffic: Traffic) -> None:
    """Waits until nothing of the load before is left, an open circuit for instance."""
    request = server.requests(traffic.deployment, "caller-0", traffic.mix(1, MASS))[0]
    until_s, row = time.monotonic() + SETTLE_S, 0
    while row < SETTLED and time.monotonic() < until_s:
        try:
            row = row + 1 if uvloop.run(send_once(server.target.origin, request)).status == 200 else 0
        except ConnectionError:
            row = 0
        time.sleep(SETTLE_POLL_S)
