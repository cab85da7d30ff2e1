"""What is broken: a gateway in a process of its own over a copy of a deployment, and what surrounds it."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import orjson

from bench.faults.cell import World as WorldName
from bench.faults.choose import choose
from bench.faults.client import Connections, Exchange, Request, send_at
from bench.faults.history import end_of
from bench.faults.processes import ServedGateway, UpstreamProcess
from bench.faults.proxy import FaultProxy
from bench.faults.rows import OUTLIER_EVERY, SPARE, Candidates, Rows
from bench.faults.rules import Rules
from bench.growth.server_process import UNDELAYED, unlimited_key
from bench.requests import Target, WrongInput, find_target
from gateway.access.callers import add_key
from gateway.cli.samples import load_samples
from gateway.deployment.deployment import VAR, Deployment
from gateway.replica import TOKEN_VARIABLE

DEPLOYMENTS: Final[Mapping[WorldName, tuple[str, str]]] = {
    "parts": ("fashion", "digits"),
    "exporter": ("fashion", "digits"),
    "upstream": ("letters", "uniform"),
}
"""Of each world: which deployment is served, and which of its outliers are sent."""
TOKEN: Final = "token-of-the-fault-bench"  # noqa: S105 (of this bench alone)
WAITING: Final = """SELECT id FROM cases WHERE state = 'open' UNION ALL
SELECT members.id FROM members JOIN cases ON cases.id = case_id WHERE state = 'open'"""
LIMITED_PER_S: Final = 20.0
RECOVER_S: Final = 30.0
CANDIDATES_A_REQUEST: Final = 5


class World:
    """One gateway with the rows that are sent to it. exporter, upstream_proxy: what stands around it."""

    def __init__(self, name: WorldName, folder: Path, environ: Mapping[str, str]) -> None:
        self.name, self.folder = name, folder
        self.served = ServedGateway(folder, {**environ, TOKEN_VARIABLE: TOKEN})
        self.exporter: FaultProxy | None = None
        self.upstream: UpstreamProcess | None = None
        self.upstream_proxy: FaultProxy | None = None
        self.key = unlimited_key(folder)
        self.limited_key = add_key(
            folder / VAR, "limited", tier="trusted", per_s=LIMITED_PER_S, scopes=UNDELAYED
        )
        self._policy = Deployment.read(folder).policy
        self.rules = Rules.of(self._policy)
        self.rows: Rows
        self._recoveries = itertools.count()

    async def start(self, requests: int) -> None:
        """Serves, and chooses rows enough for cells of so many requests, no two of a cell alike.

        Raises: WrongInput if the deployment has too few.
        """
        await self.served.start()
        target = await asyncio.to_thread(self._target)
        samples = load_samples(self.folder, target.contract)
        most = CANDIDATES_A_REQUEST * requests
        candidates = Candidates.of(samples, DEPLOYMENTS[self.name][1], most)
        good, outliers = await choose(self.folder, candidates)
        if len(good) < requests + SPARE or len(outliers) * OUTLIER_EVERY < requests:
            what = f"{len(good)} good rows and {len(outliers)} outliers"
            raise WrongInput(f"{self.folder}: only {what} for {requests} requests a cell: fewer --requests")
        self.rows = Rows(target, candidates, good, outliers)

    async def restart(self) -> None:
        """Serves again, on other ports, after the process has ended."""
        await self.served.start()
        target = await asyncio.to_thread(self._target)
        self.rows = Rows(target, self.rows.candidates, self.rows.good, self.rows.outliers)

    async def recover(self) -> list[Exchange]:
        """Sends a good row again and again, for thirty seconds at most, until it is served: all replies."""
        found: list[Exchange] = []
        until_s = asyncio.get_running_loop().time() + RECOVER_S
        while asyncio.get_running_loop().time() < until_s:
            found += await self.send([self.rows.spare(next(self._recoveries))], 1.0)
            reply = found[-1].reply
            if reply is not None and end_of(reply) == "served":
                break
            await asyncio.sleep(0.1)
        return found

    async def send(self, requests: Sequence[Request], rate: float) -> list[Exchange]:
        """Sends requests over connections of their own."""
        connections = Connections(self.served.ports[0])
        try:
            return await send_at(connections, requests, rate)
        finally:
            connections.close()

    def audit_paths(self) -> list[Path]:
        """The files of the audit log, the one that is written to last."""
        return sorted((self.folder / VAR).glob("decisions-*.jsonl"), key=lambda path: path.stat().st_mtime)

    def audit_sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self.audit_paths()}

    def audit_lines(self, since: Mapping[Path, int]) -> list[dict[str, Any]]:
        """What was written since the files had these sizes; whole lines alone."""
        found: list[dict[str, Any]] = []
        for path in self.audit_paths():
            content = path.read_bytes()
            start = since.get(path, 0)
            new = content[start if start <= len(content) else 0 :]
            found += [orjson.loads(line) for line in new.split(b"\n")[:-1]]
        return found

    def waiting(self) -> list[str]:
        """The ids of the rows that wait in the review store, as its file has them."""
        with closing(sqlite3.connect(f"file:{self.review_path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(WAITING).fetchall()
        return [str(id_) for (id_,) in rows]

    @property
    def review_path(self) -> Path:
        return self.folder / VAR / "review.db"

    def most_admitted(self, elapsed_s: float) -> float:
        """How many rows the limited caller may have had admitted after so long."""
        rate = next(one for one in self._policy.guards if one.kind == "rate")
        return rate.burst * LIMITED_PER_S / rate.per_s + LIMITED_PER_S * elapsed_s + 1

    def _target(self) -> Target:
        return find_target(f"http://127.0.0.1:{self.served.ports[0]}", self.folder, self.key)
