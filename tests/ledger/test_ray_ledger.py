"""A ledger in an actor of a real Ray: one for all who ask, and back with its debts after it was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys
from pathlib import Path
import gateway.app  # sets what Ray reads when it is imported: a token, loopback
import ray
from gateway.ledger.ledger import Batch, Want
from gateway.ledger.open_ledger import open_ledger
from gateway.ledger.ray_ledger import NAME

gateway.app._start_no_dashboard()
ray.init(include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False, num_cpus=1,
         logging_level="ERROR", _node_ip_address="127.0.0.1", _temp_dir=sys.argv[2], namespace="test")

async def main():
    one, other = (open_ledger("ray", Path(sys.argv[1])) for _ in range(2))
    want = Want(b"k" * 16, 5.0, 0.0, 1.0, 1000.0)
    owes = want._replace(owed=500.0, units=0.0)
    first = await one.lease(Batch(b"a" * 16, 1, (owes,)))
    second = await other.lease(Batch(b"b" * 16, 1, (want,)))
    print("shared", abs(second[0].left - first[0].left) < 60)
    ray.kill(ray.get_actor(NAME), no_restart=False)
    for number in range(1, 200):
        try:
            third = await asyncio.wait_for(one.lease(Batch(b"c" * 16, number, (want,))), 5)
            break
        except Exception:  # it is being restarted
            await asyncio.sleep(0.3)
    print("kept", third[0].units == 0 and third[0].left < second[0].left + 100)

asyncio.run(main())
ray.shutdown()
"""


@pytest.mark.ray
def test_one_actor_for_all_keeps_its_debts_when_it_is_killed(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as session:  # paths of sockets are short
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "state"), session]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split("\n")[:2] == ["shared True", "kept True"], done.stdout + done.stderr
