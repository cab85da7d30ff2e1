"""Schemathesis against a running gateway: whatever the document says of itself is tried, in every phase."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from deployments import FULL_RATE, edit, key_for
from hypothesis import strategies as st
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from served import Served, clean_rows, copy_of, serving

FUZZED = {"POST /v2/models/{model}/infer": 150}
"""Examples of an operation; of every other, ten."""
CLOSED = ("serving: {anonymous: loopback}", "serving: {anonymous: nobody}")
INFER = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
FLAT = st.integers(0, 7)

schemathesis.openapi.media_type(
    "application/octet-stream", st.integers(0, 7).map(lambda i: clean_rows(8)[i : i + 1].tobytes())
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    folder = copy_of("letters", tmp_path_factory.mktemp("openapi"))
    edit(folder, FULL_RATE, CLOSED)
    key = key_for(folder, "ada")
    with serving(folder, "--local") as running:
        yield running, key
