"""The attacks do what they say, against a real listener."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import orjson
import pytest

from bench.client import Origin
from bench.requests import Target
from bench.under_attack.attacker import AttackPlan, attack
from bench.under_attack.attacks import HALF_HEAD, PREFACE, attacks
from gateway.cli.samples import load_samples
from gateway.protocol.contract import Contract
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, key_for, letters
from tests.support.raw_http import QUICK, ScriptedHandler, listening

ADDRESSES = ("127.0.0.2", "127.0.0.3")


def plan(mechanism: str, port: int, connections: int) -> AttackPlan:
    return AttackPlan(mechanism, port, connections, ADDRESSES, (), 0.5)  # type: ignore[arg-type]


def test_senders_count_the_status_of_every_reply() -> None:
    async def main() -> None:
        async with listening(ScriptedHandler(), QUICK) as server:
            ends = await attack(plan("send", server.address[1], 3), [b"GET /now HTTP/1.1\r\nhost: a\r\n\r\n"])
        assert set(ends) == {"200"}
        assert ends["200"] > 3

    asyncio.run(main())


@pytest.mark.parametrize("payload", [b"", HALF_HEAD])
def test_holders_connect_again_when_the_server_closes(payload: bytes) -> None:
    async def main() -> None:
        async with listening(ScriptedHandler(), QUICK) as server:
            one = AttackPlan("hold", server.address[1], 2, ADDRESSES, (), 1.5)
            ends = await attack(one, [payload])
        assert set(ends) == {"closed"}
        assert ends["closed"] > 2

    asyncio.run(main())


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    folder = letters(tmp_path / "of", FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:
        return plane.gateway.loaded.contract


def test_every_attack_sends_what_its_line_says(tmp_path: Path, contract: Contract) -> None:
    folder, scratch = letters(tmp_path, FULL_RATE), tmp_path / "scratch"
    scratch.mkdir()
    target = Target(Origin("127.0.0.1", 1, tls=False), "/v2/models/letters", contract, None)
    planned = attacks(target, load_samples(folder, contract), (1, 2, 3), scratch, 1.0)
    assert {name: one.port for name, one in planned.items() if one.mechanism == "hold"} == {
        "half heads": 1,
        "half prefaces": 2,
        "idle administration": 3,
    }
    assert [Path(path).read_bytes() for path in planned["half prefaces"].payloads] == [PREFACE]
    bodies = {name: body_of(one) for name, one in planned.items() if one.mechanism == "send"}
    worst = orjson.loads(gzip.decompress(bodies["worst bodies"]))
    assert worst["inputs"][0]["shape"][0] == contract.max_rows
    invalid = orjson.loads(gzip.decompress(bodies["invalid bodies"]))
    assert len(invalid["inputs"][0]["data"]) == len(worst["inputs"][0]["data"]) + 1
    assert orjson.loads(bodies["waiting requests"])["inputs"][0]["shape"][0] == contract.max_rows
    flood = {Path(path).read_bytes() for path in planned["queue flood"].payloads}
    assert len(flood) == len(planned["queue flood"].payloads)


def body_of(one: AttackPlan) -> bytes:
    """The body of the first request that is sent, which says its length."""
    head, _, body = Path(one.payloads[0]).read_bytes().partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    assert int(length[1]) == len(body)
    return body
