"""All figures of a comparison, as plain data for the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from bench.machine import machine
from bench.peers.compare import ServerRound, Settings
from bench.peers.environment import versions
from bench.peers.launch import SERVERS_BY_NAME
from bench.peers.load_cases import GATEWAY
from bench.peers.measure import Round
from bench.peers.ratios import MedianWithRange, differences, ratios


@dataclass(frozen=True, slots=True)
class Comparison:
    """The gateway beside one peer in one case: ours over theirs, over the pairs of rounds.

    added_p50_ms: ours less theirs.
    """

    case: str
    peer: str
    pairs: int
    throughput: MedianWithRange
    p99: MedianWithRange
    cpu: MedianWithRange
    added_p50_ms: MedianWithRange


@dataclass(frozen=True, slots=True)
class PeerResults:
    """Everything. machine: with the commit. The cores are those that were allowed."""

    machine: dict[str, str]
    versions: dict[str, dict[str, str]]
    rounds: int
    seconds: float
    warm_up_s: float
    connections: int
    outliers: float
    server_cores: list[int]
    generator_cores: list[int]
    beside: list[Comparison]
    turns: list[ServerRound]

    @classmethod
    def of(cls, settings: Settings, turns: Sequence[ServerRound]) -> Self:
        return cls(
            machine=machine(),
            versions={name: versions(SERVERS_BY_NAME[name].python()) for name in (GATEWAY, *settings.peers)},
            rounds=settings.rounds,
            seconds=settings.seconds,
            warm_up_s=settings.warm_up_s,
            connections=settings.connections,
            outliers=settings.outliers,
            server_cores=sorted(settings.server_cores),
            generator_cores=sorted(settings.generator_cores),
            beside=beside(turns),
            turns=list(turns),
        )


def beside(turns: Sequence[ServerRound]) -> list[Comparison]:
    """Each peer in each case, compared with the gateway in the same group and round."""
    ours = {(one.case, one.group, one.number): one.round for one in turns if one.server == GATEWAY}
    theirs = dict.fromkeys((one.case, one.server) for one in turns if one.server != GATEWAY)
    return [_compare_with_peer(case, peer, turns, ours) for case, peer in theirs]


def _compare_with_peer(
    case: str, peer: str, turns: Sequence[ServerRound], ours: dict[tuple[str, str, int], Round]
) -> Comparison:
    found = [one for one in turns if (one.case, one.server) == (case, peer)]
    pairs = [(ours[one.case, one.group, one.number], one.round) for one in found]
    a, b = [a for a, _ in pairs], [b for _, b in pairs]
    return Comparison(
        case=case,
        peer=peer,
        pairs=len(pairs),
        throughput=ratios([one.requests_per_s for one in a], [one.requests_per_s for one in b]),
        p99=ratios([one.p99_ms for one in a], [one.p99_ms for one in b]),
        cpu=ratios([one.cpu_us for one in a], [one.cpu_us for one in b]),
        added_p50_ms=differences([one.p50_ms for one in a], [one.p50_ms for one in b]),
    )
