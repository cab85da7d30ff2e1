"""The gateway beside other model servers: `python -m bench.peers`.

Our gateway with every guard enforced, audit log and telemetry on, against servers that run the same model
and check nothing (but for `mlserver_detector`, which runs one detector). All get the same requests, made of
clean rows of the deployment's samples alone: the gateway would defer an outlier to review, which no peer can.
`--outliers 0.1` sends the load test's usual mix instead.

Exit code 0: measured; 2: wrong input, or a server that does not start or does not answer as the model does.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench import output
from bench.peers.compare import Settings, compare_servers
from bench.peers.launch import PEERS
from bench.peers.load_cases import LOAD_CASES
from bench.peers.results import PeerResults
from bench.peers.tables import peer_tables
from bench.peers.wrk import wrk_is_missing
from bench.requests import WrongInput

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

PeersOption = Annotated[str, typer.Option(help="Which, with commas between.")]
CaseOption = Annotated[
    list[str] | None, typer.Option("--case", help=f"Of {', '.join(LOAD_CASES)}. [default: all]")
]
OneCoreOption = Annotated[
    bool, typer.Option("--one-core", help="Servers on core 0, the generator on core 1.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]


@app.command()
def peers(
    peers: PeersOption = ",".join(PEERS),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each server in each group and case.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a round measures.")] = 8.0,
    warm_up: Annotated[float, typer.Option(min=0.1, help="Seconds of the same load before that.")] = 1.0,
    connections: Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight.")] = 64,
    case: CaseOption = None,
    outliers: Annotated[float, typer.Option(min=0, max=1, help="The share of requests made of them.")] = 0.0,
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/fashion"),
    one_core: OneCoreOption = False,
    wrk: Annotated[bool, typer.Option("--wrk", help="Throughput by wrk as well.")] = False,
    out: JsonOption = None,
) -> None:
    """Measures the gateway and its peers in turns, on copies, and prints the ratios."""
    console = output.console(out)
    all_cores = frozenset(os.sched_getaffinity(0))
    try:
        settings = Settings(
            folder=folder,
            peers=_select(peers.split(","), PEERS, "--peers"),
            cases=tuple(
                LOAD_CASES[name] for name in _select(case or list(LOAD_CASES), tuple(LOAD_CASES), "--case")
            ),
            rounds=rounds,
            seconds=seconds,
            warm_up_s=warm_up,
            connections=connections,
            outliers=outliers,
            server_cores=frozenset({0}) if one_core else all_cores,
            generator_cores=frozenset({1}) if one_core else all_cores,
            wrk=wrk,
        )
        if wrk and wrk_is_missing():
            raise WrongInput("--wrk: wrk is not installed")
        turns = []
        for turn in compare_servers(settings):
            console.print(f"{turn.case} {turn.server} {turn.round.requests_per_s:.0f} requests/s")
            turns.append(turn)
    except WrongInput as error:
        output.wrong_input(str(error))
    results = PeerResults.of(settings, turns)
    for table in peer_tables(results):
        console.print(table, "")
    output.write(out, results)


def _select(names: list[str], known: tuple[str, ...], option: str) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in known]:
        raise WrongInput(f"{option}: {unknown[0]!r} is none of {', '.join(known)}")
    return tuple(name for name in known if name in names)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped too
    app(prog_name="python -m bench.peers")
