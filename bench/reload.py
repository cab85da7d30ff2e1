"""Reloads under load: `python -m bench.reload`. No request may fail, and each answer is of one policy.

A copy of a deployment is served by one process, and clients ask it without a pause. Every two seconds its
policy is replaced: by another version with another tier for its callers, and every third time by one that
cannot be loaded. What an answer shows (its version, and to how many digits it is rounded) has to be what the
policy says whose hash it is stamped with, and that policy has to have been in force while the request was
under way.

Exit code 0: no request failed, and no answer is of another policy than it says.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import typer
import yaml

from bench import output
from bench.growth.server_process import ServerProcess, serve_copy
from bench.machine import machine
from bench.reload_history import Answer, History, Reload, Shown, digits_of
from bench.requests import WrongInput
from gateway.cli.infer_body import infer_body
from gateway.cli.running_gateway import reload_running
from gateway.cli.samples import load_samples
from gateway.deployment.deployment import VAR, Deployment
from gateway.deployment.replace_files import replace_files
from gateway.policy.read import POLICY_FILE

ROWS, BAD_EVERY = 16, 3
TIER, OUTPUT = "trusted", "probabilities"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


POLICIES = (Shown("1", 1), Shown("1", 4), Shown("2", 2), Shown("2", 5))
"""One after another: every other one changes the version, so what the model looks like, as well."""


@dataclass(frozen=True, slots=True)
class ReloadResults:
    """policies: that answers were stamped with; of_another: answers that are not what their hash says."""

    machine: dict[str, str]
    deployment: str
    seconds: float
    requests: int
    reloads: int
    refused_reloads: int
    policies: int
    failed: int
    of_another: int
    slowest_s: float


def measure(folder: Path, seconds: float, every_s: float, clients: int) -> History:
    """Serves a copy of the folder under load and reloads it. Raises WrongInput."""
    with (
        TemporaryDirectory(prefix="reload-") as scratch,
        serve_copy(folder, Path(scratch), frozenset({"infer"})) as server,
    ):
        return asyncio.run(_measure(server, seconds, every_s, clients))


async def _measure(server: ServerProcess, seconds: float, every_s: float, clients: int) -> History:
    history, over = History(), asyncio.Event()
    await _reload(server, history, 0, bad=False)
    headers = {"authorization": f"Bearer {server.target.key}", "content-type": "application/json"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        bodies = await _answered_bodies(server, client)
        asking = [
            asyncio.create_task(_ask(server, client, bodies[i::clients], history, over))
            for i in range(clients)
        ]
        began_s, policies = time.monotonic(), 0
        for number in range(1, max(2, round(seconds / every_s))):
            await asyncio.sleep(max(0.0, began_s + number * every_s - time.monotonic()))
            bad = number % BAD_EVERY == 0
            policies += not bad
            await _reload(server, history, policies, bad=bad)
        await asyncio.sleep(every_s / 2)
        over.set()
        await asyncio.gather(*asking)
    return history


async def _reload(server: ServerProcess, history: History, number: int, *, bad: bool) -> None:
    """Puts the next policy into the folder, and has the gateway load it."""
    shown, folder = POLICIES[number % len(POLICIES)], server.folder
    document: dict[str, Any] = yaml.safe_load((folder / POLICY_FILE).read_text("utf-8"))
    document |= {"version": shown.version, "disclosure": {TIER: {"rounded": shown.digits}}}
    document |= {"expose": [OUTPUT]} if not bad else {"expose": ["no-output"]}
    began_s = time.monotonic()
    await asyncio.to_thread(
        replace_files, folder, {POLICY_FILE: yaml.safe_dump(document, sort_keys=False).encode()}
    )
    [done] = await asyncio.to_thread(reload_running, folder / VAR, server.target.contract.model)
    if bool(done.problems) != bad:
        raise WrongInput(f"the reload of {document} ended with {done}")
    if not bad:
        history.policies[done.tag] = shown
    tag = history.reloads[-1].tag if bad else done.tag
    history.reloads.append(Reload(began_s, time.monotonic(), tag, bad))


def _url_of(server: ServerProcess) -> str:
    origin = server.target.origin
    return f"http://{origin.host}:{origin.port}{server.target.path}/infer"


async def _answered_bodies(server: ServerProcess, client: httpx.AsyncClient) -> list[bytes]:
    """Requests of one row each that are answered. Raises WrongInput if none is."""
    target, url = server.target, _url_of(server)
    clean = load_samples(server.folder, target.contract).clean
    rows = [{name: column[i : i + 1] for name, column in clean.items()} for i in range(4 * ROWS)]
    bodies = [infer_body(target.contract.inputs, row, {}, binary=False)[0] for row in rows]
    found = [body for body in bodies if (await client.post(url, content=body)).status_code == 200]
    if len(found) < ROWS:
        raise WrongInput(f"{server.folder}: fewer than {ROWS} of {len(rows)} sample rows are answered")
    return found


async def _ask(
    server: ServerProcess,
    client: httpx.AsyncClient,
    bodies: Sequence[bytes],
    history: History,
    over: asyncio.Event,
) -> None:
    """One client, which asks without a pause."""
    url = _url_of(server)
    while not over.is_set():
        for body in bodies:
            sent_s = time.monotonic()
            try:
                reply = await client.post(url, content=body)
                status = reply.status_code
                tag, shown = _read(reply.json()) if status == 200 else (str(status), None)
            except httpx.HTTPError as error:
                tag, shown = type(error).__name__, None
            history.answers.append(Answer(sent_s, time.monotonic(), tag, shown))


def _read(reply: Mapping[str, Any]) -> tuple[str, Shown]:
    """The hash that an answer is stamped with, and what it shows."""
    [values] = [one["data"] for one in reply["outputs"] if one["name"] == OUTPUT]
    return reply["parameters"]["fs_policy"], Shown(reply["model_version"], digits_of(values))


@app.command()
def reload(
    seconds: Annotated[float, typer.Option(min=1)] = 60.0,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between reloads.")] = 2.0,
    clients: Annotated[int, typer.Option(min=1, help="Requests under way.")] = 8,
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/letters"),
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Reloads a deployment under load, and checks every answer."""
    console = output.console(out)
    try:
        name = Deployment.read(folder).policy.name
        with console.status(f"{seconds:g} s of load"):
            history = measure(folder, seconds, every_s, clients)
    except WrongInput as error:
        output.wrong_input(str(error))
    answers, reloads = history.answers, history.reloads
    found = ReloadResults(
        machine(),
        name,
        seconds,
        len(answers),
        len(reloads) - 1,
        sum(one.refused for one in reloads),
        len({one.tag for one in answers if one.shown is not None}),
        len(history.failed()),
        len(history.of_another_policy()),
        max(one.ended_s - one.sent_s for one in answers),
    )
    console.print(
        f"{found.requests} requests over {found.reloads} reloads, {found.refused_reloads} of them refused: "
        f"{found.failed} failed, {found.of_another} of another policy than they say; "
        f"{found.policies} policies seen, slowest answer {found.slowest_s:.2f} s"
    )
    output.write(out, found)
    sys.exit(1 if found.failed or found.of_another else 0)


if __name__ == "__main__":
    app()
