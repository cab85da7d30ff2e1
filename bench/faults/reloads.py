"""Breaks a file of the deployment and reloads the policy, while the gateway serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from bench.faults.history import Violation
from bench.faults.timed import EVENT_AFTER_S, meanwhile
from bench.faults.world import TOKEN, World

RELOAD_S: Final = 60.0
UNCHANGED: Final = "nothing changed"


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def _write(name: str, content: Callable[[Path], bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content(folder))

    return write


def _delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


EDITS: Final[dict[str, Callable[[Path], None]]] = {
    "policy garbage": _write("gateway.yaml", lambda _: b"\x00: [not yaml"),
    "policy deleted": _delete("gateway.yaml"),
    "policy edited": _replace("gateway.yaml", "share: 0.5", "share: 0.4"),
    "certificate edited": _replace("certificate.json", '"errors": ', '"errors": 1'),
    "guards deleted": _delete("guards.npz"),
    "guards garbage": _write("guards.npz", lambda _: b"PK\x03\x04 garbage"),
    "model deleted": _delete("primary.onnx"),
    "model garbage": _write("primary.onnx", lambda _: b"garbage"),
    "model truncated": _write("primary.onnx", lambda of: (of / "primary.onnx").read_bytes()[:-1000]),
    "model replaced": _write("primary.onnx", lambda of: (of / "fallback.onnx").read_bytes()),
    UNCHANGED: lambda folder: None,
}
"""What is done to the files of the deployment."""


@asynccontextmanager
async def reloaded(world: World, fault: str, found: list[Violation]) -> AsyncIterator[None]:
    """A file is broken and the policy reloaded, while the gateway serves; then the files are put back."""
    names = ("gateway.yaml", "certificate.json", "guards.npz", "primary.onnx")
    before = {name: (world.folder / name).read_bytes() for name in names}
    status = 0

    async def break_and_reload() -> None:
        nonlocal status
        await asyncio.sleep(EVENT_AFTER_S)
        EDITS[fault](world.folder)
        status = await _reload(world)

    try:
        async with meanwhile(break_and_reload()):
            yield
    finally:
        for name, content in before.items():
            (world.folder / name).write_bytes(content)
    if (status == 200) != (fault == UNCHANGED):
        found.append(Violation("wrong end", "", f"{status} for a reload"))


async def _reload(world: World) -> int:
    headers = {"authorization": f"Bearer {TOKEN}", "accept": "application/json"}
    async with httpx.AsyncClient(headers=headers, timeout=RELOAD_S, trust_env=False) as client:
        reply = await client.post(f"http://127.0.0.1:{world.served.ports[2]}/policy/reload")
    return reply.status_code
