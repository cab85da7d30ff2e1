"""The kinds of request that every server is sent, and the order of servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GATEWAY, BARE = "gateway", "bare"


@dataclass(frozen=True, slots=True)
class LoadCase:
    """One kind of request. connections: None, as many as the command line states."""

    name: str
    rows: int = 1
    binary: bool = False
    connections: int | None = None


LOAD_CASES = {
    case.name: case
    for case in (
        LoadCase("json1"),
        LoadCase("binary1", binary=True),
        # 8 connections, 256 rows in flight: 64 times 32 rows would miss the deadline.
        LoadCase("binary32", rows=32, binary=True, connections=8),
        LoadCase("alone", connections=1),
    )
}


def server_groups(peers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Servers that run at the same time: the gateway, the baseline if chosen, and one other peer at most.

    A peer that idles still takes memory and a little time, so no two of them ever run together.
    """
    baseline = (BARE,) if BARE in peers else ()
    others = [peer for peer in peers if peer != BARE]
    for peer in others:
        yield (GATEWAY, *baseline, peer)
    if not others:
        yield (GATEWAY, *baseline)


def interleave(group: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Round and server, interleaved: A B C, A B C, so that a machine that drifts drifts for all."""
    for number in range(rounds):
        for server in group:
            yield number, server
