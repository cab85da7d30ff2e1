"""The documentation against the code: links, pictures, tables, commands, policies, terms."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import grimp
import pytest
import yaml

from gateway.core.decision import Deferred, Reason, Refused, Served
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.http.route_table import ROUTES
from gateway.listener.limits import Limits
from gateway.policy.schema import OipPolicy, Policy
from gateway.policy.serving import Serving
from gateway.protocol.endings import Rejection, status_of
from tests.support.markdown import ROOT, Fence, anchors, fences, links, pages, prose_of, table, text_of

ARCHITECTURE, WIRE, OPERATING = "docs/architecture.md", "docs/wire.md", "docs/operating.md"
README_WORDS = 1000

Packages = Mapping[str, set[str]]


# ---------------------------------------------------------------- links, paths, words


@pytest.mark.parametrize("page", pages())
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        name = str(found.relative_to(ROOT))
        assert found.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(name), f"{page} links to {target}: no such heading"


@pytest.mark.parametrize("page", pages())
def test_every_path_of_the_repository_that_a_page_names_exists(page: str) -> None:
    tops = "gateway|guards|fallbacks|bench|tests|configs|docs"
    for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", prose_of(page)):
        made_by_training = "/var/" in path
        made_by_the_reader = page == "docs/adding-a-guard.md"
        assert made_by_training or made_by_the_reader or (ROOT / path).exists(), f"{page} names {path}"


@pytest.mark.parametrize("page", [ARCHITECTURE, "docs/glossary.md"])
def test_every_class_that_a_page_names_exists(page: str) -> None:
    sources = [
        path.read_text() for top in ("gateway", "guards", "fallbacks") for path in ROOT.glob(f"{top}/**/*.py")
    ]
    for name in re.findall(r"`([A-Z][a-z]+[A-Za-z]*)(?:\.\w+)?`", prose_of(page)):
        assert any(f"class {name}" in source for source in sources), f"{page} names the class {name}"


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(text_of("README.md").split()) <= README_WORDS


# ---------------------------------------------------------------- the picture of the packages


def package_of(module: str) -> str:
    """`gateway.core.stage` is of `core`, `guards.rate` of `guards`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "gateway" and len(parts) > 1 else parts[0]


@cache
def real_imports() -> Packages:
    """Which package imports which, without `gateway/__main__.py`, which only starts `cli`."""
    graph = grimp.build_graph("gateway", "guards", "fallbacks")
    imports: dict[str, set[str]] = {package_of(module): set() for module in graph.modules}
    for module in graph.modules:
        found = {package_of(one) for one in graph.find_modules_directly_imported_by(module)}
        imports[package_of(module)] |= found - {package_of(module)}
    for root in ("gateway", "__main__"):  # the root package holds a docstring
        del imports[root]
    return imports


def reachable(imports: Packages, start: str, without: str = "") -> set[str]:
    """What a package imports directly or through others, not counting its own arrow to `without`."""
    found: set[str] = set()
    waiting = [one for one in imports[start] if one != without]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += imports[one]
    return found


def reduced(imports: Packages) -> set[tuple[str, str]]:
    """The imports that do not follow from a path of other imports."""
    return {
        (importer, imported)
        for importer, several in imports.items()
        for imported in several
        if imported not in reachable(imports, importer, without=imported)
    }


@cache
def picture() -> tuple[set[str], set[tuple[str, str]]]:
    """The packages and the arrows of the first picture."""
    drawn = fences(ARCHITECTURE, "mermaid")[0].text
    arrows: set[tuple[str, str]] = set()
    for line in drawn.splitlines():
        if "-->" in line:
            sources, targets = ([one.strip() for one in side.split("&")] for side in line.split("-->"))
            arrows |= {(source, target) for source in sources for target in targets}
    nodes = set(re.findall(r"^\s+(\w+)$", drawn, re.MULTILINE)) - {"end"}
    return nodes, arrows


