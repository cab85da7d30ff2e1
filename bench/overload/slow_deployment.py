"""A deployment whose only model is the slow one, in a server of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.client import Origin
from bench.overload.slow_model import COLUMNS, NAME
from bench.peers.process import free_port, running
from bench.peers.verify import wait_until_ready
from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import Deployment

CALIBRATION_ROWS, SAMPLES = 600, 256
POLICY = """\
schema: 1
name: {name}
deadline_s: 0.5
false_alarm_budget: 0.05
answered_error: 0.1
guards:
  - {{name: rate, kind: rate, per_s: 1000000, burst: 1000000, budget_s: 0.01, on_error: allow}}
rungs:
  - name: primary
    model: {{kind: oip, url: "{url}", model: {name}}}
    budget_s: 0.25
    checks: [{{name: sure, kind: confidence, selective_error: 0.1, budget_s: 0.02, on_error: degrade}}]
review:
  store: "sqlite:///var/review.db"
  capacity: 1000000
  expire_after_s: 86400
  on_expire: refuse
  budget_s: 0.2
expose: [probabilities]
disclosure: {{trusted: full}}
serving: {{max_batch_rows: 32}}
"""


@contextmanager
def slow_deployment(work: Path, cores: frozenset[int]) -> Iterator[Path]:
    """The folder of a calibrated deployment, and its model's server on these cores while the block runs.

    Cost: some seconds for calibration.
    """
    origin, folder = Origin("127.0.0.1", free_port(), tls=False), work / NAME
    folder.mkdir(parents=True)
    log = work / "model.log"
    command = [sys.executable, "-m", "bench.overload.slow_model", str(origin.port)]
    with running(command, {}, cores, log) as child:
        request = f"GET /v2 HTTP/1.1\r\nhost: {origin.authority}\r\n\r\n".encode()
        wait_until_ready("the slow model", child, origin, request, log)
        policy = POLICY.format(name=NAME, url=f"http://{origin.authority}")
        (folder / "gateway.yaml").write_text(policy, encoding="utf-8")
        y = np.arange(CALIBRATION_ROWS) % 2
        x = np.repeat(y[:, None], COLUMNS, 1).astype(np.float32)
        np.savez(work / "rows.npz", x=x, y=y, group=np.arange(len(y)))
        calibrate(Deployment.read(folder), work / "rows.npz")
        np.savez(folder / "samples.npz", x=x[:SAMPLES])
        yield folder
