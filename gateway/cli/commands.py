"""The `gateway` command. Exit code 0: done; 1: failed; 2: wrong input."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gateway.core.errors import Problems

if TYPE_CHECKING:
    from gateway.replica import ListenAddress
    from gateway.serving.repository import Repository

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
MAX_PORT = 65535

Folders = Annotated[
    list[Path],
    typer.Argument(help="Deployment folders, or one that has deployments as subfolders.", metavar="DIR..."),
]
StateDir = Annotated[
    Path | None,
    typer.Option(help="For what a running gateway writes, keys included; default: `var` of each deployment."),
]
Folder = Annotated[Path, typer.Argument(help="A deployment folder, such as configs/fashion.", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Host = Annotated[str, typer.Option(help="Where the data plane listens.")]
Port = Annotated[int, typer.Option(min=1, max=MAX_PORT, help="HTTP port of the data plane.")]
GrpcPort = Annotated[int, typer.Option(min=1, max=MAX_PORT, help="gRPC port of the data plane.")]
AdminPort = Annotated[
    int, typer.Option(min=1, max=MAX_PORT, help="HTTP port of the administration plane, on loopback.")
]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"failsafe-gateway {version('failsafe-gateway')}")  # noqa: T201
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Prints the version."),
]


@app.callback()
def options(print_version: Version = False) -> None:
    """Serves models behind guards, checks and a ladder of fallbacks."""


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
) -> None:
    """Serves deployments until Ctrl-C: those named, or those in a folder."""
    from gateway.access.tls import load_tls
    from gateway.replica import ListenAddress, admin_token, refuse_public_bind, refuse_used_ports
    from gateway.serving.agreement import settings_of
    from gateway.serving.folders import deployment_folders

    named = deployment_folders(folders)
    settings = settings_of(named)
    address = ListenAddress(host, port, grpc_port, admin_port, admin_host)
    refuse_public_bind(settings, address)
    load_tls(settings)
    refuse_used_ports(address)
    token = admin_token()
    if local:
        from gateway.local import serve_locally

        def ready(repository: Repository) -> None:
            _print_not_ready(repository)
            _print_addresses(repository, address, token)

        serve_locally(named, state_dir, address, token, ready)
    else:
        _serve_on_ray(named, state_dir, address, replicas or settings.policy.serving.replicas, token)


def _serve_on_ray(
    folders: list[Path], state_dir: Path | None, address: ListenAddress, replicas: int, token: str
) -> None:
    from gateway.app import Cluster, Options, wait_for_signal  # imports ray: two seconds
    from gateway.serving.repository import Repository

    repository = Repository.open(folders, state_dir)  # problems are printed here, not in a replica's log
    _print_not_ready(repository)
    asyncio.run(repository.close())
    listed, state = ",".join(map(str, folders)), str(state_dir or "")
    cluster = Cluster(Options(folder=listed, state_dir=state, **asdict(address), replicas=replicas))
    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C while it starts is no error
            cluster.start()
            _print_addresses(repository, address, token)
            wait_for_signal()
    finally:
        cluster.stop()


@app.command()
def demo(
    folder: Folder,
    once: Annotated[bool, typer.Option("--once", help="Exit after the walk-through.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows to send (.npz, .csv, .parquet); default: samples, else what calibration kept."
        ),
    ] = None,
    port: Port = 8080,
    grpc_port: GrpcPort = 8081,
    admin_port: AdminPort = 8082,
) -> None:
    """Serves a deployment on Ray and shows every outcome on real inputs."""
    from gateway.cli.demo import run
    from gateway.replica import ListenAddress

    address = ListenAddress("127.0.0.1", port, grpc_port, admin_port)
    sys.exit(run(folder, data, once=once, address=address))


@app.command()
def check(folder: Folder, as_json: AsJson = False) -> None:
    """Does all that a start does but listen: what it calls ready can be served."""
    from gateway.cli.check import checked

    try:
        gateway = checked(folder)
    except Problems as error:
        _exit_with_problems(error, as_json)
    contract, certificate = gateway.loaded.contract, gateway.loaded.artifacts.certificate
    if as_json:
        ready: dict[str, object] = {"policy": gateway.loaded.tag}
        ready |= {"inputs": [s.name for s in contract.inputs], "outputs": [s.name for s in contract.outputs]}
        ready |= {"unguarded": certificate.unguarded, "not_promised": certificate.not_promised}
        print_line(json.dumps(ready))
        return
    print_line(f"{folder}: {gateway.loaded.tag} is ready to serve")
    for sentence in certificate.not_promised:
        print_line(f"not promised: {sentence}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new deployment folder.", metavar="DIR")],
    model: Annotated[Path | None, typer.Option(help="The model: an ONNX file, which is copied.")] = None,
    fallback: Annotated[Path | None, typer.Option(help="A smaller model with the same inputs.")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="A model in another server, asked first: URL/v2/models/NAME.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out rows (.npz, .csv, .parquet): calibrates as well.")
    ] = None,
) -> None:
    """Writes a commented policy that fits a model, and calibrates it if rows are given."""
    from gateway.cli.init import chosen
    from gateway.scaffold.scaffold import scaffold
    from gateway.scaffold.sources import Sources

    try:
        files = tuple(file for file in (model, fallback) if file is not None)
        draft = scaffold(folder, Sources(files, upstream), data)
    except Problems as error:
        _exit_with_problems(error, as_json=False)
    for line in chosen(draft, folder):
        print_line(line)
    if data is None:
        print_line(f"next: gateway calibrate {shlex.quote(str(folder))} --data ROWS")
        return
    calibrate(folder, data)
    print_line(f"next: gateway serve {shlex.quote(str(folder))} --local")


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX file.", metavar="M.onnx")], as_json: AsJson = False
) -> None:
    """Shows a model's inputs, outputs, guessed roles, and what can be guarded and promised."""
    from rich.console import Console

    from gateway.cli.init import describe, remarks, tensors_table

    try:
        found = describe(model)
    except Problems as error:
        _exit_with_problems(error, as_json)
    if as_json:
        print_line(json.dumps(found))
        return
    Console().print(tensors_table(found, model))
    for line in remarks(found, model):
        print_line(line)


