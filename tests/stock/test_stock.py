"""Stock clients, unchanged, against a running gateway: each in its own environment, each case told alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stock import cases, target

pytestmark = pytest.mark.stock


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with target(tmp_path_factory.mktemp("stock")) as told:
        yield told


@pytest.mark.parametrize(
    ("environment", "script", "least"),
    [("triton", "triton_http.py", 900), ("triton", "triton_http_aio.py", 900)],
)
def test_a_stock_client_works_by_changing_its_url(
    at: Path, environment: str, script: str, least: int, subtests: pytest.Subtests
) -> None:
    told = cases(environment, script, at)
    assert len(told) >= least
    for case in told:
        with subtests.test(case.name):
            assert case.ok, case.detail
