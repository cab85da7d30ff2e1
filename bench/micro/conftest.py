"""One deployment, loaded once for all benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.micro.fixture import MicroFixture, open_fixture


@pytest.fixture(scope="session")
def fixture() -> Iterator[MicroFixture]:
    with open_fixture() as deployment:
        yield deployment