def test_the_picture_holds_every_package_and_no_other() -> None:
    nodes, _ = picture()
    assert nodes == set(real_imports())


def test_every_arrow_of_the_picture_is_an_import_and_no_import_is_missing() -> None:
    nodes, arrows = picture()
    drawn: Packages = {node: {b for a, b in arrows if a == node} for node in nodes}
    real = real_imports()
    assert not [arrow for arrow in arrows if arrow[1] not in real[arrow[0]]], "arrows that are no imports"
    for package, imported in real.items():
        assert imported <= reachable(drawn, package), f"imports of {package} that no path of arrows shows"


def test_the_picture_draws_no_arrow_that_follows_from_others() -> None:
    assert picture()[1] == reduced(real_imports())


def test_the_table_lists_every_direct_import() -> None:
    listed = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in table(ARCHITECTURE, "package")
    }
    assert listed == real_imports()


# ---------------------------------------------------------------- commands and policies


@cache
def help_of(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": ""},
    )
    return done.stdout if done.returncode == 0 else ""


def commands() -> Iterator[tuple[str, str, str]]:
    """Page, subcommand and the rest of every `gateway ...` in code, inline or fenced."""
    for page in pages():
        text = text_of(page)
        for code in re.findall(r"`([^`\n]+)`|^(?:    |\$ )(.+)$", text, re.MULTILINE):
            line = code[0] or code[1]
            if found := re.match(r"(?:\.venv/bin/)?gateway ((?:admin |policy )?[a-z]+)(.*)", line):
                yield page, found[1], found[2]


def test_every_gateway_command_and_option_that_a_page_names_exists() -> None:
    named = list(commands())
    assert {name for _, name, _ in named} == {
        "serve",
        "demo",
        "check",
        "calibrate",
        "key",
        "callers",
        "bench",
        "init",
        "inspect",
        "admin add",
        "admin list",
        "admin revoke",
        "policy list",
        "policy diff",
        "policy apply",
        "policy rollback",
        "redteam",
        "sign",
        "stop",
        "resume",
    }
    for page, name, rest in named:
        told = help_of(name)
        assert told, f"{page} names `gateway {name}`"
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in told, f"{page}: `gateway {name}` has no {option}"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE)) | {
        ".venv/.ready",
        ".venv/.development",
    }


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = make_targets()
    for page in pages():
        for target in re.findall(r"(?:`|^    )make ([\w./]+)", text_of(page), re.MULTILINE):
            assert target in targets, f"{page} names make {target}"


def policies() -> list[Fence]:
    """All but those of adding-a-guard.md, whose kind a reader adds: `test_adding_a_guard.py` runs them."""
    read = [page for page in pages() if page != "docs/adding-a-guard.md"]
    return [fence for page in read for fence in fences(page, "yaml")]


@pytest.mark.parametrize("fence", policies(), ids=lambda fence: f"{fence.page}:{fence.text.split()[0]}")
def test_every_policy_that_a_page_shows_is_valid(fence: Fence, tmp_path: Path) -> None:
    """A part of a policy is laid over the README's."""
    whole = yaml.safe_load(fences("README.md", "yaml")[0].text)
    shown = yaml.safe_load(fence.text)
    assert isinstance(shown, dict)
    if shown.get("guards") and not shown.get("rungs"):
        whole["deadline_s"] = 5
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(shown if "schema" in shown else whole | shown))
    try:
        Deployment.read(tmp_path)
    except PolicyError as error:
        pytest.fail(f"{fence.page}: {error}")


# ---------------------------------------------------------------- tables of the wire


