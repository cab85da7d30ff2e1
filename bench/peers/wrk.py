"""The same load by wrk, a generator in C, to cross-check throughput. Its latencies are ignored."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from bench.load import LoadPlan
from bench.peers.process import on_cores
from bench.requests import WrongInput

SCRIPT = """
local requests, file, at = {{}}, assert(io.open({path!r}, "rb")), 0
for size in ({sizes!r}):gmatch("%d+") do requests[#requests + 1] = file:read(tonumber(size)) end
file:close()
function request()
    at = at % #requests + 1
    return requests[at]
end
"""
RATE_LINE = re.compile(r"^Requests/sec:\s*([0-9.]+)", re.MULTILINE)


def wrk_is_missing() -> bool:
    """Whether wrk is not installed."""
    return shutil.which("wrk") is None


def wrk(plan: LoadPlan, work: Path, cores: frozenset[int]) -> float:
    """Requests a second. Raises WrongInput where it did not work, or a peer answered without success.

    The gateway also answers without success, for the rows that it defers.
    """
    bodies, script = work / "requests.bin", work / "requests.lua"
    bodies.write_bytes(b"".join(plan.requests))
    sizes = " ".join(str(len(request)) for request in plan.requests)
    script.write_text(SCRIPT.format(path=str(bodies), sizes=sizes), encoding="utf-8")
    url = f"http://{plan.origin.authority}/"
    how = ["-t1", f"-c{plan.connections}", f"-d{max(1, round(plan.seconds))}s"]
    with on_cores(cores):
        command = ["wrk", *how, "-s", str(script), url]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    found = RATE_LINE.search(done.stdout)
    if found is None or done.stderr or (plan.peer and "Non-2xx" in done.stdout):
        raise WrongInput(f"wrk says: {done.stdout} {done.stderr}")
    return float(found[1])
