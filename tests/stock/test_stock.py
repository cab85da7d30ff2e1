"""Stock clients, unchanged, against a running gateway: each in its own environment, one report a case."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stock import REQUIREMENTS, cases, target

pytestmark = pytest.mark.stock

NEEDS_GLIBC = [2, 38]


def glibc() -> list[int]:
    """The version of the C library; [] of any other."""
    name, version = platform.libc_ver()
    return [int(part) for part in version.split(".")] if name == "glibc" else []


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with target("letters", tmp_path_factory.mktemp("stock")) as one:
        yield one


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with target("fashion", tmp_path_factory.mktemp("stock")) as one:
        yield one


@pytest.fixture(scope="module")
def marking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with target("letters", tmp_path_factory.mktemp("stock"), "withheld_rows: mark, ") as one:
        yield one


def holds(at: Path, environment: str, script: str, least: int, subtests: pytest.Subtests) -> None:
    """Every case of a script, as a test of its own; `least`: that a script which stops early is noticed."""
    found = cases(environment, script, at)
    assert len(found) >= least
    for case in found:
        with subtests.test(case.name):
            if not case.ok:
                pytest.fail(case.detail, pytrace=False)


@pytest.mark.parametrize(
    ("environment", "script", "least"),
    [
        ("triton", "triton_http.py", 900),
        ("triton", "triton_http_aio.py", 900),
        ("triton", "triton_grpc.py", 270),
        ("triton", "triton_grpc_aio.py", 270),
        ("kserve", "kserve_rest.py", 140),
        ("kserve", "kserve_grpc.py", 60),
    ],
)
def test_a_stock_client_works_by_changing_its_url(
    letters: Path, environment: str, script: str, least: int, subtests: pytest.Subtests
) -> None:
    holds(letters, environment, script, least, subtests)


@pytest.mark.parametrize(
    ("environment", "script", "least"),
    [("triton", "triton_http.py", 900), ("triton", "triton_grpc.py", 270), ("kserve", "kserve_rest.py", 140)],
)
def test_a_stock_client_works_with_images_as_rows(
    fashion: Path, environment: str, script: str, least: int, subtests: pytest.Subtests
) -> None:
    holds(fashion, environment, script, least, subtests)


@pytest.mark.parametrize(
    ("environment", "script", "least"),
    [("triton", "triton_marked.py", 10), ("kserve", "kserve_marked.py", 7)],
)
def test_a_stock_client_reads_a_batch_in_which_the_deployment_marks_withheld_rows(
    marking: Path, environment: str, script: str, least: int, subtests: pytest.Subtests
) -> None:
    holds(marking, environment, script, least, subtests)


@pytest.mark.skipif(glibc() < NEEDS_GLIBC, reason="perf_analyzer is a program for glibc 2.38 and newer")
def test_perf_analyzer_gets_the_right_answers_and_the_servers_statistics(
    letters: Path, subtests: pytest.Subtests
) -> None:
    holds(letters, "perf_analyzer", "perf.py", 18, subtests)


@pytest.mark.parametrize("wanted", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_requirements_are_exact_and_name_no_place(wanted: Path) -> None:
    lines = [line for line in wanted.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all("==" in line for line in lines)
    assert not any("/" in line for line in lines)
