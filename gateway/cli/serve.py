"""`gateway serve`: deployments in one process, or in replicas under Ray."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import (
    AdminPort,
    Folders,
    GrpcPort,
    Host,
    Port,
    StateDir,
    app,
    print_line,
    print_warning,
)
from gateway.stop_signals import raise_at_stop_signals

if TYPE_CHECKING:
    from gateway.replica import ListenAddress
    from gateway.serving.repository import Repository


@app.command()
def serve(
    folders: Folders,
    local: Annotated[bool, typer.Option("--local", help="In one process, without Ray.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    grpc_port: GrpcPort = 8081,
    admin_port: AdminPort = 8082,
    admin_host: Annotated[str, typer.Option(help="Where the administration plane listens.")] = "127.0.0.1",
    replicas: Annotated[int | None, typer.Option(min=1, help="Default: what the policy says.")] = None,
    state_dir: StateDir = None,
    require_signature: Annotated[
        Path | None, typer.Option(help="A public key: only what is signed with it is served.")
    ] = None,
) -> None:
    """Serves deployments until Ctrl-C: those named, or those in a folder."""
    from gateway.access.tls import load_tls
    from gateway.replica import ListenAddress, admin_token, refuse_public_bind, refuse_used_ports, shown_token
    from gateway.serving.agreement import settings_of
    from gateway.serving.folders import deployment_folders

    raise_at_stop_signals()
    _require_signature(require_signature, folders)
    named = deployment_folders(folders)
    settings = settings_of(named)
    address = ListenAddress(host, port, grpc_port, admin_port, admin_host)
    refuse_public_bind(settings, address)
    load_tls(settings)
    refuse_used_ports(address)
    shown = shown_token()
    if local:
        _serve_here(named, state_dir, address, admin_token(), shown)
    else:
        _serve_on_ray(named, state_dir, address, replicas or settings.policy.serving.replicas, shown)


def _require_signature(key: Path | None, folders: list[Path]) -> None:
    """Requires a signature with this key of everything that is loaded, if one is given."""
    if key is not None:
        from gateway.cli.public_key import require

        require(key, folders)


def _serve_here(
    folders: list[Path], state_dir: Path | None, address: ListenAddress, token: str, shown: str
) -> None:
    from gateway.local import serve_locally

    def ready(repository: Repository) -> None:
        _print_not_ready(repository)
        if repository.settings.policy.serving.controller_lease_s:
            print_warning("serving.controller_lease_s has no effect with --local: there is no controller")
        _print_addresses(repository, address, shown)

    with suppress(KeyboardInterrupt):
        serve_locally(folders, state_dir, address, token, ready)


def _serve_on_ray(
    folders: list[Path], state_dir: Path | None, address: ListenAddress, replicas: int, shown: str
) -> None:
    from gateway.app import Cluster, Options  # imports ray: two seconds
    from gateway.serving.repository import Repository

    # Problems are printed here, not in a replica's log.
    repository = Repository.open(folders, state_dir, replicas)
    _print_not_ready(repository)
    asyncio.run(repository.close())
    listed, state = ",".join(map(str, folders)), str(state_dir or "")
    cluster = Cluster(Options(folder=listed, state_dir=state, **asdict(address), replicas=replicas))
    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C while it starts is no error
            cluster.start()
            _print_addresses(repository, address, shown)
            cluster.wait_for_signal()
    finally:
        cluster.stop()


def _print_not_ready(repository: Repository) -> None:
    """To standard error: what is not served, or not answered, and why."""
    for entry in repository.not_ready:
        problems = "".join(f"\n    {one}" for one in entry.problems)
        print_warning(f"not ready: {entry.name}{problems}")
    for gateway in repository.gateways.values():
        if why := gateway.why_stopped:
            print_warning(f"stopped: {gateway.name}: {why}")


def _print_addresses(repository: Repository, address: ListenAddress, shown: str) -> None:
    """shown: what is printed of the administration token."""
    secure = repository.settings.policy.serving.tls is not None
    for name in repository.gateways:
        print_line(f"serving {name} at {address.url(secure=secure)}/v2/models/{name}")
    print_line(f"grpc    {address.host_and_port(address.grpc_port)}")
    admin = address.admin_url(secure=secure)
    review = f"   review  {admin}/review" if len(repository.entries) == 1 else ""
    print_line(f"status  {admin}/status{review}")
    print_line(f"token   {shown}")
