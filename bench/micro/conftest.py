"""One deployment, opened once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.micro.world import World, open_world


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with open_world() as opened:
        yield opened
