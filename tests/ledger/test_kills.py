"""Replicas and Redis are killed under load; what all of them admitted is counted against the bound."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import pytest

from tests.ledger.spender import LIMIT, REPLICAS, SLICES
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
RUNS_S = 6.0


class Spender:
    def __init__(self, url: str, on_error: str) -> None:
        self.counts: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when it is read
        command = [sys.executable, "-m", "tests.ledger.spender", url, on_error]
        self.process = subprocess.Popen(command, stdout=self.counts, cwd=ROOT)

    def kill(self) -> int:
        """What it had admitted."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.counts.seek(0)
        lines = self.counts.read().split("\n")[:-1]
        self.counts.close()
        return int(lines[-1]) if lines else 0


@pytest.mark.parametrize("on_error", ["allow", "refuse"])
def test_killed_replicas_and_a_killed_ledger_admit_no_more_than_the_bound(
    tmp_path: Path, on_error: str
) -> None:
    server, rng = RedisServer(tmp_path), random.Random(3)
    spenders = [Spender(server.url, on_error) for _ in range(REPLICAS)]
    lives, admitted, began_s, gone_s = REPLICAS, 0, time.monotonic(), 0.0
    while time.monotonic() < began_s + RUNS_S:
        time.sleep(0.7)
        which = rng.randrange(REPLICAS)
        admitted += spenders[which].kill()
        spenders[which] = Spender(server.url, on_error)
        lives += 1
        if rng.random() < 0.5:
            server.kill()
            killed_s = time.monotonic()
            time.sleep(0.3)
            server.start()
            gone_s += time.monotonic() - killed_s
    admitted += sum(one.kill() for one in spenders)
    length_s = time.monotonic() - began_s
    server.kill()
    slice_, initial = SLICES.of_burst * LIMIT.burst, SLICES.initial_of_burst * LIMIT.burst
    bound = LIMIT.burst + LIMIT.per_s * length_s + REPLICAS * slice_ + lives * initial
    if on_error == "allow":
        bound += LIMIT.per_s * (gone_s + lives * 1.0)  # until a replica knows that the ledger is back
    figures = f"{on_error}: {admitted} of at most {bound:.0f} in {length_s:.1f} s, {lives} lives"
    sys.stderr.write(f"{figures}\n")  # with -s
    assert admitted <= bound, figures
    assert admitted >= 0.05 * LIMIT.per_s * length_s, "they were served meanwhile"
