"""The walk-through of `make demo`: every outcome on real inputs, in one table, and checked.

Each scene states the least share of its rows for some outcomes; a scene below it fails the demo.
"""

from __future__ import annotations

import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gateway.access.callers import add_key
from gateway.access.tls import Tls, load_tls
from gateway.app import Cluster, Options, wait_for_signal
from gateway.cli.samples import Rows, Samples, load_samples
from gateway.core.decision import OUTCOME_NAMES
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import VAR, Deployment
from gateway.policy.schema import Policy
from gateway.replica import ListenAddress, admin_token, refuse_used_ports

OUTCOMES = tuple(OUTCOME_NAMES.values())
COLOURS = {"served": "green", "degraded": "yellow", "deferred": "cyan", "refused": "red"}
CLEAN_ROWS, OUTLIER_ROWS, BURST_ROWS, BURST_PER_S = 100, 50, 60, 5.0
# The least share of each family that must be deferred; lower for families that the guards rarely detect.
MIN_STOPPED_SHARE = {
    "digits": 0.6,
    "perturbed": 0.8,
    "perturbed_small": 0.1,
    "shuffled": 0.3,
    "uniform": 0.95,
    "fractional": 0.9,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A set of rows: their endings, and the least share of some endings."""

    title: str
    endings: Counter[tuple[str, str, str]]
    least_shares: Mapping[str, float]

    def share(self, outcome: str) -> float:
        """The share of rows that ended as `outcome`, which may be `OUTCOME:REASON`."""
        n = sum(self.endings.values())
        return sum(c for (end, why, _), c in self.endings.items() if outcome in (end, f"{end}:{why}")) / max(
            n, 1
        )

    @property
    def passed(self) -> bool:
        """Whether each least share is reached ("a|b" adds two), and no request ended in another way (5xx)."""
        known = all(end in OUTCOMES for end, _, _ in self.endings)
        enough = all(
            sum(self.share(o) for o in endings.split("|")) >= least
            for endings, least in self.least_shares.items()
        )
        return known and enough and bool(self.endings)


class Client:
    """A caller of one deployment, and its operator."""

    def __init__(self, address: ListenAddress, policy: Policy, token: str, tls: Tls | None) -> None:
        origin = address.url(secure=tls is not None)
        self.url = f"{origin}/v2/models/{policy.name}"
        trusted = True if tls is None else _ssl_context(tls)
        self._http = httpx.Client(base_url=origin, timeout=30, verify=trusted)
        bearer = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self.admin = httpx.Client(
            base_url=f"http://127.0.0.1:{address.admin_port}", headers=bearer, timeout=30
        )
        self.input = self._http.get(self.url).json()["inputs"][0]

    def ask(self, row: NDArray[Any], key: str | None = None) -> httpx.Response:
        tensor = {"name": self.input["name"], "datatype": self.input["datatype"], "shape": [1, *row.shape]}
        body = {"inputs": [tensor | {"data": row.ravel().tolist()}]}
        headers = {"x-api-key": key} if key else {}
        return self._http.post(f"{self.url}/infer", json=body, headers=headers)

    def review(self, url: str) -> dict[str, Any]:
        body: dict[str, Any] = self._http.get(url).json()
        return body

    def scene(
        self, title: str, rows: Rows, least_shares: Mapping[str, float], key: str | None = None
    ) -> Scene:
        endings: Counter[tuple[str, str, str]] = Counter()
        for row in track(rows, description=f"{title:34}", transient=True, disable=not sys.stdout.isatty()):
            endings[_ending(self.ask(row, key))] += 1
        return Scene(title, endings, least_shares)


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    """For a client that trusts this certificate, regardless of its issuer and of the name it is for."""
    context = ssl.create_default_context(cadata=tls.certificate.decode("ascii", "ignore"))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _ending(reply: httpx.Response) -> tuple[str, str, str]:
    default = f"HTTP {reply.status_code}"
    outcome, reason, served_by = (
        reply.headers.get(f"x-failsafe-{name}", default) for name in ("outcome", "reason", "served-by")
    )
    return outcome, reason, served_by


def run(folder: Path, *, once: bool, address: ListenAddress) -> int:
    """Serves on Ray, walks through, prints the table; 0 if every scene ended as it should."""
    console = Console() if sys.stdout.isatty() else Console(width=110)
    deployment = Deployment.read(folder)
    policy = deployment.policy
    samples = _samples_of(deployment)
    tls = load_tls(deployment)
    refuse_used_ports(address)
    token = admin_token()
    cluster = Cluster(Options(folder=str(folder), **asdict(address)))
    try:
        with console.status("starting Ray and the gateway (15 to 25 s, nearly all of it Ray's own)"):
            cluster.start()
        client = Client(address, policy, token, tls)
        scenes = list(walk_through(client, folder, policy, samples))
        console.print(_table(policy, scenes))
        failed = [scene.title for scene in scenes if not scene.passed]
        for title in failed:
            console.print(f"[red]not as it should be:[/red] {title}")
        if not once and not failed:
            console.print(f"still serving at {client.url}   (Ctrl-C ends it)")
            admin = f"http://127.0.0.1:{address.admin_port}"
            console.print(f"status {admin}/status   token {token}", soft_wrap=True)
            wait_for_signal()
        return 1 if failed else 0
    finally:
        cluster.stop()


def _samples_of(deployment: Deployment) -> Samples:
    """The rows to send. Raises PolicyError or ArtifactError, before Ray starts, for what cannot be shown."""
    artifacts = load_artifacts(deployment)
    artifacts.close()
    specs = artifacts.contract.inputs
    if len(specs) != 1 or specs[0].datatype != "FP32":
        held = ", ".join(f"{spec.name} ({spec.datatype})" for spec in specs)
        what = f"takes {held}; the demo shows models with one FP32 input: run `gateway serve`"
        raise ArtifactError([Problem("", what, str(deployment.folder))])
    try:
        return load_samples(deployment.folder, specs[0].name)
    except ValueError as error:
        raise ArtifactError([Problem("", str(error))]) from error


def walk_through(client: Client, folder: Path, policy: Policy, samples: Samples) -> Iterator[Scene]:
    """Every scene, one after the other."""
    clean = samples.clean
    noise = _noise(policy, clean[:OUTLIER_ROWS])
    yield _reviewed_row(client, noise[0])
    yield client.scene("clean test rows", clean[:CLEAN_ROWS], {"served": 0.8})
    for name, rows in samples.families.items():
        yield client.scene(
            f"outliers: {name}", rows[:OUTLIER_ROWS], {"deferred": MIN_STOPPED_SHARE.get(name, 0.5)}
        )
    yield client.scene("outliers: noise", noise, {"deferred": 0.95})
    key = add_key(
        folder / VAR, "demo-burst", tier="anonymous", per_s=BURST_PER_S, scopes=frozenset({"infer"})
    )
    rows = np.repeat(clean[:1], BURST_ROWS, axis=0)
    time.sleep(1)  # a running gateway honours a new key within a second
    yield client.scene("a burst of one caller", rows, {"refused:rate_limited": 0.3}, key)
    yield from _without_primary(client, policy, clean)


def _noise(policy: Policy, like: Rows) -> Rows:
    low, high = next(((r.low, r.high) for r in policy.inputs.values()), (0.0, 1.0))
    return np.random.default_rng(0).uniform(low, high, like.shape).astype(np.float32)


def _without_primary(client: Client, policy: Policy, clean: Rows) -> Iterator[Scene]:
    """Isolates the primary of the running gateway, sends a row, and restores it."""
    name = policy.rungs[0].name
    client.admin.post(f"/rungs/{name}/isolate").raise_for_status()
    try:
        yield client.scene(
            f"{name} just broken", clean[:OUTLIER_ROWS], {"degraded": 0.1, "degraded|deferred": 1.0}
        )
    finally:
        client.admin.post(f"/rungs/{name}/restore").raise_for_status()
    yield client.scene(f"{name} mended", clean[:OUTLIER_ROWS], {"served": 0.8})


def _reviewed_row(client: Client, row: NDArray[Any]) -> Scene:
    """Defers one row of noise, answers it as a reviewer, and polls for the answer as its caller."""
    reply = client.ask(row)
    endings: Counter[tuple[str, str, str]] = Counter([_ending(reply)])
    if url := reply.json().get("review_url"):
        _answer_case(client, url.rsplit("/", 1)[-1])
        parameters = client.review(url).get("answer", {}).get("parameters", {})
        endings[
            (
                parameters.get("fs_outcome", "none"),
                parameters.get("fs_reason", ""),
                parameters.get("fs_served_by", ""),
            )
        ] += 1
    return Scene("a person answers", endings, {"deferred": 0.5, "degraded": 0.5})


def _answer_case(client: Client, case_id: str) -> None:
    """Claims cases until the given one, answers it, and releases the others."""
    others: list[dict[str, Any]] = []
    while (claimed := client.admin.post("/review/claim", json={"reviewer": "demo"})).status_code == 200:
        case: dict[str, Any] = claimed.json()
        if case["id"] == case_id:
            answer = {"reviewer": "demo", "fence": case["fence"], "label": 0}
            client.admin.post(f"/review/{case_id}/answer", json=answer).raise_for_status()
            break
        others.append(case)
    for case in others:
        client.admin.post(f"/review/{case['id']}/release", json={"fence": case["fence"]}).raise_for_status()


def _table(policy: Policy, scenes: list[Scene]) -> Table:
    table = Table(title=f"{policy.name}: what was sent, how it ended, and why", title_justify="left")
    table.add_column("sent")
    table.add_column("rows", justify="right")
    for outcome in OUTCOMES:
        table.add_column(outcome, justify="right", style=COLOURS[outcome])
    table.add_column("most often because")
    table.add_column("")
    for scene in scenes:
        n = sum(scene.endings.values())
        shares = [f"{scene.share(o):.0%}" if scene.share(o) else "" for o in OUTCOMES]
        _, reason, by = scene.endings.most_common(1)[0][0]
        why = reason if by in ("none", "") else f"{reason}, by {by}"
        table.add_row(scene.title, str(n), *shares, why, "[green]ok[/]" if scene.passed else "[red]WRONG[/]")
    return table
