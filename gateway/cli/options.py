"""What all commands share: the application, options of several commands, lines of output, exits."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from gateway.core.errors import Problems


class CommandsOfTwoWords(TyperGroup):
    """Finds `gateway key list` before `gateway key` with the first argument `list`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        two = " ".join(args[:2])
        return super().resolve_command(ctx, [two, *args[2:]] if two in self.commands else args)


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, cls=CommandsOfTwoWords)
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


def print_line(line: str) -> None:
    """One line to standard output, at once. Control characters are escaped, as files may hold them."""
    print(_escaped(line), flush=True)  # noqa: T201


def print_warning(line: str) -> None:
    """One line, or several, to standard error, at once. Control characters are escaped."""
    print(_escaped(line), file=sys.stderr, flush=True)  # noqa: T201


def _escaped(line: str) -> str:
    """A terminal acts on control characters: it would hide what stands before them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in line)


def exit_with_problems(error: Problems, as_json: bool) -> NoReturn:
    """Prints every problem, and ends with exit code 2."""
    if as_json:
        fields = ("file", "line", "field", "what", "nearest")
        print_line(json.dumps({"problems": [{f: getattr(p, f) for f in fields} for p in error.problems]}))
    else:
        for problem in error.problems:
            print_warning(str(problem))
    sys.exit(2)


def require_choice(option: str, value: str, known: set[str], what: str) -> None:
    """Exits with code 2 unless the value is one of the known ones."""
    from gateway.policy.locate import closest

    if value not in known:
        nearest = closest(value, known)
        exit_with_usage_error(
            f"{option}: {value!r} is not {what}" + f"; did you mean {nearest!r}?" * bool(nearest)
        )


def exit_with_usage_error(what: str) -> NoReturn:
    """Prints what is wrong with an option, and ends with exit code 2."""
    print_warning(what)
    sys.exit(2)
