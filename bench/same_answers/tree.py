"""One tree of the project: a scratch copy of its deployment, its keys, and its server as a child process."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.same_answers.exchanges.http_parts import ADMIN_TOKEN

START_S, STOP_S, KEY_S, POLL_S = 120.0, 30.0, 60.0, 0.1
HIGH_RATE = "1000000"
KEYS: Mapping[str, tuple[str, ...]] = {
    "ada": ("--tier=trusted", f"--per-s={HIGH_RATE}", "--scope=infer", "--scope=metadata", "--scope=explain"),
    "bob": (f"--per-s={HIGH_RATE}",),
    "reader": ("--scope=metadata",),
    "watcher": ("--scope=explain",),
    "limited": ("--tier=trusted", f"--per-s={HIGH_RATE}", "--model={name}"),
    "slow": ("--tier=trusted", "--per-s=0.000001"),
}
"""Each caller's options of `gateway key`. The slow one may have one row, and is then told to wait a day."""
BUDGET_FACTOR = 20
ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1", "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN, "PYTHONHASHSEED": "0"}
"""Of both servers. The seed of hashes decides in which order a set is written, as in `Allow` of Starlette."""
EDITS = (
    (r"(budget_s|deadline_s): ([0-9.]+)", lambda found: f"{found[1]}: {float(found[2]) * BUDGET_FACTOR:g}"),
    (r"per_s: [0-9.]+, burst: [0-9.]+", lambda _: f"per_s: {HIGH_RATE}, burst: {HIGH_RATE}"),
    (r"capacity: [0-9]+", lambda _: f"capacity: {HIGH_RATE}"),
)
"""How the scratch copies differ from what is committed: time budgets are longer, and the rate and the review
queue's capacity are higher, so that a busy machine or a full queue changes no answer. Both trees get the same
edits."""


class WrongTree(Exception):
    """A tree cannot be served; the text says why."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one server listens."""

    data: int
    grpc: int
    admin: int


@dataclass(frozen=True, slots=True)
class RunningTree:
    """A server that runs, and the keys of its callers."""

    ports: Ports
    keys: Mapping[str, str]


def require_environment(tree: Path) -> Path:
    """The absolute path of a tree. Raises WrongTree if it has no environment that is ready."""
    tree = tree.resolve()
    if not (tree / ".venv" / "bin" / "python").exists():
        raise WrongTree(f"{tree} has no .venv: run `make .venv/.ready` there")
    return tree


@contextmanager
def serve_tree(tree: Path, name: str, scratch: Path) -> Iterator[RunningTree]:
    """Serves a scratch copy of a deployment while the block runs. Raises WrongTree if it does not start."""
    folder = copy_deployment(tree, name, scratch)
    keys = {who: _key(tree, folder, who) for who in KEYS}
    ports = Ports(*(_free_port() for _ in range(3)))
    options = ("--local", f"--port={ports.data}", f"--grpc-port={ports.grpc}", f"--admin-port={ports.admin}")
    log = scratch / f"{name}.log"
    with log.open("wb") as out:
        command = [*_gateway(tree), "serve", str(folder), *options]
        child = subprocess.Popen(  # noqa: S603 (our own command)
            command, cwd=tree, env=_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        _wait(child, ports, log)
        yield RunningTree(ports, keys)
    finally:
        _stop(child)


def copy_deployment(tree: Path, name: str, scratch: Path) -> Path:
    """A copy of a tree's deployment without `var`, with EDITS applied."""
    folder = scratch / name
    shutil.copytree(tree / "configs" / name, folder, ignore=shutil.ignore_patterns("var"))
    policy = folder / "gateway.yaml"
    text = policy.read_text(encoding="utf-8")
    for pattern, change in EDITS:
        text = re.sub(pattern, change, text)
    policy.write_text(text, encoding="utf-8")
    return folder


def _gateway(tree: Path) -> list[str]:
    return [str(tree / ".venv" / "bin" / "python"), "-m", "gateway"]


def _environment() -> dict[str, str]:
    """Ours, without what would make a child import from another tree or report elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OTEL_"))}
    return {**kept, **ENVIRONMENT}


def _key(tree: Path, folder: Path, who: str) -> str:
    options = (option.format(name=folder.name) for option in KEYS[who])
    command = [*_gateway(tree), "key", str(folder), who, *options]
    made = subprocess.run(  # noqa: S603 (our own command)
        command, cwd=tree, env=_environment(), capture_output=True, text=True, timeout=KEY_S, check=False
    )
    if made.returncode:
        raise WrongTree(f"no key can be made in {tree}: {made.stderr}")
    return made.stdout.strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(child: subprocess.Popen[bytes], ports: Ports, log: Path) -> None:
    """Until every port takes connections. Raises WrongTree if the server ends before, or takes too long."""
    until_s = time.monotonic() + START_S
    for port in (ports.data, ports.grpc, ports.admin):
        while not _listens(port):
            if child.poll() is not None or time.monotonic() > until_s:
                raise WrongTree(f"the server did not start:\n{log.read_text(errors='replace')}")
            time.sleep(POLL_S)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Terminates the server; kills it if it does not end in time."""
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
