"""The processes of the bench: the gateway that is broken, and the server of a model behind it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from bench.growth.server_process import free_ports
from bench.requests import WrongInput

START_S, ANSWER_S, STOP_S = 60.0, 60.0, 60.0
LINE_BYTES: Final = 64 * 2**20


class PipedProcess:
    """A Python module in a process of its own, which answers each line of its input with one."""

    def __init__(self, module: str, log: Path) -> None:
        self._module, self._log = module, log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> bytes:
        """Its first line. Raises WrongInput with the end of its log if there is none within a minute."""
        command = (sys.executable, "-m", self._module, *arguments)
        pipe = asyncio.subprocess.PIPE
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                env={**os.environ, **(environ or {})},
                limit=LINE_BYTES,
            )
        return await self._read(START_S)

    async def ask(self, line: bytes) -> bytes:
        """The answer to one line. Raises WrongInput as `start` does."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(line + b"\n")
        return await self._read(ANSWER_S)

    async def _read(self, within_s: float) -> bytes:
        process = self._running()
        assert process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            end = self._log.read_text(errors="replace")[-2000:]
            raise WrongInput(f"{self._module} does not answer: {end}")
        return line

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended. Raises WrongInput if it does not within a minute."""
        try:
            async with asyncio.timeout(STOP_S):
                return await self._running().wait()
        except TimeoutError:
            raise WrongInput(f"{self._module} does not end") from None

    async def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await self.ended()
        except WrongInput:
            self._process.kill()
            await self._process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process


class ServedGateway:
    """A gateway over one folder, in a process that breaks its parts on command (`served.py`)."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.process = PipedProcess("bench.faults.served", folder / "serve.log")
        self._environ = environ
        self.ports = (0, 0, 0)

    async def start(self) -> None:
        self.ports = free_ports()
        await self.process.start(str(self.folder), *map(str, self.ports), environ=self._environ)

    async def command(self, name: str, value: Any = True) -> Any:
        return orjson.loads(await self.process.ask(orjson.dumps({name: value})))


class UpstreamProcess:
    """A server of one model (`upstream.py`)."""

    def __init__(self, model: Path, name: str, log: Path) -> None:
        self._model, self._name = model, name
        self.process = PipedProcess("bench.faults.upstream", log)

    async def start(self) -> int:
        """Its port."""
        return int(await self.process.start(str(self._model), self._name))

    async def put(self, fault: str) -> None:
        """What is wrong with its answers from now on; empty for nothing."""
        await self.process.ask(fault.encode())
