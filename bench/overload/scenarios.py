"""What is sent to a server: the classes of requests, and how many of each in each phase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.overload.generator import CLOSED_LOOP, LoadClass, OverloadPlan
from bench.overload.servers import CALLERS, Server
from bench.requests import RequestMix

WARM_UP_S, RECOVERY_S = 1.0, 3.0
TENTH, HALF, GREEDY_TIMES = 0.1, 0.5, 5.0
CLOSED_CONNECTIONS = {1: 64, 32: 8}
"""Of the closed loop that measures the capacity, by rows a request: 64 requests of 32 rows would be more than
a gateway decides within its deadline."""
OPEN_CONNECTIONS, HIGHEST_CONNECTIONS, GREEDY_CONNECTIONS = 1400, 250, 250
PROBE_CONNECTIONS, PROBES_PER_S = 40, 20.0
HIGHEST, MASS = 1, 2
"""Priorities."""
MASS_NAMES = tuple(f"mass-{i}" for i in range(CALLERS))
WARM_UP_PHASE, LOAD_PHASE, RECOVERY_PHASE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Traffic:
    """What every load has in common. deployment: whose rows are sent; data: a file of those that are served.

    seconds: of each load, warm-up and recovery not included. connections: of the mass in an open loop.
    """

    deployment: Path
    data: Path | None
    deadline_s: float
    seconds: float
    connections: int = OPEN_CONNECTIONS

    def mix(self, rows: int, priority: int) -> RequestMix:
        return RequestMix(rows, 0.0, data=self.data, row_outcomes=False, priority=priority)


def closed_loop(server: Server, traffic: Traffic, rows: int) -> OverloadPlan:
    """As many requests under way as connections: what is answered of it in a second is the capacity."""
    each = max(1, CLOSED_CONNECTIONS.get(rows, 8) // CALLERS)
    classes = _mass(server, traffic, rows, each, (CLOSED_LOOP, CLOSED_LOOP))
    return OverloadPlan(server.port, traffic.deadline_s, (WARM_UP_S, traffic.seconds), classes)


def overload(server: Server, traffic: Traffic, rows: int, capacity: float, times: float) -> OverloadPlan:
    """An open loop at so many times the capacity, between a warm-up and a recovery at half of it.

    A tenth of the capacity is of the highest priority, in every phase.
    """
    high = TENTH * capacity
    rates = (HALF * capacity - high, times * capacity - high, HALF * capacity - high)
    classes = (
        *_mass(server, traffic, rows, traffic.connections // CALLERS, tuple(r / CALLERS for r in rates)),
        LoadClass(
            "highest",
            server.requests_file(traffic.deployment, "highest", traffic.mix(rows, HIGHEST)),
            HIGHEST_CONNECTIONS,
            (high, high, high),
            "127.0.0.2",
        ),
        *_probes(server, 3),
    )
    phases = (WARM_UP_S, traffic.seconds, RECOVERY_S)
    return OverloadPlan(server.port, traffic.deadline_s, phases, classes)


def greedy(server: Server, traffic: Traffic, rows: int, capacity: float) -> OverloadPlan:
    """A polite caller at a tenth of the capacity, alone and then beside a greedy one at five times of it."""
    polite, beside = TENTH * capacity, GREEDY_TIMES * capacity
    mix = traffic.mix(rows, MASS)
    classes = (
        LoadClass(
            "polite",
            server.requests_file(traffic.deployment, "polite", mix),
            HIGHEST_CONNECTIONS,
            (polite,) * 3,
            "127.0.0.2",
        ),
        LoadClass(
            "greedy",
            server.requests_file(traffic.deployment, "greedy", mix),
            GREEDY_CONNECTIONS,
            (0.0, 0.0, beside),
        ),
        *_probes(server, 3),
    )
    phases = (WARM_UP_S, traffic.seconds, traffic.seconds)
    return OverloadPlan(server.port, traffic.deadline_s, phases, classes)


def _mass(
    server: Server, traffic: Traffic, rows: int, connections: int, rates: tuple[float, ...]
) -> tuple[LoadClass, ...]:
    """The same load of each of several callers, at these rates each."""
    mix = traffic.mix(rows, MASS)
    return tuple(
        LoadClass(name, server.requests_file(traffic.deployment, f"caller-{i}", mix), connections, rates)
        for i, name in enumerate(MASS_NAMES)
    )


def _probes(server: Server, phases: int) -> tuple[LoadClass, ...]:
    """Health probes all the time, if the server has such an endpoint."""
    if not server.healthy:
        return ()
    rates = (PROBES_PER_S,) * phases
    return (LoadClass("probe", server.probe_file(), PROBE_CONNECTIONS, rates, "127.0.0.3"),)
