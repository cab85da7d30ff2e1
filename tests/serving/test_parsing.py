"""Large bodies in the parser process: the same requests as here, light callers first, and what may fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from gateway.access.metering import FAILURE_S, INVALID_FACTOR, ParseMeter
from gateway.core.decision import Reason, Refused
from gateway.core.errors import InvalidRequest
from gateway.protocol.endings import Rejection
from gateway.protocol.infer_request import parse_http_infer
from gateway.protocol.rejected import RequestRejected
from gateway.serving import parsing as parsing_module
from gateway.serving.parsing import LargeBody, Parsing
from tests.support.deployments import run
from tests.support.wire_parts import contract_of, json_request, same_bits, spec_of

SPEC = spec_of("FP64", (None, None))
CONTRACT = contract_of(SPEC)
WAIT_S = 60.0


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Parsing, ParseMeter]]:
    meter = ParseMeter()
    parsing = Parsing(meter)
    try:
        yield parsing, meter
    finally:
        parsing.close()


def how(coding: str = "identity", limit: int = 2**23) -> dict[str, Any]:
    return {"form": "http", "coding": coding, "limit": limit, "header_length": None}


def large(principal: str, values: int = 20_000, body: bytes | None = None) -> LargeBody:
    array = np.random.default_rng(values).normal(size=(1, values))
    return LargeBody(principal, CONTRACT, how(), body or json_request({SPEC: array})[0])


def refusal_of(error: BaseException | object) -> Reason:
    assert isinstance(error, RequestRejected)
    assert isinstance(error.end, Refused)
    return error.end.reason


def test_the_process_reads_what_is_read_here_and_charges_the_caller() -> None:
    one = large("ada")

    async def main() -> None:
        async with opened() as (parsing, meter):
            parsed = await parsing.parse(one, WAIT_S)
            here = parse_http_infer(one.body, None, CONTRACT)
            assert same_bits(parsed.inputs["x"], here.inputs["x"])
            assert parsed.outputs == here.outputs
            assert meter.rank("ada") > (0.0, 0.0) == meter.rank("bob")
            assert meter.refusal("ada") is None

    run(main)


def test_problems_and_rejections_come_back_and_cost_more() -> None:
    async def main() -> None:
        async with opened() as (parsing, meter):
            valid = large("ada")
            await parsing.parse(valid, WAIT_S)
            with pytest.raises(InvalidRequest, match="not JSON"):
                await parsing.parse(large("bob", body=valid.body[:-1]), WAIT_S)
            with pytest.raises(RequestRejected) as caught:
                too_long = LargeBody("eve", CONTRACT, how(limit=1000), valid.body)
                await parsing.parse(too_long, WAIT_S)
            assert caught.value.end is Rejection.TOO_LARGE
            assert meter.rank("eve") > (0.0, 0.0)

    run(main)


def test_a_light_caller_goes_before_the_bodies_of_a_heavy_one_that_waited_longer() -> None:
    async def main() -> None:
        async with opened() as (parsing, meter):
            await parsing.parse(large("warm", 10), WAIT_S)
            meter.charge_valid("heavy", 10.0)
            done: list[str] = []

            async def ask(name: str) -> None:
                await parsing.parse(large(name), WAIT_S)
                done.append(name)

            async with asyncio.TaskGroup() as group:
                for name in ("heavy", "heavy", "heavy", "light"):
                    group.create_task(ask(name))
            assert done.index("light") == 0

    run(main)


def test_a_caller_alone_is_never_refused_for_what_its_valid_bodies_cost() -> None:
    async def main() -> None:
        async with opened() as (parsing, _):
            parsed = await asyncio.gather(*(parsing.parse(large("ada"), WAIT_S) for _ in range(40)))
            assert [one.rows for one in parsed] == [1] * 40

    run(main)


def test_beyond_the_memory_for_waiting_bodies_the_last_of_the_heaviest_caller_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = len(large("ada").body)
    monkeypatch.setattr(parsing_module, "WAITING_BYTES", 3 * size + size // 2)

    async def main() -> None:
        async with opened() as (parsing, meter):
            meter.charge_valid("heavy", 10.0)
            names = ["heavy", "heavy", "heavy", "light", "light"]
            asked = [asyncio.ensure_future(parsing.parse(large(name), WAIT_S)) for name in names]
            ends = await asyncio.gather(*asked, return_exceptions=True)
            refused = [i for i, end in enumerate(ends) if isinstance(end, RequestRejected)]
            assert refused == [1, 2]
            assert {refusal_of(ends[i]) for i in refused} == {Reason.RATE_LIMITED}

    run(main)


def test_a_body_whose_turn_does_not_come_in_time_ends_at_the_deadline() -> None:
    async def main() -> None:
        async with opened() as (parsing, meter):
            meter.charge_valid("late", 10.0)
            first = asyncio.ensure_future(parsing.parse(large("first", 200_000), WAIT_S))
            await asyncio.sleep(0)
            with pytest.raises(RequestRejected) as caught:
                await parsing.parse(large("late"), 0.0)
            assert refusal_of(caught.value) is Reason.DEADLINE
            assert (await first).rows == 1

    run(main)


def test_a_caller_that_stops_waiting_leaves_the_queue() -> None:
    async def main() -> None:
        async with opened() as (parsing, _):
            asked = [asyncio.ensure_future(parsing.parse(large("ada"), WAIT_S)) for _ in range(3)]
            await asyncio.sleep(0)
            asked[0].cancel()
            asked[2].cancel()
            ends = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(end) for end in ends[::2]] == [asyncio.CancelledError] * 2
            assert (await parsing.parse(large("ada"), WAIT_S)).rows == 1

    run(main)


def test_a_process_that_ends_costs_its_caller_one_body_and_another_one_follows() -> None:
    async def main() -> None:
        async with opened() as (parsing, meter):
            await parsing.parse(large("ada"), WAIT_S)
            process = parsing._process._process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            with pytest.raises(RequestRejected) as caught:
                await parsing.parse(large("eve"), WAIT_S)
            assert refusal_of(caught.value) is Reason.UNAVAILABLE
            assert meter.rank("eve")[0] == pytest.approx(INVALID_FACTOR * FAILURE_S, rel=0.05)
            assert (await parsing.parse(large("ada"), WAIT_S)).rows == 1
            again = parsing._process._process
            assert again is not None
            assert again.pid != process.pid

    run(main)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_with_the_gateway_and_not_with_its_signals(number: signal.Signals) -> None:
    """Ctrl-C reaches both, and the gateway still answers what is under way."""

    async def main() -> None:
        async with opened() as (parsing, _):
            await parsing.parse(large("ada"), WAIT_S)
            process = parsing._process._process
            assert process is not None
            os.kill(process.pid, number)
            assert (await parsing.parse(large("ada"), WAIT_S)).rows == 1
        assert process.poll() is not None, "it is ended and waited for"

    run(main)


def test_what_waits_at_the_end_is_refused() -> None:
    async def main() -> None:
        async with opened() as (parsing, _):
            asked = [asyncio.ensure_future(parsing.parse(large("ada"), WAIT_S)) for _ in range(3)]
            await asyncio.sleep(0)
            parsing.close()
            ends = await asyncio.gather(*asked, return_exceptions=True)
            assert {refusal_of(end) for end in ends} == {Reason.UNAVAILABLE}

    run(main)
