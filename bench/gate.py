"""The regression gate of CI, `python -m bench.gate`: the gateway over the baseline server `bare`, in ratios.

Ratios of one run only, and a third less is allowed: CI's machine is shared, and slower in one minute than in
another. What the gate catches is a change that makes a request half as expensive again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson

from bench.peers.compare import Settings, compare_servers
from bench.peers.load_cases import BARE, LOAD_CASES
from bench.peers.results import PeerResults

LOAD_CASE = "binary1"
COMMITTED = Path(__file__).parent / "results" / "peers_bare.json"
ALLOWED_DROP = 1 / 3


def committed_ratio(path: Path) -> float:
    """The gateway's throughput over the baseline's, as committed."""
    found = [
        b for b in orjson.loads(path.read_bytes())["beside"] if (b["case"], b["peer"]) == (LOAD_CASE, BARE)
    ]
    return float(found[0]["throughput"]["median"])


def holds(ratio: float, committed: float) -> bool:
    """Whether a measured ratio is no regression; NaN is one."""
    return ratio >= committed * (1 - ALLOWED_DROP)


def main() -> int:
    """Measures for a quarter of a minute, and prints the verdict."""
    all_cores = frozenset(os.sched_getaffinity(0))
    settings = Settings(
        folder=Path("configs/fashion"),
        peers=(BARE,),
        cases=(LOAD_CASES[LOAD_CASE],),
        rounds=3,
        seconds=2.0,
        warm_up_s=0.5,
        connections=64,
        outliers=0.0,
        server_cores=all_cores,
        generator_cores=all_cores,
        wrk=False,
    )
    ratio = PeerResults.of(settings, list(compare_servers(settings))).beside[0].throughput.median
    committed = committed_ratio(COMMITTED)
    good = holds(ratio, committed)
    verdict = "no regression" if good else "a regression"
    print(
        f"{LOAD_CASE}, over {BARE}: {ratio:.2f}, committed {committed:.2f}, a third less allowed: {verdict}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
