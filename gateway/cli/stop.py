"""`gateway stop` and `gateway resume`: the latched stop switch, whatever state the policy is in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.acts import record_act, user_name
from gateway.cli.options import (
    AsJson,
    StateDir,
    app,
    exit_with_problems,
    exit_with_usage_error,
    print_line,
    print_warning,
    require_choice,
)
from gateway.core.errors import PolicyError, Problem, Problems

if TYPE_CHECKING:
    from gateway.serving.latch_file import LatchFile
    from gateway.serving.stops import Scope, Stops

StoppedFolders = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Deployment folders; with --state-dir and none: all that use it.", metavar="[DIR]..."
    ),
]
DONE = {"stop": "stopped", "resume": "resumed"}
Rung = Annotated[str | None, typer.Option(help="One rung alone; its rows go to the next one.")]


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of one file of stops."""

    file: LatchFile
    scope: Scope
    shown: str


@app.command()
def stop(
    folders: StoppedFolders = None,
    rung: Rung = None,
    reason: Annotated[str, typer.Option(help="Why, in your words: shown to operators.")] = "",
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Stops deployments, or one rung, until `gateway resume`: over restarts, at every replica."""
    from gateway.serving.stops import LONGEST_REASON, Stop

    if len(reason) > LONGEST_REASON:
        exit_with_usage_error(f"--reason: has {len(reason)} characters; {LONGEST_REASON} are the most")
    at, by = datetime.now(UTC), user_name()

    def write(target: Target) -> Stops:
        model, only = target.scope
        return target.file.stop(Stop(model=model, rung=only, by=by, at=at, reason=reason))

    _switch("stop", folders, rung, state_dir, write, as_json)


@app.command()
def resume(
    folders: StoppedFolders = None, rung: Rung = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """Lifts what `gateway stop` of the same words has stopped, and nothing else."""
    _switch("resume", folders, rung, state_dir, lambda target: target.file.resume(target.scope), as_json)


def _switch(
    act: str,
    folders: list[Path] | None,
    rung: str | None,
    state_dir: Path | None,
    write: Callable[[Target], Stops],
    as_json: bool,
) -> None:
    """Writes every target, waits until the replicas have read it, and prints what is in force."""
    from gateway.serving.stops_in_force import read_by_replicas

    try:
        targets = _targets(folders or [], rung, state_dir)
        after = {target.file: write(target) for target in targets}
        replicas = read_by_replicas([file.folder for file in after])
        for target in targets:
            record_act(target.file.folder, act, target.shown)
    except Problems as error:
        exit_with_problems(error, as_json)
    except OSError as error:
        exit_with_usage_error(f"{error.filename}: cannot be written: {error.strerror or error}")
    still = [stop for stops in after.values() for stop in stops.stops]
    if as_json:
        listed = [stop.model_dump(mode="json") for stop in still]
        shown: dict[str, Any] = {
            DONE[act]: [one.shown for one in targets],
            "stops": listed,
            "replicas": replicas,
        }
        print_line(json.dumps(shown))
    else:
        _print_result(DONE[act], targets, replicas)
        for one in still if act == "resume" else ():
            print_warning(f"still stopped: {one.scope}: {one}")
    if not all(replicas.values()):
        raise typer.Exit(1)


def _print_result(done: str, targets: list[Target], replicas: dict[str, bool]) -> None:
    for one in targets:
        print_line(f"{done} {one.shown}")
    silent = [name for name, read in replicas.items() if not read]
    if replicas:
        print_line(f"in force at {len(replicas) - len(silent)} of {len(replicas)} replicas")
    for one in () if replicas else targets:
        print_warning(
            f"no running gateway answers in {one.file.folder}/run. One that serves {one.shown} with other "
            f"deployments reads {one.file.path} within half a second. One that is served with --state-dir "
            "reads the file there: give this command the same"
        )
    for name in silent:
        print_warning(f"replica {name} did not say that it has read this")


def _targets(folders: list[Path], rung: str | None, state_dir: Path | None) -> list[Target]:
    """What the command is about. Raises PolicyError; exits with code 2 for what is ambiguous."""
    from gateway.serving.folders import deployment_folders
    from gateway.serving.latch_file import LatchFile
    from gateway.serving.stops import Scope

    if not folders:
        if state_dir is None:
            exit_with_usage_error(
                "name the deployment folders; or --state-dir, for all that are served with it"
            )
        if rung is not None:
            exit_with_usage_error("--rung: name the deployment folder that has the rung")
        return [Target(LatchFile(state_dir, shared=True), Scope(), f"all that use {state_dir}")]
    named = deployment_folders(folders)
    return [_target(folder, rung, LatchFile.of(folder, state_dir)) for folder in named]


def _target(folder: Path, rung: str | None, file: LatchFile) -> Target:
    """Of one deployment. Its policy is needed for a rung and in a shared file. Raises PolicyError."""
    from gateway.deployment.deployment import Deployment
    from gateway.policy.read import POLICY_FILE
    from gateway.serving.folders import name_of

    if not (folder / POLICY_FILE).is_file():
        raise PolicyError([Problem("", "there is none: name a deployment folder", str(folder / POLICY_FILE))])
    if rung is None and not file.shared:
        name = name_of(folder, ())
        return Target(file, file.scope(name), name)
    policy = Deployment.read(folder).policy
    if rung is None:
        return Target(file, file.scope(policy.name), policy.name)
    rungs = {one.name for one in policy.rungs}
    require_choice("--rung", rung, rungs, f"a rung of {folder}: " + ", ".join(sorted(rungs)))
    return Target(file, file.scope(policy.name, rung), f"rung {rung} of {policy.name}")
