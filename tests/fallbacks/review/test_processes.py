"""The review queue between processes: one is killed in the middle, two race for the last place."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from fallbacks.review.queue import ReviewQueue
from tests.support.review_cases import OPEN, a_case

CHILD = """
import asyncio, sys, time
from fallbacks.review.queue import Case, ReviewQueue
url, name, capacity, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
async def main():
    queue = ReviewQueue.open(url, capacity=capacity)
    print("ready", flush=True)
    for i in range(count):
        cases = [Case(f"{name}-{i}-{j}", "p", time.time(), 9e9, bytes(3000), "{}", "{}") for j in range(2)]
        for case, taken in zip(cases, await queue.put(cases)):
            if taken:
                print(case.id, flush=True)
    queue.close()
asyncio.run(main())
"""


def child(path: Path, name: str, capacity: int, count: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, f"sqlite:///{path}", name, str(capacity), str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_every_acknowledged_case_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with child(path, "c", 10**6, 10**6) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(60)][1:]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
    assert process.returncode == -signal.SIGKILL
    queue = ReviewQueue.open(f"sqlite:///{path}")
    found = {record.id for record in asyncio.run(queue.listing([OPEN], 10**6))}
    assert set(acknowledged) <= found
    assert len(found) % 2 == 0, "a transaction is there as a whole or not at all"
    assert asyncio.run(queue.put([a_case("after", 9e9)])) == [True]
    queue.close()


def test_processes_that_open_and_put_at_once_never_exceed_the_capacity(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    children = [child(path, name, 31, 20) for name in "ab"]
    taken = [process.communicate(timeout=30)[0].split()[1:] for process in children]
    assert [process.returncode for process in children] == [0, 0]
    queue = ReviewQueue.open(f"sqlite:///{path}")
    found = [record.id for record in asyncio.run(queue.listing([OPEN], 100))]
    assert sorted(found) == sorted(taken[0] + taken[1])
    assert len(found) == 31
    queue.close()
