"""The walk-through of `make demo`: every outcome on real inputs, in one table, and checked.

What can be wrong is found before Ray is started: the deployment, its artefacts, the rows, and the ports.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from gateway.access.callers import add_key
from gateway.access.tls import load_tls
from gateway.cli.check import checked
from gateway.cli.demo_client import Client
from gateway.cli.samples import load_samples
from gateway.cli.scene import OUTCOMES, Scene
from gateway.cli.walk_through import WalkThrough
from gateway.replica import ListenAddress, admin_token, refuse_used_ports, shown_token
from gateway.stop_signals import raise_at_stop_signals

COLOURS = {"served": "green", "degraded": "yellow", "deferred": "cyan", "refused": "red"}
UNLIMITED_PER_S = 1e6


def run(folder: Path, data: Path | None, *, once: bool, address: ListenAddress) -> int:
    """Serves on Ray, walks through, prints the table; 0 if every scene ended as it should.

    Raises:  PolicyError or ArtifactError before anything is started.
    """
    raise_at_stop_signals()
    console = Console() if sys.stdout.isatty() else Console(width=110)
    shown = shown_token()
    walk = prepared(folder, data, address)
    from gateway.app import Cluster, Options  # imports ray: two seconds

    cluster = Cluster(Options(folder=str(folder), **asdict(address)))
    try:
        with console.status("starting Ray and the gateway (15 to 25 s, nearly all of it Ray's own)"):
            cluster.start()
        try:
            passed = show(walk.policy.name, list(walk.scenes()), console)
        except httpx.HTTPError as error:
            console.print(f"[red]the gateway stopped answering its operator:[/red] {error}")
            return 1
        if not once and passed:
            console.print(f"still serving at {walk.client.url}   (Ctrl-C ends it)")
            console.print(f"status {walk.client.admin_url}/status   token {shown}", soft_wrap=True)
            cluster.wait_for_signal()
        return 0 if passed else 1
    finally:
        walk.client.close()
        cluster.stop()


def prepared(folder: Path, data: Path | None, address: ListenAddress) -> WalkThrough:
    """Everything that the walk-through needs but a running gateway.

    Raises:  PolicyError or ArtifactError for what is wrong with the folder, the rows or the ports.
    """
    refuse_used_ports(address)
    loaded = checked(folder).loaded  # problems are printed here, not in a replica's log
    deployment, contract = loaded.deployment, loaded.contract
    samples, tls, infer = load_samples(folder, contract, data), load_tls(deployment), frozenset({"infer"})
    key = add_key(deployment.var, "demo", tier="anonymous", per_s=UNLIMITED_PER_S, scopes=infer)
    client = Client(address, deployment.policy, contract, key, admin_token(), tls)
    return WalkThrough(client, deployment, contract, loaded.artifacts.certificate, samples)


def show(name: str, scenes: Sequence[Scene], console: Console) -> bool:
    """Prints the table of a deployment's scenes; whether each ended as it should."""
    console.print(_table(name, scenes))
    failed = [scene.title for scene in scenes if not scene.passed]
    for title in failed:
        console.print(f"[red]not as it should be:[/red] {title}")
    return not failed


def _table(name: str, scenes: Sequence[Scene]) -> Table:
    table = Table(title=f"{name}: what was sent, how it ended, and why", title_justify="left")
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
