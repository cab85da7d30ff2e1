"""docs/adding-a-guard.md, followed in a scratch copy: its files, its line of the union, its commands.

Then each part is left out on purpose, and something must notice: the type checker or a test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gateway.deployment import tracing
from tests.support.served import CONFIGS, Served, serving

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-guard.md").read_text()
PARTS = ("gateway", "guards", "fallbacks", "tests", "docs", "configs")
KIND = "gateway/policy/kinds/stuck.py"
UNION = "gateway/policy/kinds/__init__.py"


@dataclass(frozen=True)
class Block:
    """One fenced block of the page. file: what its info string names, empty for none."""

    language: str
    file: str
    text: str


def blocks(language: str) -> list[Block]:
    fences = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    found = [Block(kind, "".join(re.findall(r"file=(\S+)", info)), text) for kind, info, text in fences]
    return [block for block in found if block.language == language]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.text.splitlines()]
    return [
        line.removeprefix("$ ").replace("DIR", "letters").split() for line in lines if line.startswith("$ ")
    ]


def write_new_files(tree: Path) -> None:
    for block in blocks("python"):
        assert not (tree / block.file).exists(), f"{block.file} is not new"
        (tree / block.file).write_text(block.text)


def add_section(tree: Path) -> None:
    (block,) = blocks("markdown")
    path, after = tree / block.file, "## 8. Statistical procedures"
    assert path.read_text().count(after) == 1
    path.write_text(path.read_text().replace(after, f"{block.text}\n{after}"))


def add_to_union(tree: Path) -> None:
    for block in blocks("diff"):
        path, lines = tree / block.file, block.text.splitlines()
        before = "\n".join(line[1:] for line in lines if line.startswith(" "))
        after = "\n".join(line[1:] for line in lines)
        assert path.read_text().count(before + "\n") == 1, before
        path.write_text(path.read_text().replace(before + "\n", after + "\n"))


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, with this interpreter's tools, in the scratch copy."""
    tool, *arguments = command
    name = Path(tool).name
    program = [sys.executable] if name == "python" else [str(Path(sys.executable).parent / name)]
    if name == "gateway":
        program = [sys.executable, "-m", "gateway"]
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*program, *arguments], cwd=tree, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after steps 1 to 4 of the page."""
    tree = tmp_path_factory.mktemp("scratch")
    ignored = shutil.ignore_patterns("__pycache__", "var", "results")
    for part in PARTS:
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    shutil.copytree(ROOT / "bench", tree / "bench", ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, tree / name)
    if (ROOT / ".mypy_cache").is_dir():  # the same files have the same types: minutes become seconds
        shutil.copytree(ROOT / ".mypy_cache", tree / ".mypy_cache")
    write_new_files(tree)
    add_to_union(tree)
    add_section(tree)
    return tree


@pytest.fixture(scope="module")
def folder(tree: Path) -> Path:
    """configs/letters with the page's line in its policy, and held-out rows beside it."""
    folder = tree / "letters"
    shutil.copytree(CONFIGS / "letters", folder, ignore=shutil.ignore_patterns("var"))
    with np.load(CONFIGS / "letters" / "letters.npz") as held:
        rows, labels = held["x"][-4000:], [ord(letter) - ord("A") for letter in held["y"][-4000:]]
    np.savez(tree / "held_out.npz", x=rows.astype(np.float32), y=np.array(labels))
    (entry,) = blocks("yaml")
    policy = folder / "gateway.yaml"
    policy.write_text(re.sub(r"(?m)^guards:\n", lambda at: at[0] + entry.text, policy.read_text(), count=1))
    return folder


def test_the_pages_checks_pass_after_its_steps(tree: Path) -> None:
    for command in commands():
        if Path(command[0]).name != "gateway":
            done = run(tree, *command)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def test_the_page_lists_the_functions_that_are_recorded() -> None:
    ufuncs, _, functions, _ = [
        line for line in PAGE.splitlines() if re.match(r"\| (ufuncs|red|func|forms)", line)
    ]
    named = set(re.findall(r"`(\w+)`", ufuncs))
    assert named == {one.__name__ for one in tracing._UFUNCS} | {"square", "vecdot"}
    assert set(re.findall(r"`(\w+)`", functions)) == {one.__name__ for one in tracing._FUNCTIONS}


def test_the_page_changes_two_new_files_of_the_product_and_one_line_of_the_union() -> None:
    new = {block.file for block in blocks("python") if not block.file.startswith("tests/")}
    assert new == {"guards/stuck.py", KIND}
    added = [line for block in blocks("diff") for line in block.text.splitlines() if line.startswith("+")]
    assert {block.file for block in blocks("diff")} == {UNION}
    assert [line for line in added if "import" not in line] == ["+    | StuckPolicy"]


