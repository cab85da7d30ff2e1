"""What calibration keeps of an upstream: its form, and its answers to a few fixed rows.

Nobody can hash a model that lives elsewhere. What can be held on to is how it describes itself and what it
answers: the digest of both stands in the certificate, and whoever answers differently is another model.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from fallbacks.oip.client import Client, ask
from fallbacks.oip.described import Described
from fallbacks.oip.errors import WrongAnswer
from fallbacks.oip.tensors import DATATYPES, Array, Declared
from fallbacks.predictor import Tensors
from fallbacks.review import payload

PROBES: Final = 4
RTOL, ATOL = 1e-3, 1e-4
CHANGED: Final = "answers otherwise than when it was calibrated: run `gateway calibrate`"


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One upstream as it was calibrated, in its own names."""

    described: Described
    probes: Tensors
    answers: Tensors

    @classmethod
    async def record(
        cls, client: Client, ranges: Mapping[str, tuple[float, float]], most_rows: int, timeout_s: float
    ) -> Stored:
        """Asks an upstream for its form and its answers to the probes. Raises what the client raises."""
        described = await client.describe(timeout_s)
        rng = np.random.default_rng(0)
        rows = {one.name: _rows(rng, one, *ranges.get(one.name, (0.0, 1.0))) for one in described.inputs}
        answers = await ask(client, rows, described, most_rows, lambda: timeout_s)
        for name, array in answers.items():
            if not np.isfinite(array).all():
                raise WrongAnswer(
                    f"{name!r} is not finite for a row within the ranges of the policy's inputs"
                )
        return cls(described, rows, answers)

    async def hold(self, client: Client, most_rows: int, left_s: Callable[[], float]) -> None:
        """Raises WrongAnswer if the upstream is not the one that was calibrated."""
        told = await client.describe(left_s())
        for side in ("inputs", "outputs"):
            if changed := set(getattr(told, side)) ^ set(getattr(self.described, side)):
                names = ", ".join(sorted({one.name for one in changed}))
                raise WrongAnswer(f"{CHANGED}; it declares other {side}: {names}")
        answers = await ask(client, self.probes, self.described, most_rows, left_s)
        for name, then in self.answers.items():
            if answers[name].shape != then.shape or not np.allclose(answers[name], then, RTOL, ATOL):
                raise WrongAnswer(f"{CHANGED}; {name!r} differs on the probe rows")

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it."""
        return hashlib.sha256(orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [_told(one) for one in self.described.inputs],
            "outputs": [_told(one) for one in self.described.outputs],
            "probes": base64.b64encode(payload.encode(self.probes)).decode(),
            "answers": base64.b64encode(payload.encode(self.answers)).decode(),
        }

    @classmethod
    def from_json(cls, held: Any) -> Stored:
        """Raises ValueError for anything but what `to_json` gives."""
        try:
            inputs, outputs = ([tuple(one) for one in held[side]] for side in ("inputs", "outputs"))
            probes, answers = (
                payload.decode(base64.b64decode(held[side], validate=True)) for side in ("probes", "answers")
            )
            stored = cls(Described.of(inputs, outputs), probes, answers)
            for given, declared in ((probes, stored.described.inputs), (answers, stored.described.outputs)):
                _held(given, declared)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"is no description of an upstream: {error}") from error
        return stored


def _rows(rng: np.random.Generator, one: Declared, low: float, high: float) -> Array:
    """PROBES rows in the range of an input; sizes that it leaves open are 1."""
    shape = (PROBES, *(1 if size is None else size for size in one.shape[1:]))
    dtype = DATATYPES[one.datatype]
    if dtype.kind == "f":
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    most = np.iinfo(dtype)
    return rng.integers(max(int(low), most.min), min(int(high), most.max), shape, dtype, endpoint=True)


def _told(one: Declared) -> list[Any]:
    return [one.name, one.datatype, [-1 if size is None else size for size in one.shape]]


def _held(given: Tensors, declared: tuple[Declared, ...]) -> None:
    if set(given) != {one.name for one in declared}:
        raise ValueError(f"{', '.join(given)} are not what it declares")
    for one in declared:
        one.fits(one.datatype, given[one.name].shape, PROBES)
        if given[one.name].dtype != DATATYPES[one.datatype]:
            raise ValueError(f"{one.name!r} is {given[one.name].dtype}")
