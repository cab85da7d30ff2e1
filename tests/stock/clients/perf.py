"""perf_analyzer against a running gateway, holding every answer to onnxruntime's: `python perf.py FOLDER`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from cases import CASE_WITHIN_S, Case, Target, hold, same, target, walk

PROGRAM = Path(sys.executable).with_name("perf_analyzer")
REQUESTS = 40
WAYS: dict[str, dict[str, list[str]]] = {
    "http": {
        "binary": [],
        "JSON": ["--input-tensor-format", "json", "--output-tensor-format", "json"],
        "callbacks": ["--async"],
    },
    "grpc": {
        "plain": [],
        "gzip": ["--grpc-compression-algorithm", "gzip"],
        "deflate": ["--grpc-compression-algorithm", "deflate"],
        "callbacks": ["--async"],
    },
}


async def measure(on: Target, protocol: str, data: Path, *flags: str) -> tuple[int, str]:
    """The exit code and everything that was printed."""
    command = [str(PROGRAM), "-m", on.model, "-i", protocol, "-u", on.http if protocol == "http" else on.grpc]
    command += ["--input-data", str(data), "--request-count", str(REQUESTS), "--concurrency-range", "2", "-v"]
    command += flags
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        output, _ = await asyncio.wait_for(child.communicate(), CASE_WITHIN_S - 2)
    except TimeoutError:
        child.kill()
        raise
    return int(child.returncode or 0), output.decode()


async def measures(on: Target, protocol: str, data: Path, *flags: str) -> None:
    """It finds what it needs, sends every request, gets the right answers and the server's own statistics."""
    code, output = await measure(on, protocol, data, *flags)
    hold(code == 0 and f"Request count: {REQUESTS}" in output, f"ended with {code}: {output[-300:]}")
    hold("Inference count:" in output, f"no statistics of the server: {output[-300:]}")


async def notices(on: Target, protocol: str, data: Path, *flags: str) -> None:
    code, output = await measure(on, protocol, data, *flags)
    same("exit code", code != 0, True)
    hold("Output doesn't match expected output" in output, output[-300:])


def written(on: Target, to: Path, expected: np.ndarray | None) -> Path:
    """Rows in perf_analyzer's own form, with the answers that it is to hold the gateway to, if any."""
    document = {"data": [{on.input: row.ravel().tolist()} for row in on.rows]}
    if expected is not None:
        document["validation_data"] = [{on.output: row.ravel().tolist()} for row in expected]
    to.write_text(json.dumps(document))
    return to


def cases(on: Target, folder: Path) -> Iterator[Case]:
    """One row a request, held to the answers bit for bit, and four, which it can only hold to one answer."""
    right = written(on, folder / "right.json", on.expected)
    plain = written(on, folder / "plain.json", None)
    wrong = written(on, folder / "wrong.json", np.roll(on.expected, 1, axis=1))
    key = ("-H", f"x-api-key:{on.key}")
    for protocol, ways in WAYS.items():
        for name, flags in ways.items():
            for rows, data in (("1", right), ("4", plain)):
                case = partial(measures, on, protocol, data, *key, "-b", rows, *flags)
                yield f"{protocol}, {name}, {rows} rows a request", case
        curl = partial(measures, on, protocol, right, "-H", f"x-api-key: {on.key}")
        yield f"{protocol}, the key written as for curl, with a space", curl
        yield f"{protocol}: a wrong answer is noticed", partial(notices, on, protocol, wrong, *key)


async def main() -> None:
    on = target()
    with tempfile.TemporaryDirectory() as folder:
        await walk(cases(on, Path(folder)))


asyncio.run(main())
