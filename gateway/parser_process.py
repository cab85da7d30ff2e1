"""The process that decodes and parses large bodies for one replica, so that its event loop does not.

    python -m gateway.parser_process FD

FD is a socket to the gateway: a job comes, its reply goes (`protocol/parse_frames.py`), until the gateway
closes it. The process has a lower priority than the gateway and bounded memory. A body that would need more
ends the process, and the gateway starts another.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import time
from functools import lru_cache, partial
from typing import Any, BinaryIO

import orjson

from gateway.grpc.codec import parse_named_grpc_infer
from gateway.http.codings import decode
from gateway.protocol.contract import Contract
from gateway.protocol.infer_request import InferRequest, parse_http_infer
from gateway.protocol.parse_frames import PREFIX, parsed_frame, read_contract

NICENESS = 5
MEMORY_BYTES = 2**30
"""Of address space: the costliest body that is allowed takes 0.4 GiB."""


def main() -> None:
    """Replies to jobs until the gateway closes the socket."""
    for ended_by_the_gateway in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ended_by_the_gateway, signal.SIG_IGN)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with socket.socket(fileno=int(sys.argv[1])) as gateway, gateway.makefile("rb") as jobs:
        while (job := _next_job(jobs)) is not None:
            gc.disable()  # or it would run through millions of parsed values again and again
            for part in parsed_frame(partial(_parse, *job), partial(_cpu_s_since, time.process_time())):
                gateway.sendall(part)
            del job, part
            gc.enable()


def _cpu_s_since(begun_s: float) -> float:
    return time.process_time() - begun_s


def _next_job(jobs: BinaryIO) -> tuple[bytes, bytes] | None:
    """The header and body of the next job; None once the gateway has closed the socket."""
    prefix = jobs.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header_size, body_size = PREFIX.unpack(prefix)
    return jobs.read(header_size), jobs.read(body_size)


def _parse(header: bytes, body: bytes) -> InferRequest:
    """The request in a job's body. Raises InvalidRequest and RequestRejected."""
    job: dict[str, Any] = orjson.loads(header)
    body = body[: job["body_bytes"]]
    contract = _contract(orjson.dumps(job["contract"]))
    if job["form"] == "grpc":
        return parse_named_grpc_infer(body, job["model"], job["version"], contract)
    return parse_http_infer(decode(body, job["coding"], job["limit"]), job["header_length"], contract)


@lru_cache(maxsize=16)
def _contract(header: bytes) -> Contract:
    return read_contract(orjson.loads(header))


if __name__ == "__main__":
    main()
