"""Writes what a running gateway consists of: `sbom.cdx.json` (CycloneDX 1.6) and the table of licences.md.

cyclonedx-py describes everything in the environment that runs this script; what `requirements.lock` does not
install, such as test tools, is left out again. Packages of other platforms are in the lock and not here. Run
it with `make sbom`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
ROOT = Path(__file__).parents[1]
LOCK, BILL, LICENCES = ROOT / "requirements.lock", ROOT / "sbom.cdx.json", ROOT / "docs" / "licences.md"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
CLASSIFIER = re.compile(r"^License :: (OSI Approved :: )?")
HEAD = """\
# Licences

What `requirements.lock` installs on this platform, and the licence that each package declares. Written by
`make sbom` from the CycloneDX bill of materials, which CI makes too.

| package | version | licence |
|---|---|---|
"""


def normalized(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> set[str]:
    """The normalized names in `requirements.lock`."""
    return {normalized(name) for name in PINNED.findall(LOCK.read_text())}


def bill_of_materials() -> Json:
    """The run-time packages of this environment as a CycloneDX document."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--mc-type"]
    command += ["application", "--pyproject", str(ROOT / "pyproject.toml"), sys.executable]
    bill: Json = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603
    names = locked()
    bill["components"] = [one for one in bill["components"] if normalized(one["name"]) in names]
    kept = {one["bom-ref"] for one in (*bill["components"], bill["metadata"]["component"])}
    bill["dependencies"] = [_within(one, kept) for one in bill["dependencies"] if one["ref"] in kept]
    return bill


def _within(dependency: Json, kept: set[str]) -> Json:
    """A component's dependencies, of those that are kept."""
    return {**dependency, "dependsOn": [ref for ref in dependency.get("dependsOn", []) if ref in kept]}


def licences(bill: Json) -> str:
    """The page of licences, a line a package."""
    rows = sorted(
        (normalized(one["name"]), one["version"], ", ".join(_declared(one))) for one in bill["components"]
    )
    return HEAD + "".join(f"| {name} | {version} | {licence} |\n" for name, version, licence in rows)


def _declared(component: Json) -> list[str]:
    """The licences of a component: by identifier where it gives one, else by name. Raises ValueError."""
    found = list(dict.fromkeys(_named(component["licenses"]))) if "licenses" in component else []
    about = metadata.metadata(component["name"])
    if not found and "License" in about:
        found = [about["License"].splitlines()[0]]
    if not found:
        raise ValueError(f"{component['name']} {component['version']} declares no licence")
    return found


def _named(declared: list[Json]) -> Iterator[str]:
    identifiers = [one for one in declared if "expression" in one or "id" in one["license"]]
    for one in identifiers or declared:
        if "expression" in one:
            yield one["expression"]
        else:
            yield one["license"].get("id") or CLASSIFIER.sub("", one["license"]["name"].splitlines()[0])


def main() -> None:
    bill = bill_of_materials()
    BILL.write_text(json.dumps(bill, indent=1) + "\n")
    LICENCES.write_text(licences(bill))
    print(f"{BILL.name}: {len(bill['components'])} packages; {LICENCES.relative_to(ROOT)}")  # noqa: T201


if __name__ == "__main__":
    main()
