"""A gateway with a guard of kind `queries`: a search by near rows, on the models of configs/letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest

from gateway.core.decision import Decision, Deferred, Degraded, Refused, Served
from gateway.serving.gateway import Gateway
from tests.support.deployments import (
    FULL_RATE,
    Rows,
    batch_of,
    clean_rows,
    edit,
    letters,
    opened,
    record_of,
    run,
)
from tests.support.served import near_rows

SEARCHER = "ada"


async def ask(gateway: Gateway, rows: Rows, who: str = SEARCHER) -> list[Decision]:
    """Each row in a request of its own, as a search asks them."""
    return [
        (await gateway.decide(batch_of(rows[i : i + 1], who, name=f"q{i}-")))[0] for i in range(len(rows))
    ]


def findings(decisions: Sequence[Decision], stage: str) -> list[float | None]:
    return [one.score for decision in decisions for one in decision.findings if one.stage == stage]


def deferred(decision: Decision) -> bool:
    return isinstance(decision.outcome, Deferred)


def output(decision: Decision) -> list[float]:
    assert isinstance(decision.outcome, (Served, Degraded))
    return [float(one) for one in decision.outcome.output["probabilities"][0]]


def test_a_search_is_noticed_and_then_learns_nothing_from_small_steps(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, (", coarsen: 100000", ""))

    async def main() -> None:
        async with opened(folder) as gateway:
            ends = await ask(gateway, near_rows(clean_rows(1)))
            assert findings(ends, "queries.replayed")
            honest = await ask(gateway, near_rows(clean_rows(1), seed=9)[:1], "bob")
            assert not findings(honest, "queries.replayed")
            for i, end in enumerate(ends):
                if findings([end], "queries.replayed"):
                    assert output(end) in [output(one) for one in ends[:i] if not deferred(one)]

    run(main)


def test_honest_rows_of_many_callers_are_answered_as_without_the_guard(tmp_path: Path) -> None:
    rows = clean_rows(200)

    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            ends = [await ask(gateway, rows[i::4], f"caller{i}") for i in range(4)]
            told = [decision for some in ends for decision in some]
            assert not findings(told, "queries.replayed") and not findings(told, "queries.coarsened")
            assert max(score or 0.0 for score in findings(told, "queries")) < 1000

    run(main)


def test_a_repeated_batch_is_no_evidence_and_gets_the_same_answers(tmp_path: Path) -> None:
    """A job that sends yesterday's rows again."""
    rows = clean_rows(100)

    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            first = await gateway.decide(batch_of(rows))
            again = await gateway.decide(batch_of(rows))
            for one, other in zip(first, again, strict=True):
                assert type(one.outcome) is type(other.outcome)
                if isinstance(one.outcome, (Served, Degraded)):
                    assert output(one) == pytest.approx(output(other), abs=1e-6)
            assert max(score or 0.0 for score in findings(again, "queries")) < 1000

    run(main)


def test_a_policy_that_says_so_defers_and_then_refuses_a_searcher(tmp_path: Path) -> None:
    cuts = ("{replay: 1000, coarsen: 100000}", "{replay: 10, defer: 100, refuse: 1.0e+12}")
    rows = np.concatenate([clean_rows(24), near_rows(clean_rows(1))])

    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE, cuts)) as gateway:
            ends = await ask(gateway, rows)
            assert any(deferred(end) for end in ends)
            reasons = {str(end.outcome.reason) for end in ends if isinstance(end.outcome, Refused)}
            assert reasons == {"rate_limited"}

    run(main)


def test_where_it_is_only_observed_every_row_has_its_own_answer_and_the_log_says_what_it_would_get(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path, FULL_RATE, ("kind: queries\n", "kind: queries\n    enforce: false\n"))

    async def main() -> None:
        async with opened(folder) as gateway:
            rows = near_rows(clean_rows(1))
            ends = await ask(gateway, rows)
            assert findings(ends, "queries.replayed")
            answered = [i for i, end in enumerate(ends) if isinstance(end.outcome, (Served, Degraded))]
            again = await ask(gateway, rows[answered], "bob")
            for i, other in zip(answered, again, strict=True):
                assert output(ends[i]) == pytest.approx(output(other), abs=1e-6)

    run(main)


def test_a_reload_forgets_queries_and_answers(tmp_path: Path) -> None:
    """The answers of another policy are not given again."""
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with opened(folder) as gateway:
            await ask(gateway, near_rows(clean_rows(1)))
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            (end,) = await ask(gateway, near_rows(clean_rows(1), 1))
            assert findings([end], "queries")[0] == pytest.approx(1.0, rel=0.5)
            assert not findings([end], "queries.replayed")

    run(main)


def test_what_was_given_is_in_the_audit_log_and_in_the_metrics(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> str:
        async with opened(folder) as gateway:
            for i, decision in enumerate(await ask(gateway, near_rows(clean_rows(1)))):
                gateway.record(record_of(decision, name=f"d{i}"))
            gateway.audit.drain()
            return gateway.telemetry.prometheus().decode()

    text = run(main)
    assert 'stage="queries.replayed"' in text
    lines = [
        line for log in (folder / "var").glob("decisions-*.jsonl") for line in log.read_text().splitlines()
    ]
    assert any("queries.replayed" in line for line in lines)
    assert all(orjson.loads(line) for line in lines)