def test_the_gateway_calibrates_checks_and_serves_the_new_guard(tree: Path, folder: Path) -> None:
    stale = run(tree, "gateway", "check", "letters")
    assert stale.returncode == 2 and "run `gateway calibrate`" in stale.stderr
    *prepare, serve = [command for command in commands() if Path(command[0]).name == "gateway"]
    for command in prepare:
        done = run(tree, *command)
        assert done.returncode == 0, done.stderr
    with served_from(tree, folder, *serve[3:]) as running, np.load(tree / "held_out.npz") as held:
        good = [running.ask(row[None]).headers["x-failsafe-outcome"] for row in held["x"][:20]]
        stuck = running.ask(np.full((1, 16), 7.0, np.float32))
        assert good.count("served") > 10
        assert stuck.headers["x-failsafe-outcome"] == "deferred"
        id_ = stuck.headers["x-failsafe-decision-id"]
        (row,) = running.admin.get(f"/decisions/{id_}").json()["rows"]
    (finding,) = [one for one in row["findings"] if one["stage"] == "stuck"]
    assert finding["verdict"] == "defer"


def test_a_formula_that_no_graph_can_hold_is_refused_by_check_with_its_guard(
    tree: Path, folder: Path
) -> None:
    edit = replaced(
        "np.maximum.reduce(values, axis=1) - np.minimum.reduce(values, axis=1)", "np.ptp(values, 1)"
    )
    with changed(tree / "guards/stuck.py", edit):
        done = run(tree, "gateway", "check", "letters")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "guards.stuck: ptp" in done.stderr and "Traceback" not in done.stderr


@contextmanager
def served_from(tree: Path, folder: Path, *flags: str) -> Iterator[Served]:
    """`gateway serve` of the scratch copy."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tree)
    try:
        with serving(folder, *flags, cwd=tree) as running:
            yield running
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def without(name: str) -> Callable[[str], str]:
    """The kind's file with a method, property or field of this name left out, decorators included."""

    def edit(text: str) -> str:
        body = r"(?:(?:        .*|    \).*)?\n)*?(?=    [^\s)]|\n*^\S|\Z)"
        method = rf"(?m)^(    @property\n)?    def {name}\(.*\n{body}"
        field = rf"(?m)^    {name}: (?:[^\n]*\(\n(?:        .*\n)+    \)|.*)\n"
        edited, n = re.subn(method, "", text, count=1)
        if not n:
            edited, n = re.subn(field, "", text, count=1)
        assert n == 1, name
        return edited

    return edit


def replaced(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return edit


BY_TYPE = (
    *("certified", "reason", "on_canary", "unbound", "example", "verdict", "without_answer"),
    *("contradictions", "unreadable", "reviewer_sentence", "fit", "load", "pack", "input_only"),
    *("input_columns", "answer_columns", "guard"),
)
SCORE = 'return self.stuck.score(as_input("stuck", "a table of inputs", s.t))'
BY_TEST = {
    "nothing is stored": replaced("return arrays.pack(self.name, self.stuck)", "return {}"),
    "the state is stored under another name": replaced("arrays.pack(self.name,", 'arrays.pack("other",'),
    "the score depends on the rows beside it": replaced(
        SCORE,
        't = as_input("stuck", "a table of inputs", s.t)\n        return self.stuck.score(t - t.mean(0))',
    ),
    "the score is constant": replaced(SCORE, SCORE.replace("return ", "return 0 * ")),
    "nothing is measured": replaced("return input_scores", "return ()"),
    "a field that moves the score is exempt": replaced('{"budget_s"', '{"share", "budget_s"'),
    "a reviewer is told nothing": replaced("its values hardly differ, as from a stuck sensor", ""),
    "the example is of another kind": replaced("name: stuck, kind: stuck", "name: stuck, kind: ood"),
}


@contextmanager
def changed(path: Path, edit: Callable[[str], str]) -> Iterator[None]:
    text = path.read_text()
    path.write_text(edit(text))
    try:
        yield
    finally:
        path.write_text(text)


@pytest.mark.parametrize("name", BY_TYPE)
def test_the_type_checker_notices_a_part_that_is_left_out(tree: Path, name: str) -> None:
    with changed(tree / KIND, without(name)):
        done = run(tree, "mypy", "gateway/policy")
    assert done.returncode == 1, f"nothing noticed that {name} is missing"
    assert "StuckPolicy" in done.stdout or "FittedStuck" in done.stdout, done.stdout


@pytest.mark.parametrize("edit", BY_TEST.values(), ids=BY_TEST)
def test_the_contract_suite_notices_a_part_that_is_wrong(tree: Path, edit: Callable[[str], str]) -> None:
    with changed(tree / KIND, edit):
        done = run(tree, "python", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/policy/kinds")
    assert done.returncode == 1, done.stdout[-2000:]
    assert "Stuck" in done.stdout, done.stdout[-2000:]


def test_a_kind_that_no_union_names_is_refused_in_a_policy(tree: Path, folder: Path) -> None:
    def forget(text: str) -> str:
        return text.replace("    | StuckPolicy\n", "")

    with changed(tree / UNION, forget):
        done = run(tree, "gateway", "check", "letters")
    assert done.returncode == 2
    assert "must be one of" in done.stderr and "'stuck'" in done.stderr
