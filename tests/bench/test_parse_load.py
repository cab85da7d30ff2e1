"""The worst bodies are let in, each for what it is said to be; the longest callback is found; percentiles."""

from __future__ import annotations

import asyncio
import time

import pytest

from bench.parse_bodies import NUMBERS, TEXTS, WorstBody, deploy, good_body, worst_bodies
from bench.parse_callers import percentiles_ms
from bench.parse_hold import Longest
from gateway.core.errors import InvalidRequest
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.grpc.codec import parse_named_grpc_infer
from gateway.http.codings import decode
from gateway.protocol.contract import Contract
from gateway.protocol.infer_request import InferRequest, parse_http_infer
from gateway.protocol.rejected import RequestRejected

VALID = {
    "JSON with most numbers",
    "JSON of long numbers",
    "gzip of 1 MiB",
    "binary, empty texts",
    "gRPC typed texts",
}


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contract]:
    folder, made = tmp_path_factory.mktemp("worst"), {}
    for name in (NUMBERS, TEXTS):
        artifacts = load_artifacts(Deployment.read(deploy(folder / name, name)))
        made[name] = artifacts.contract
        artifacts.close()
    return made


def parsed(one: WorstBody, contract: Contract) -> InferRequest:
    if one.grpc:
        return parse_named_grpc_infer(one.body, one.model, "", contract)
    headers = dict(one.headers)
    length = headers.get("inference-header-content-length")
    body = decode(one.body, headers.get("content-encoding", "identity"), contract.body_limit_bytes)
    return parse_http_infer(body, None if length is None else int(length), contract)


@pytest.mark.parametrize("one", worst_bodies(), ids=lambda one: one.name)
def test_each_worst_body_is_read_and_is_valid_or_not_as_it_says(
    contracts: dict[str, Contract], one: WorstBody
) -> None:
    contract = contracts[one.model]
    assert len(one.body) <= contract.body_limit_bytes
    if one.name in VALID:
        assert parsed(one, contract).rows == 1
    else:
        with pytest.raises((InvalidRequest, RequestRejected)):
            parsed(one, contract)


def test_the_good_caller_sends_a_valid_row(contracts: dict[str, Contract]) -> None:
    assert parse_http_infer(good_body(), None, contracts[NUMBERS]).rows == 1


def test_the_longest_callback_is_that_of_the_loop_that_computes_and_not_of_one_that_sleeps() -> None:
    longest = Longest()

    async def main() -> None:
        await asyncio.sleep(0)
        begun_s = time.thread_time()
        while time.thread_time() - begun_s < 0.05:
            pass
        await asyncio.sleep(0.2)

    with longest.watching():
        asyncio.run(main())
    assert 0.05 <= longest.seconds < 0.15


def test_percentiles_are_in_milliseconds() -> None:
    assert list(percentiles_ms([0.001] * 99 + [1.0])) == pytest.approx([1.0, 1.0 + 0.01 * 999])
