"""What every client's script shares: where to ask, what must come back, and one line of JSON a case.

These scripts run in an environment of the client's own: numpy, the client and the standard library.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Case = tuple[str, Callable[[], Awaitable[None]]]
CASE_WITHIN_S = 20
OUTCOMES = ("fs_outcome", "fs_reason", "fs_served_by", "fs_policy", "fs_mode", "fs_decision_id")
HEADERS = tuple(name.replace("fs_", "x-failsafe-").replace("_", "-") for name in OUTCOMES)


@dataclass(frozen=True)
class Target:
    """A running gateway and what is known of its model.

    http, grpc: host:port. base_path: that may stand before every path. most: rows of the largest batch.
    key: of a caller who sees everything and is never too fast; slow_key: of one who may send one row a day.
    rows: that the model answers, expected: what onnxruntime says of each, to the bit; odd: a row that goes to
    a person.
    """

    http: str
    grpc: str
    base_path: str
    model: str
    version: str
    input: str
    output: str
    labels: list[str]
    most: int
    key: str
    slow_key: str
    rows: np.ndarray
    expected: np.ndarray
    odd: np.ndarray

    @property
    def auth(self) -> dict[str, str]:
        """Headers of its own for each request: tritonclient writes into what it is given."""
        return {"x-api-key": self.key}

    @property
    def mixed(self) -> np.ndarray:
        """Three rows that the model answers, and the odd one before the last."""
        return np.concatenate([self.rows[:2], self.odd, self.rows[2:3]])


def target() -> Target:
    """The one that the folder in argv[1] describes."""
    folder = Path(sys.argv[1])
    with np.load(folder / "truth.npz") as held:
        arrays = {name: held[name] for name in held.files}
    return Target(**json.loads((folder / "target.json").read_text()), **arrays)


async def settle(result: Any) -> Any:
    """What a call gives, of a client that blocks or of one that is awaited."""
    return await result if inspect.isawaitable(result) else result


async def walk(cases: Iterable[Case]) -> None:
    """Runs every case, whatever becomes of those before it; one line each, as soon as it is known."""
    for name, case in cases:
        detail = ""
        try:
            async with asyncio.timeout(CASE_WITHIN_S):
                await case()
        except Exception as error:  # a client raises what it likes
            detail = f"{type(error).__name__}: {error}"[:600]
        print(json.dumps({"name": name, "ok": not detail, "detail": detail}), flush=True)


def hold(true: object, what: str) -> None:
    if not true:
        raise AssertionError(what)


def same(name: str, got: object, expected: object) -> None:
    hold(got == expected, f"{name}: expected {expected!r}, got {got!r}")


def same_bits(got: np.ndarray | None, expected: np.ndarray) -> None:
    """Equal in type, shape and every bit."""
    hold(got is not None, "the output is missing")
    same("dtype", got.dtype, expected.dtype)
    same("shape", got.shape, expected.shape)
    differ = (
        (got.view(np.uint8) != expected.view(np.uint8)).sum() if got.tobytes() != expected.tobytes() else 0
    )
    same("bytes that differ from onnxruntime", int(differ), 0)


def same_classes(got: np.ndarray | None, expected: np.ndarray, labels: list[str], top: int) -> None:
    """`value:index` or `value:index:label` of each row's largest values in order; equal ones in any."""
    hold(got is not None, "the output is missing")
    same("shape", got.shape, (len(expected), top))
    for row, values in zip(got, expected, strict=True):
        largest = np.sort(values)[::-1][:top]
        for text, value in zip(row, largest, strict=True):
            said, index, *label = text_of(text).split(":", 2)
            same("value", (np.float32(said), values[int(index)]), (value, value))
            hold(label in ([], [labels[int(index)]]), f"the label of {index} is {label}")


def text_of(element: str | bytes) -> str:
    """An element of BYTES: clients give str where it came as JSON."""
    return element if isinstance(element, str) else element.decode()


def answered(parameters: dict[str, Any]) -> None:
    """The parameters of a response say that the primary served it, flatly and without a gap."""
    same("fs_ parameters", {name for name in OUTCOMES if parameters.get(name)}, set(OUTCOMES))
    same("outcome", (parameters["fs_outcome"], parameters["fs_served_by"]), ("served", "primary"))


def marked(on: Target, parameters: dict[str, Any], got: np.ndarray) -> None:
    """The answer to `on.mixed`: three rows to the bit, the odd one blank, and how each ended."""
    same("row outcomes", parameters["fs_row_outcomes"], "served,served,deferred,served")
    same("outcome", parameters["fs_outcome"], "deferred")
    same("reviews", parameters["fs_review_urls"], f"/reviews/{parameters['fs_decision_id']}.2")
    hold(np.isnan(got[2]).all(), f"the withheld row is not blank: {got[2]}")
    same_bits(got[[0, 1, 3]], on.expected[:3])


async def refused(call: Callable[[], Any], raised: type[Exception], status: str, *words: str) -> Exception:
    """The client's own exception, with this status and these words in it."""
    try:
        got = await settle(call())
    except raised as error:
        text = f"{status_of(error)}: {error}"
        same("status", status_of(error), status)
        for word in words:
            hold(word in text, f"{word!r} is not in {text!r}")
        return error
    raise AssertionError(f"expected {status}, got an answer: {str(got)[:200]}")


def status_of(error: Any) -> str:
    """The status that an exception of any of the clients carries: "404" or "NOT_FOUND"."""
    if callable(status := getattr(error, "status", None)):  # tritonclient
        return str(status()).removeprefix("StatusCode.")
    if (response := getattr(error, "response", None)) is not None:  # httpx
        return str(response.status_code)
    return str(error.code().name)  # grpc
