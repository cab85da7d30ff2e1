"""The growth test at small sizes: it measures what it states, detects growth, ends what it starts."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from pathlib import Path

import httptools
import numpy as np
import orjson
import pytest
import uvloop

from bench.growth import server_process
from bench.growth.in_process import open_in_process
from bench.growth.interleaved import Repetitions, compare_sizes, size_costs
from bench.growth.large import LARGE_INTERVAL, with_large
from bench.growth.memory import MemoryReport, MemorySample, MemorySettings, watch
from bench.growth.part import GrowthPart, SizeFigure, measure_bytes, measure_collection
from bench.growth.principals import filled
from bench.growth.report import GrowthReport, GrowthSizes, measure_growth
from bench.growth.slope import slope
from bench.growth.tables import growth_tables, memory_table
from bench.requests import WrongInput
from gateway.access.callers import load_keys
from gateway.deployment.deployment import VAR

LETTERS = Path(__file__).parents[2] / "configs" / "letters"
SMALL = GrowthSizes((20, 300), (2, 30), (0, 30), (1, 8), (20, 300), Repetitions(3, 2))


@pytest.fixture(scope="module")
def report() -> GrowthReport:
    return uvloop.run(measure_growth(LETTERS, SMALL, lambda what: None))


def _part(report: GrowthReport, counted: str) -> GrowthPart:
    (found,) = (part for part in report.parts if part.counted == counted)
    return found


def test_every_part_measures_every_size_and_compares_with_the_first(report: GrowthReport) -> None:
    sizes = {"principals": (20, 300), "keys": (2, 30), "cases": (0, 30), "rows": (1, 8), "records": (20, 300)}
    assert {part.counted for part in report.parts} == sizes.keys()
    for part in report.parts:
        for curve in part.curves:
            assert tuple(cost.size for cost in curve.costs) == sizes[part.counted]
            assert curve.costs[0].ratio == curve.costs[0].low == curve.costs[0].high == 1.0
            assert all(cost.cpu_us > 0 and cost.low <= cost.ratio <= cost.high for cost in curve.costs)
    assert report.machine.keys() >= {"cpu", "python", "onnxruntime", "commit"}


def test_a_report_is_json_and_tables(report: GrowthReport) -> None:
    data = orjson.loads(orjson.dumps(report))
    assert [part["counted"] for part in data["parts"]] == [part.counted for part in report.parts]
    rows = [len(part.curves) * 2 + len(part.facts) for part in report.parts]
    assert [table.row_count for table in growth_tables(report)] == rows


def test_principals_and_keys_and_records_have_a_weight(report: GrowthReport) -> None:
    weights = {
        fact.what: fact.value for part in report.parts for fact in part.facts if fact.what.startswith("bytes")
    }
    assert 100 < weights["bytes a principal"] < 1000
    assert weights["bytes a key"] > 100 and weights["bytes a record"] > 100
    assert weights["bytes a record that was decided alone"] > 100


def test_a_filled_rate_guard_remembers_all_its_principals_while_they_go_on_asking() -> None:
    guard = filled(500, [])
    assert len(guard.arrival_times) == 500
    guard.charge("caller-0000007", 3)
    assert len(guard.arrival_times) == 500


def test_growth_is_detected_and_only_where_there_is_some() -> None:
    """Of made-up rounds in which the machine is now fast, now slow."""
    speed = np.random.default_rng(1).uniform(1, 10, (60, 1))
    noise = np.random.default_rng(2).normal(1, 0.02, (60, 3))
    same, twice = size_costs((1, 2, 3), speed * noise * [1.0, 1.0, 2.0], speed * noise)[1:]
    assert same.low < 1 < same.high < 1.05
    assert 1.95 < twice.low < twice.ratio < twice.high < 2.05
    assert twice.cpu_us == pytest.approx(np.median(speed * noise[:, 2:] * 2))


def test_each_size_is_called_as_often_as_planned_and_is_first_in_turn() -> None:
    order: list[int] = []
    settled: list[int] = []

    async def call(size: int) -> None:
        order.append(size)

    calls = {size: (lambda size=size: call(size)) for size in (1, 2, 3)}
    found = asyncio.run(compare_sizes(calls, Repetitions(3, 2), after=lambda: settled.append(1)))
    assert order[:3] == [1, 2, 3]  # once, before anything is measured
    assert [order[at] for at in (3, 9, 15)] == [1, 3, 2] and len(order) == 3 + 3 * 3 * 2
    assert len(settled) == 3 + 3 * 3 and [cost.size for cost in found] == [1, 2, 3]


def test_a_cost_can_be_stated_per_part() -> None:
    async def wait() -> None:
        await asyncio.sleep(0.002)

    whole, tenth = asyncio.run(compare_sizes({1: wait, 10: wait}, Repetitions(3, 1), {10: 10}))
    assert whole.wall_us >= 2000 and tenth.wall_us == pytest.approx(whole.wall_us / 10, rel=0.9)
    assert tenth.wall_us < whole.wall_us / 2


def test_a_request_that_is_not_answered_ends_the_measurement(tmp_path: Path) -> None:
    async def send_once() -> None:
        async with open_in_process(LETTERS, tmp_path) as in_process:
            good = in_process.request(in_process.served[:2], "bench")
            reply = await in_process.serve(good)
            assert orjson.loads(reply.body)["outputs"][0]["shape"] == [2, 26]
            outlier = in_process.request(np.full_like(in_process.served[:1], 7.5), "bench")
            with pytest.raises(RuntimeError, match="ended with 422"):
                await in_process.serve(outlier)

    uvloop.run(send_once())
    assert not (LETTERS / VAR / "decisions.jsonl").exists()


def test_weights_and_collections_count_what_is_kept() -> None:
    facts: list[SizeFigure] = []
    gc.collect()
    with measure_collection(1000, facts), measure_bytes(1000, "kilobyte", facts):
        kept = [bytes(1024) for _ in range(1000)]
    assert len(kept) == 1000
    weight, pause = facts
    assert (weight.what, weight.size) == ("bytes a kilobyte", 1000) and 1024 < weight.value < 1200
    assert pause.what == "more ms a full collection" and pause.value >= 0


def test_a_slope_is_found_in_correlated_noise() -> None:
    x = np.arange(0, 200_000, 1000).astype(np.float64)
    drift = np.cumsum(np.random.default_rng(3).normal(0, 50, len(x)))
    grows, flat = slope(x, 100 * x + drift), slope(x, 5e7 + np.random.default_rng(4).normal(0, 1e4, len(x)))
    assert grows.low < grows.value < grows.high and grows.value == pytest.approx(100, abs=0.1)
    assert flat.low < 0 < flat.high
    with pytest.raises(ValueError, match="at least 5"):
        slope(x[:4], x[:4])


def _body(request: bytes) -> bytes:
    """What an HTTP parser sees of a request; fails if that is not the whole of it."""
    parts: list[bytes] = []
    done: list[bool] = []

    class Seen:
        def on_body(self, body: bytes) -> None:
            parts.append(body)

        def on_message_complete(self) -> None:
            done.append(True)

    httptools.HttpRequestParser(Seen()).feed_data(request)
    assert done == [True]
    return b"".join(parts)


def test_one_request_in_two_hundred_is_large_and_every_second_of_these_too_large() -> None:
    body = orjson.dumps({"inputs": [{"name": "x", "data": [1.0]}]})
    small = b"POST /infer HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    requests = with_large([small] * 7, limit=300_000)
    assert len(requests) == 2 * LARGE_INTERVAL and sum(request != small for request in requests) == 2
    taken, refused = _body(requests[0]), _body(requests[LARGE_INTERVAL])
    assert 290_000 < len(taken) <= 300_000 < len(refused) == 1_000_000
    assert orjson.loads(taken)["inputs"] == orjson.loads(body)["inputs"]


@pytest.fixture(scope="module")
def memory() -> MemoryReport:
    return uvloop.run(
        watch(MemorySettings(LETTERS, requests=1500, connections=4, window_s=0.08), lambda sent: None)
    )


def test_a_server_of_its_own_is_watched_over_small_and_large_requests(memory: MemoryReport) -> None:
    assert memory.requests >= 1500 and not memory.failed
    assert sum(memory.ends.values()) == memory.requests
    assert memory.ends["served ok"] > 1350 and memory.ends["refused too_large"] >= 2
    assert [one.requests for one in memory.samples] == sorted({one.requests for one in memory.samples})
    assert all(10 * 2**20 < one.rss < 2**30 for one in memory.samples)
    assert memory.slope.low <= memory.slope.value <= memory.slope.high
    assert orjson.loads(orjson.dumps(memory))["samples"][0]["requests"] == 0
    assert memory_table(memory).row_count == 7


def test_the_first_fifth_is_warm_up_and_any_other_error_is_a_failure(memory: MemoryReport) -> None:
    samples = [MemorySample(sent, 1000 + sent) for sent in (0, 100, 200, 500, 1000)]
    assert replace(memory, samples=samples).warm_rss == 1200
    assert replace(memory, ends={"error: no answer in 10 s": 1}).failed


def test_the_server_always_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyError), server_process.serve_copy(LETTERS, tmp_path) as running:
        assert [key.name for key in load_keys(running.folder / VAR)] == ["bench"]
        assert running.resident_bytes() > 10 * 2**20
        raise KeyError
    assert not Path(f"/proc/{running.pid}").exists()


def test_the_log_of_a_server_that_does_not_start_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "gateway.yaml").write_text("schema: 1\nname: broken\n")
    with (
        pytest.raises(WrongInput, match="guards: is missing"),
        server_process.serve_copy(broken, tmp_path / "scratch"),
    ):
        pass
