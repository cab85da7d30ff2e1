"""tritonclient, unchanged, against a gateway of three models, one of which is broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.access.callers import add_key
from tests.stock.test_stock import holds
from tests.support.served import serving
from tests.support.several import named, no_certificate

pytestmark = pytest.mark.stock


def test_a_stock_client_sees_each_model_and_the_one_that_is_not_ready(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    folders = [named(tmp_path, name) for name in ("birds", "trees", "stones")]
    no_certificate(folders[-1])
    state = tmp_path / "state"
    key = add_key(state, "ada", tier="trusted", per_s=None, scopes=frozenset({"infer"}))
    with serving(folders[0], *map(str, folders[1:]), "--local", "--state-dir", str(state)) as served:
        about: dict[str, object] = {
            "http": f"127.0.0.1:{served.data.base_url.port}",
            "grpc": served.grpc,
            "key": key,
        }
        about |= {"ready": ["birds", "trees"], "broken": ["stones"]}
        (tmp_path / "several.json").write_text(json.dumps(about))
        holds(tmp_path, "triton", "triton_several.py", 18, subtests)