@app.command()
def calibrate(
    folder: Folder,
    data: Annotated[
        Path | None,
        typer.Option(help="Held-out rows: .npz, .csv or .parquet with the model's inputs, y, maybe group."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say which promise takes how many rows; --data is optional.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fits the guards on held-out data and writes artefacts, certificate and report."""
    from rich.console import Console
    from rich.status import Status

    from gateway.calibration.calibrate import REPORT_FILE
    from gateway.calibration.calibrate import calibrate as run
    from gateway.calibration.report import certificate_table
    from gateway.deployment.deployment import Deployment

    console = Console(stderr=as_json)
    if plan:
        _plan(folder, data, as_json)
        return
    if data is None:
        _exit_with_usage_error("--data: is missing; give held-out rows, or --plan to see how many it takes")
    try:
        with Status("loading", console=console) as status:
            deployment = Deployment.read(folder)
            certificate = run(deployment, data, status.update)
    except Problems as error:
        _exit_with_problems(error, as_json)
    if certificate.samples.unused:
        listed = ", ".join(certificate.samples.unused)
        print(f"note: nothing takes {listed} of {data}", file=sys.stderr)  # noqa: T201
    warnings = [certificate.samples.warning, certificate.parity and certificate.parity.warning]
    for warning in filter(None, warnings):
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    if as_json:
        print_line(certificate.model_dump_json(by_alias=True))
        return
    console.print(certificate_table(certificate, deployment.policy.mode))
    if certificate.parity is not None:
        print_line(certificate.parity.finding)
    print_line(f"report: {folder / REPORT_FILE}")


def _plan(folder: Path, data: Path | None, as_json: bool) -> None:
    """Prints which promise takes how many rows."""
    from rich.console import Console

    from gateway.calibration.calibrate import independent_rows
    from gateway.calibration.report import plan_rows, plan_table
    from gateway.deployment.deployment import Deployment

    try:
        deployment = Deployment.read(folder)
        samples = None if data is None else independent_rows(deployment, data)
    except Problems as error:
        _exit_with_problems(error, as_json)
    if as_json:
        print_line(json.dumps([asdict(one) for one in plan_rows(deployment.policy, samples)]))
    else:
        Console().print(plan_table(deployment.policy, samples))


@app.command()
def key(
    folders: Folders,
    name: Annotated[str, typer.Argument(help="Who the key is for: a lower-case name.")],
    tier: Annotated[str, typer.Option(help="A tier of the policy's `disclosure`.")] = "anonymous",
    per_s: Annotated[
        float | None, typer.Option(min=0, help="Rows a second; default: what the policy says.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What the key allows: infer (default), metadata, explain.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Models that it may ask; default: all.")] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Makes a caller's key and prints it once; only its keyed hash is kept."""
    from pydantic import ValidationError

    from gateway.access.callers import add_key
    from gateway.access.keys import SCOPES
    from gateway.deployment.deployment import Deployment
    from gateway.serving.folders import deployment_folders

    try:
        deployments = [Deployment.read(folder) for folder in deployment_folders(folders)]
    except Problems as error:
        _exit_with_problems(error, as_json)
    if state_dir is None and len(deployments) > 1:
        what = "several deployments share keys only with --state-dir, the one that they are served with"
        _exit_with_usage_error(f"{what}; or name one deployment")
    var = state_dir or deployments[0].var
    tiers = {tier for one in deployments for tier in one.policy.disclosure}
    _require_choice("--tier", tier, {"anonymous", *tiers}, "in the policy's disclosure")
    for one in scope or ():
        _require_choice("--scope", one, set(SCOPES), "a scope")
    for one in model or ():
        _require_choice("--model", one, {deployment.policy.name for deployment in deployments}, "served here")
    try:
        made = add_key(
            var,
            name,
            tier=tier,
            per_s=per_s,
            scopes=frozenset(scope or ["infer"]),
            models=frozenset(model) if model else None,
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        option = {"name": "NAME", "per_s": "--per-s"}.get(str(wrong["loc"][0]), str(wrong["loc"][0]))
        _exit_with_usage_error(f"{option}: {wrong['msg']}, not {wrong['input']!r}")
    except OSError as error:
        what = f"{error.strerror or error}; keys are kept in the folder that a running gateway writes to"
        _exit_with_usage_error(f"{error.filename or var}: cannot be written: {what}")
    print_line(json.dumps({"name": name, "key": made}) if as_json else made)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def bench(context: typer.Context) -> None:
    """Load test of a running gateway: `gateway bench URL [--key K]`; `gateway bench --help` says more."""
    # A process of its own: the load generator shares no interpreter, and nothing here imports upwards.
    sys.exit(subprocess.call([sys.executable, "-m", "bench", *context.args]))  # noqa: S603 (our own module)


def _print_not_ready(repository: Repository) -> None:
    """To standard error: what is not served, and why."""
    for entry in repository.not_ready:
        problems = "".join(f"\n    {one}" for one in entry.problems)
        print(f"not ready: {entry.name}{problems}", file=sys.stderr, flush=True)  # noqa: T201


def _print_addresses(repository: Repository, address: ListenAddress, token: str) -> None:
    secure = repository.settings.policy.serving.tls is not None
    for name in repository.gateways:
        print_line(f"serving {name} at {address.url(secure=secure)}/v2/models/{name}")
    print_line(f"grpc    {address.host_and_port(address.grpc_port)}")
    admin = address.admin_url(secure=secure)
    review = f"   review  {admin}/review" if len(repository.entries) == 1 else ""
    print_line(f"status  {admin}/status{review}")
    print_line(f"token   {token}")


def print_line(line: str) -> None:
    """One line to standard output, at once."""
    print(line, flush=True)  # noqa: T201


def _exit_with_problems(error: Problems, as_json: bool) -> NoReturn:
    if as_json:
        fields = ("file", "line", "field", "what", "nearest")
        print_line(json.dumps({"problems": [{f: getattr(p, f) for f in fields} for p in error.problems]}))
    else:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _require_choice(option: str, value: str, known: set[str], what: str) -> None:
    """Exits with code 2 unless the value is one of the known ones."""
    from gateway.policy.locate import closest

    if value not in known:
        nearest = closest(value, known)
        _exit_with_usage_error(
            f"{option}: {value!r} is not {what}" + f"; did you mean {nearest!r}?" * bool(nearest)
        )


def _exit_with_usage_error(what: str) -> NoReturn:
    print(what, file=sys.stderr)  # noqa: T201
    sys.exit(2)


def main() -> None:
    """The console script. Problems of the deployment and of the system are printed without a traceback."""
    # Before numpy is imported: guards multiply small matrices, and BLAS threads would wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app()
    except Problems as error:
        _exit_with_problems(error, as_json=False)
    except OSError as error:  # a full disk, a closed pipe
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"{place}{error.strerror or error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
