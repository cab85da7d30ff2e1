"""`gateway redteam URL`: attacks a deployment of one's own and reports what an attacker pays."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from gateway.cli.options import (
    AsJson,
    app,
    exit_with_problems,
    print_line,
    print_warning,
    require_choice,
)
from gateway.core.errors import Problems
from gateway.stop_signals import raise_at_stop_signals

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

    from gateway.redteam.campaign import Parties, Plan
    from gateway.redteam.prepare import AdminAccess, Callers, Files
    from gateway.redteam.records import Results
    from gateway.redteam.target import Target

WIDE = 170
PICTURE_LINF, TABLE_LINF = 0.03, 0.5
Url = Annotated[
    str, typer.Argument(help="Where the gateway listens, such as http://127.0.0.1:8080.", metavar="URL")
]
Samples = Annotated[
    Path, typer.Option(help="Held-out rows: the model's inputs by name, and y.", metavar="FILE")
]
Bare = Annotated[
    Path | None, typer.Option(help="The primary's ONNX file, attacked beside the gateway.", metavar="FILE")
]
Public = Annotated[Path | None, typer.Option(help="Rows of other data, for extraction.", metavar="FILE")]
Members = Annotated[Path | None, typer.Option(help="Rows that the model was trained on.", metavar="FILE")]
Keys = Annotated[list[str] | None, typer.Option("--key", help="An attacker's key; may be repeated.")]
KeysFile = Annotated[
    Path | None, typer.Option("--keys", help="A file of such keys, one a line.", metavar="FILE")
]
HonestKey = Annotated[str | None, typer.Option(help="Another caller's key, who sends good rows meanwhile.")]
AuditKeys = Annotated[
    list[str] | None,
    typer.Option("--audit-key", help="Of the membership test, one a tier; may be repeated. [default: --key]"),
]
Admin = Annotated[
    str | None,
    typer.Option(help="The administration's URL, to read the gateway's own record of alarms.", metavar="URL"),
]
AdminToken = Annotated[
    str | None,
    typer.Option(help="A viewer's token for it.", envvar="GATEWAY_ADMIN_TOKEN", metavar="TOKEN"),
]
ModelName = Annotated[str | None, typer.Option(help="Which model, where several are served.")]
AttackNames = Annotated[
    list[str] | None, typer.Option("--attack", help="An attack by name; may be repeated. [default: all]")
]
NormName = Annotated[
    Literal["l2", "linf"] | None, typer.Option(help="How distances are measured. [default: by attack]")
]
L2 = Annotated[float, typer.Option("--l2", min=1e-6, help="How far a row may be moved, by L2.")]
Linf = Annotated[
    float | None,
    typer.Option("--linf", min=1e-6, help=f"By Linf. [default: {PICTURE_LINF}; tables {TABLE_LINF}]"),
]
Runs = Annotated[int, typer.Option(min=1, help="Rows that each attack begins with, at most.")]
Queries = Annotated[int, typer.Option(min=10, help="Queries of one run, at most.")]
Minutes = Annotated[float, typer.Option(min=0.01, help="Of all attacks together, at most.")]
RowsARequest = Annotated[
    int, typer.Option("--rows", min=1, help="Rows a request, where an attack has several.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn at random.")]
IgnoreRetryAfter = Annotated[
    bool, typer.Option("--ignore-retry-after", help="The adaptive attacker does not wait when asked to.")
]
Lattice = Annotated[
    bool, typer.Option("--lattice", help="Whole numbers stay whole, pixels 8-bit; the adaptive one always.")
]
Confirmed = Annotated[
    str | None,
    typer.Option("--i-own-this", help="The URL's host, in writing, if not this machine.", metavar="HOST"),
]
Report = Annotated[Path, typer.Option(help="The page to write; JSON goes beside it.", metavar="FILE")]


@app.command()
def redteam(
    url: Url,
    samples: Samples,
    bare: Bare = None,
    key: Keys = None,
    keys: KeysFile = None,
    honest_key: HonestKey = None,
    audit_key: AuditKeys = None,
    admin: Admin = None,
    admin_token: AdminToken = None,
    public: Public = None,
    members: Members = None,
    model: ModelName = None,
    attack: AttackNames = None,
    norm: NormName = None,
    l2: L2 = 1.0,
    linf: Linf = None,
    runs: Runs = 100,
    queries: Queries = 10_000,
    minutes: Minutes = 60.0,
    rows: RowsARequest = 1,
    seed: Seed = 0,
    ignore_retry_after: IgnoreRetryAfter = False,
    lattice: Lattice = False,
    confirmed: Confirmed = None,
    report: Report = Path("redteam.html"),
    as_json: AsJson = False,
) -> None:
    """Attacks a deployment of your own, and reports what an attacker pays.

    Distances of tables are in standard deviations of each column. Rows that are deferred go to the reviewers
    of that deployment: serve a copy of the folder. Ctrl-C writes the report of what was done.
    """
    from gateway.redteam.campaign import Plan
    from gateway.redteam.permission import permitted
    from gateway.redteam.prepare import Callers, Files
    from gateway.redteam.report import paths_of

    raise_at_stop_signals()
    limits = (runs, queries, minutes, seed)
    plan = Plan(_named(attack), norm, l2, linf or TABLE_LINF, *limits, not ignore_retry_after, lattice)
    try:
        where, paths = permitted(url, confirmed), paths_of(report)
        files = Files(samples, bare, public, members)
        callers = Callers.of(key or [], keys, honest_key, audit_key or [])
        access = _admin_access(admin, admin_token, confirmed)
        _attack(where, model, plan, files, callers, access, linf is None, rows, paths, as_json)
    except Problems as error:
        exit_with_problems(error, as_json)


def _named(attacks: list[str] | None) -> tuple[str, ...]:
    """The attacks that are asked for, in the order of the report. Exits with code 2 for another name."""
    from gateway.redteam.campaign import ATTACKS

    for one in attacks or ():
        require_choice("--attack", one, set(ATTACKS), f"an attack: {', '.join(ATTACKS)}")
    return tuple(one for one in ATTACKS if one in (attacks or ATTACKS))


def _admin_access(url: str | None, token: str | None, confirmed: str | None) -> AdminAccess | None:
    """Raises Problems for a URL that may not be asked, or without a token."""
    from gateway.core.errors import Problem
    from gateway.redteam.administration import MEND, OPTION, TOKEN_OPTION
    from gateway.redteam.permission import permitted
    from gateway.redteam.prepare import AdminAccess

    if url is None:
        return None
    if not token:
        raise Problems([Problem(TOKEN_OPTION, f"is needed with {OPTION}: {MEND}")])
    return AdminAccess(permitted(url, confirmed, OPTION), token)


def _attack(
    where: httpx.URL,
    model: str | None,
    plan: Plan,
    files: Files,
    callers: Callers,
    admin: AdminAccess | None,
    usual_linf: bool,
    rows: int,
    paths: tuple[Path, Path],
    as_json: bool,
) -> None:
    """Finds the target, reads what is named, and attacks. Raises Problems before the first attack."""
    from gateway.redteam.prepare import take_part
    from gateway.redteam.target import Target

    target = Target.find(where, model, callers.keys[0])
    with ExitStack() as stack:
        parties = take_part(target, files, callers, admin, rows, plan.seed, stack)
        if usual_linf and parties.space.picture:
            plan = replace(plan, linf=PICTURE_LINF)
        results = _results(plan, target, files, parties, rows)
        if admin is not None and parties.alarms is None:
            results.skipped["the gateway's record of alarms"] = "the policy has no guard of kind `queries`"
        _carry_out(plan, parties, results, paths, as_json)


def _results(plan: Plan, target: Target, files: Files, parties: Parties, rows: int) -> Results:
    """Of a campaign that has not begun."""
    from gateway.redteam.records import JSON_SCHEMA, Results

    return Results(
        schema=JSON_SCHEMA,
        target=target.url,
        model=target.name,
        made_s=time.time(),
        seed=plan.seed,
        runs=plan.runs,
        queries=plan.queries,
        minutes=plan.minutes,
        unit=parties.space.unit,
        rows_a_request=rows,
        keys=len(parties.thieves),
        obeys_retry_after=plan.obey,
        lattice=plan.lattice,
        samples=str(files.samples),
        bare_model=None if files.bare is None else str(files.bare),
        reads_alarms=parties.alarms is not None,
    )


def _carry_out(
    plan: Plan, parties: Parties, results: Results, paths: tuple[Path, Path], as_json: bool
) -> None:
    """Attacks, and writes and prints what was done, also where it ends early: exit code 1 then."""
    from rich.console import Console

    from gateway.redteam.campaign import campaign
    from gateway.redteam.report import as_json as document
    from gateway.redteam.report import write
    from gateway.redteam.table import rich_table, tables

    free = Console(stderr=as_json)
    console = free if free.is_terminal else Console(stderr=as_json, width=WIDE)
    failed: Problems | None = None
    with ProgressBar(console) as bar:
        try:
            campaign(plan, parties, results, bar)
        except Problems as error:
            failed = error
    write(results, paths)
    for lines in tables(results):
        console.print(rich_table(lines))
    for name, why in results.skipped.items():
        print_warning(f"note: {name} was not carried out: {why}")
    if results.ended != "done":
        print_warning(f"{results.ended}; the report holds what was done until then")
    if as_json:
        print_line(document(results).decode().rstrip())
    else:
        print_line(f"report: {paths[0]}, {paths[1]}")
    if failed is not None:
        for problem in failed.problems:
            print_warning(str(problem))
    if results.ended != "done":
        raise typer.Exit(1)


class ProgressBar:
    """Which attack is carried out, how far it is, and how many queries were sent."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.completed} of {task.total}"),
            TextColumn("{task.fields[sent]:,} queries"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1, sent=0)
        self._sent = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, name: str, total: int) -> None:
        """The next attack, of so many parts."""
        self._progress.update(self._task, description=name, total=total, completed=0)

    def done(self, parts: int) -> None:
        """So many parts of it are done."""
        self._progress.update(self._task, completed=parts)

    def queries(self, n: int) -> None:
        """n more queries were sent to the gateway."""
        self._sent += n
        self._progress.update(self._task, sent=self._sent)
