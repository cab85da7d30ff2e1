"""The parser process as a replica holds it: started for its first body, and again after it has ended.

Why a process: parsing JSON and protobuf holds the interpreter's lock, so that a thread would take the event
loop as much time as the loop itself. 8 MB of JSON numbers take 0.3 s. Why one: it takes no more than one core
from what the other callers need, and memory for one body at a time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gateway.core.errors import GatewayError
from gateway.protocol.parse_frames import PREFIX

REPLY_WITHIN_S = 30.0
"""A process that takes longer for one body, at its low priority, is ended."""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""Of the process: no token of ours is in it, since what callers send is parsed there."""
COMMAND = (sys.executable, "-P", "-m", "gateway.parser_process")


class ParserFailed(GatewayError):
    """The process ended, or took too long."""


class ParserProcess:
    """For one thread at a time, but for `kill`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def exchange(self, job: Sequence[bytes | memoryview]) -> tuple[dict[str, Any], memoryview]:
        """The header and payload of the reply to one job. Blocks. Raises ParserFailed.

        Cost: 0.3 ms for a job of 64 KiB, besides the parsing; 0.4 s for the first.
        """
        try:
            own = self._socket or self._start()
            for part in job:
                own.sendall(part)
            header_size, payload_size = PREFIX.unpack(_receive(own, PREFIX.size))
            header = orjson.loads(_receive(own, header_size))
            return header, _receive(own, payload_size)
        except (OSError, ValueError) as error:
            self.close()
            raise ParserFailed(f"{type(error).__name__}: {error}") from error

    def kill(self) -> None:
        """Ends the process, so that an exchange under way fails at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends the process and waits for that. Idempotent."""
        if self._process is not None and self._socket is not None:
            self._ended()
        self._process = self._socket = None

    def _start(self) -> socket.socket:
        own, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(  # noqa: S603 (its own interpreter and package)
                [*COMMAND, str(its.fileno())],
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=ENVIRONMENT | {"PYTHONPATH": _module_paths()},
            )
        own.settimeout(REPLY_WITHIN_S)
        self._socket = own
        self._ended = weakref.finalize(self, _end, self._process, own)
        return own


def _module_paths() -> str:
    """Where this process finds its modules, this package first: the other one runs the same code."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])


def _end(process: subprocess.Popen[bytes], own: socket.socket) -> None:
    own.close()
    process.kill()
    process.wait()


def _receive(own: socket.socket, size: int) -> memoryview:
    """Exactly so many bytes. Raises EOFError, an OSError where the process has ended."""
    content = np.empty(size, np.uint8).data
    at = 0
    while at < size:
        received = own.recv_into(content[at:])
        if not received:
            raise ConnectionError("the process has ended")
        at += received
    return content
