"""`gateway check` proves the policy: holes with their path, the graph as Mermaid and as data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.test_main import gateway
from tests.support.deployments import CONFIGS, edit, letters, opened, run
from tests.support.holes import CHECKS, NO_REVIEW, OOD_FAILS, fails, waived


@pytest.mark.parametrize(
    ("edits", "field", "path"),
    [
        (
            (fails(OOD_FAILS, "allow"),),
            "guards[1].on_error",
            "ood: error (allow) -> confidence: ok -> served by primary (200)",
        ),
        (
            ((CHECKS["letters"][1], CHECKS["letters"][1].replace("on_error: degrade", "on_error: allow")),),
            "rungs[1].checks[0].on_error",
            "small_confidence: error (allow) -> degraded by small (200)",
        ),
        ((NO_REVIEW,), "guards[1].cuts", "ood: flagged (defer) -> refused as abstained (422)"),
    ],
    ids=["a guard fails open", "a check fails open", "no people"],
)
def test_check_prints_the_path_that_breaks_the_policy(
    tmp_path: Path, edits: tuple[tuple[str, str], ...], field: str, path: str
) -> None:
    folder = letters(tmp_path, *edits, patient=False, history=False)
    done = gateway("check", str(folder))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f": {field}: " in done.stderr
    assert path in done.stderr
    assert re.match(rf"{re.escape(str(folder))}/gateway.yaml:\d+: ", done.stderr)
    found = json.loads(gateway("check", str(folder), "--json").stdout)["problems"]
    assert field in [problem["field"] for problem in found]


def test_a_waiver_closes_the_hole_and_is_told(tmp_path: Path) -> None:
    folder = letters(tmp_path, fails(OOD_FAILS, "allow"), waived("ood"), patient=False, history=False)
    done = gateway("check", str(folder))
    assert done.returncode == 0, done.stderr
    assert "left open: `ood` fails open, by a waiver: a demo" in done.stdout
    assert "proven: " in done.stdout


def test_check_draws_the_graph(tmp_path: Path) -> None:
    done = gateway("check", str(CONFIGS / "letters"), "--graph")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "flowchart TD"
    ids = {found[1] for line in lines if (found := re.match(r'    (\w+)\W+"', line))}
    arrows = [found for line in lines if (found := re.match(r'    (\w+) -->\|"[^"]+"\| (\w+)$', line))]
    assert {id_ for arrow in arrows for id_ in arrow.groups()} == ids - {"late", "late_end"}
    assert len(arrows) < 30


def test_check_draws_a_graph_with_a_hole_before_it_tells_of_the_hole(tmp_path: Path) -> None:
    done = gateway("check", str(letters(tmp_path, NO_REVIEW, patient=False)), "--graph")
    assert done.returncode == 2
    assert done.stdout.startswith("flowchart TD\n")
    assert "no `review`" in done.stderr


def test_the_graph_as_data_leads_from_the_first_node_to_every_end() -> None:
    told = json.loads(gateway("check", str(CONFIGS / "fashion"), "--graph", "--json").stdout)
    graph = told["graph"]
    nodes = {node["id"]: node for node in graph["nodes"]}
    reached, found = set[str](), [graph["nodes"][0]["id"]]
    while found:
        if (at := found.pop()) not in reached:
            reached.add(at)
            found += nodes[at]["leads_to"] if at in nodes else []
    assert reached == nodes.keys() | graph["ends"].keys()
    assert {*graph["ends"].values(), graph["deadline"]} == set(told["proof"]["ends"])


def test_a_start_serves_what_check_refuses_and_logs_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = letters(tmp_path)
    edit(folder, fails((OOD_FAILS[0].replace("0.05", "*"), OOD_FAILS[1]), "allow"))

    async def main() -> None:
        async with opened(folder):
            pass

    run(main)
    assert "not proven: " in caplog.text
    assert "`ood` fails open and has no waiver" in caplog.text