def test_the_table_of_status_codes_is_that_of_the_code() -> None:
    told = {(row[0], row[1].strip("`")): (int(row[2]), row[3]) for row in table(WIRE, "outcome")}
    refusals = [reason for reason in Reason if reason is not Reason.OK]
    real = {("refused", str(reason)): status_of(Refused(reason))[:2] for reason in refusals}
    real |= {("refused", str(one)): status_of(one)[:2] for one in Rejection}
    real["served", "ok"] = status_of(Served({}, "primary"))[:2]
    real["deferred", "why no model may answer"] = status_of(Deferred("id", Reason.ABSTAINED))[:2]
    real["degraded", "why the primary did not answer"] = real["served", "ok"]
    assert told == real


def test_the_table_of_endpoints_is_that_of_the_code() -> None:
    told: dict[tuple[str, str], set[str]] = {}
    for method, paths, scopes, _ in table(WIRE, "method"):
        for path in re.findall(r"`/([^`]+)`", paths):
            told[method, path] = set(re.findall(r"`(\w+)`", scopes))
    real = {
        (route.method, route.path): set(route.scopes or ())
        for route in ROUTES
        if "{version}" not in route.path and (route.scopes is None or route.scopes)
    }
    served = {key: needs for key, needs in real.items() if key in told}
    assert set(told) == set(served)
    for key, needed in told.items():
        assert needed <= served[key], f"{key} needs one of {served[key]}"
    rest = {path for _, path in real.keys() - told.keys()}
    assert all(re.search(r"trace|generate|stream|sharedmemory|logging", path) for path in rest), rest


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("head of a request", "{head_kib} KiB, {headers} headers, {head_s:g} s"),
        ("requests sent ahead on one connection", "{pipelined}"),
        ("idle connection", "{idle_s:g} s"),
        ("TLS handshake", "{handshake_s:g} s"),
    ],
)
def test_limits_of_the_listener_have_the_values_of_the_page(limit: str, value: str) -> None:
    limits = Limits()
    names = ("headers", "head_s", "pipelined", "idle_s", "handshake_s")
    real = {name: getattr(limits, name) for name in names}
    told = {row[0]: row[1] for row in table(WIRE, "limit")}
    assert told[limit] == value.format(head_kib=limits.head_bytes // 1024, **real)


def shown_default(value: Any) -> str:
    """A default as the page shows it."""
    return "none" if value is None else '""' if value == "" else str(value)


def test_the_table_of_serving_has_every_field_and_its_default() -> None:
    told = {row[0].strip("`"): row[1] for row in table(OPERATING, "field")}
    assert told == {name: shown_default(f.default) for name, f in Serving.model_fields.items()}


def test_the_table_of_upstreams_has_every_field() -> None:
    listed = " ".join(row[0] for row in table(OPERATING, "field of `model`"))
    assert set(re.findall(r"\w+", listed)) == set(OipPolicy.model_fields) - {"kind"}


# ---------------------------------------------------------------- terms


def test_every_bold_term_of_the_architecture_is_in_the_glossary() -> None:
    prose = prose_of(ARCHITECTURE).partition("## Packages")[2]
    labels = re.compile(r"^(?:\d+\. )?\*\*[^*]+[.]\*\*|^\*\*Import rule", re.MULTILINE)  # of list items
    bold = {" ".join(term.split()).lower() for term in re.findall(r"\*\*([^*]+)\*\*", labels.sub("", prose))}
    glossary = {row[0].strip("*") for row in table("docs/glossary.md", "term")}
    assert len(bold) >= 10
    assert bold <= glossary


def test_the_glossary_names_each_term_once_in_alphabetical_order() -> None:
    terms = [row[0].strip("*") for row in table("docs/glossary.md", "term")]
    assert terms == sorted(set(terms), key=lambda term: term.replace("-", " "))


def test_the_glossary_has_every_outcome_reason_tier_and_mode() -> None:
    text = text_of("docs/glossary.md")
    modes = get_args(Policy.model_fields["mode"].annotation)
    for word in ("served", "degraded", "deferred", "refused", "full", "rounded", "top", "label", *modes):
        assert word in text
    for reason in Reason:
        assert f"`{reason}`" in text
