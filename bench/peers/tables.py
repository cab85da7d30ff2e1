"""A comparison as tables, with warnings of what may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from rich.table import Table

from bench.curve import REFUSED
from bench.peers.compare import ServerRound
from bench.peers.measure import Round
from bench.peers.ratios import MedianWithRange
from bench.peers.results import Comparison, PeerResults

BUSY = 0.9


def peer_tables(results: PeerResults) -> Iterator[Table | str]:
    """One table a case, then the ratios, then warnings."""
    for case in dict.fromkeys(one.case for one in results.turns):
        yield _case(case, [one for one in results.turns if one.case == case])
    yield _ratios(results.beside)
    yield from _warnings(results.turns)


def _case(case: str, turns: Sequence[ServerRound]) -> Table:
    table = _table(f"{case}: medians over the rounds", "server")
    columns = "rounds", "requests/s", "rows/s", "answered", "p50 ms", "p99 ms", "CPU us/request", "RSS MiB"
    checked = any(one.round.wrk_per_s for one in turns)
    for name in (*columns, *(("wrk requests/s",) if checked else ())):
        table.add_column(name, justify="right")
    for server in dict.fromkeys(one.server for one in turns):
        rounds = [one.round for one in turns if one.server == server]
        table.add_row(server, str(len(rounds)), *_medians(rounds, checked))
    return table


def _medians(rounds: Sequence[Round], checked: bool) -> Iterator[str]:
    yield f"{median(one.requests_per_s for one in rounds):.0f}"
    yield f"{median(one.rows_per_s for one in rounds):.0f}"
    yield f"{median(one.answered for one in rounds):.1%}"
    yield f"{median(one.p50_ms for one in rounds):.2f}"
    yield f"{median(one.p99_ms for one in rounds):.2f}"
    yield f"{median(one.cpu_us for one in rounds):.0f}"
    yield f"{median(one.rss_mb for one in rounds):.0f}"
    if checked:
        yield f"{median(one.wrk_per_s or 0.0 for one in rounds):.0f}"


def _ratios(found: Sequence[Comparison]) -> Table:
    table = _table("the gateway beside each: gateway / peer, median (least to greatest)", "case")
    table.add_column("peer", no_wrap=True)
    for name in ("pairs", "requests/s", "p99", "CPU a request", "added p50 ms"):
        table.add_column(name, justify="right")
    for one in found:
        spans = (_span(span) for span in (one.throughput, one.p99, one.cpu, one.added_p50_ms))
        table.add_row(one.case, one.peer, str(one.pairs), *spans)
    return table


def _warnings(turns: Sequence[ServerRound]) -> Iterator[str]:
    for one in turns:
        where = f"[yellow]{one.case}, {one.server}, round {one.number + 1}:[/]"
        if one.round.errors:
            yield f"{where} errors {one.round.errors}"
        if refused := {how: n for how, n in one.round.ended.items() if how.startswith(REFUSED)}:
            yield f"{where} of {one.round.requests} requests {refused}: it was asked for more than it can do"
        if one.round.generator_busy > BUSY:
            yield f"{where} the generator used {one.round.generator_busy:.0%} of a core: it may be the limit"


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    return table


def _span(span: MedianWithRange) -> str:
    return f"{span.median:.2f} ({span.low:.2f} to {span.high:.2f})"
