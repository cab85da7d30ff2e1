"""What calibration stores of an upstream: its description, and its answers to a few fixed rows.

A model in another server cannot be hashed, but its description and answers can be compared. Their digest is
part of the certificate, and an upstream that answers differently is another model.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from fallbacks.known_rows import ATOL, RTOL
from fallbacks.oip import payload
from fallbacks.oip.client import UpstreamClient, infer_in_parts
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.errors import UnexpectedAnswer
from fallbacks.oip.tensors import UPSTREAM_DTYPES, Array, UpstreamTensor
from fallbacks.predictor import Tensors

PROBES: Final = 4
CHANGED: Final = "answers otherwise than when it was calibrated: run `gateway calibrate`"


@dataclass(frozen=True, slots=True, eq=False)
class StoredUpstream:
    """One upstream as it was calibrated, in its own names.

    `probes` are PROBES fixed rows of inputs, `answers` its outputs for them. `document` is all of it as JSON.
    """

    description: ModelDescription
    probes: Tensors
    answers: Tensors
    document: Mapping[str, Any]

    @classmethod
    async def record(
        cls,
        client: UpstreamClient,
        ranges: Mapping[str, tuple[float, float]],
        max_rows: int,
        timeout_s: float,
    ) -> StoredUpstream:
        """Requests an upstream's description and its answers to the probes.

        Args:    ranges: low and high of the probes' values, by input; 0 and 1 where it names none.
        Raises:  what the client raises; UnexpectedAnswer if an answer is not finite.
        """
        description = await client.describe(timeout_s)
        rng = np.random.default_rng(0)
        probes = {
            one.name: _probes(rng, one, *ranges.get(one.name, (0.0, 1.0))) for one in description.inputs
        }
        answers = await infer_in_parts(client, probes, description, max_rows, lambda: timeout_s)
        for name, array in answers.items():
            if not np.isfinite(array).all():
                raise UnexpectedAnswer(
                    f"{name!r} is not finite for a row within the ranges of the policy's inputs"
                )
        document = _document(description, payload.encode(probes), payload.encode(answers))
        return cls(description, probes, answers, document)

    async def verify(self, client: UpstreamClient, max_rows: int, time_left: Callable[[], float]) -> None:
        """Raises UnexpectedAnswer if the upstream is not the one that was calibrated."""
        description = await client.describe(time_left())
        for side in ("inputs", "outputs"):
            if changed := set(getattr(description, side)) ^ set(getattr(self.description, side)):
                names = ", ".join(sorted({tensor.name for tensor in changed}))
                raise UnexpectedAnswer(f"{CHANGED}; it declares other {side}: {names}")
        answers = await infer_in_parts(client, self.probes, self.description, max_rows, time_left)
        for name, stored in self.answers.items():
            if answers[name].shape != stored.shape or not np.allclose(answers[name], stored, RTOL, ATOL):
                raise UnexpectedAnswer(f"{CHANGED}; {name!r} differs on the probe rows")

    @property
    def digest(self) -> str:
        """sha256 (hex) of the document, whichever release wrote it."""
        return hashlib.sha256(orjson.dumps(self.document, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return dict(self.document)

    @classmethod
    def from_json(cls, document: Any) -> StoredUpstream:
        """Raises ValueError for anything but what `to_json` returns."""
        try:
            inputs, outputs = ([tuple(one) for one in document[side]] for side in ("inputs", "outputs"))
            contents = [base64.b64decode(document[key], validate=True) for key in ("probes", "answers")]
            description = ModelDescription.parse(inputs, outputs)
            probes, answers = map(payload.decode, contents)
            _require_match(probes, description.inputs)
            _require_match(answers, description.outputs)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"is no description of an upstream: {error}") from error
        return cls(description, probes, answers, _document(description, *contents))


def _probes(rng: np.random.Generator, tensor: UpstreamTensor, low: float, high: float) -> Array:
    """PROBES rows in the range of an input; sizes that it leaves open are 1."""
    shape = (PROBES, *(1 if size is None else size for size in tensor.shape[1:]))
    dtype = UPSTREAM_DTYPES[tensor.datatype]
    if dtype.kind == "f":
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(int(low), limits.min), min(int(high), limits.max), shape, dtype, endpoint=True)


def _document(description: ModelDescription, probes: bytes, answers: bytes) -> dict[str, Any]:
    """The payloads are kept as they were read, so the digest does not depend on today's encoding of them."""
    return {
        "inputs": [_tensor_entry(tensor) for tensor in description.inputs],
        "outputs": [_tensor_entry(tensor) for tensor in description.outputs],
        "probes": base64.b64encode(probes).decode(),
        "answers": base64.b64encode(answers).decode(),
    }


def _tensor_entry(tensor: UpstreamTensor) -> list[Any]:
    return [tensor.name, tensor.datatype, [-1 if size is None else size for size in tensor.shape]]


def _require_match(arrays: Tensors, tensors: tuple[UpstreamTensor, ...]) -> None:
    """Raises ValueError unless these are PROBES rows of exactly these tensors."""
    if set(arrays) != {tensor.name for tensor in tensors}:
        raise ValueError(f"{', '.join(arrays)} are not what it declares")
    for tensor in tensors:
        tensor.checked_shape(tensor.datatype, arrays[tensor.name].shape, PROBES)
        if arrays[tensor.name].dtype != UPSTREAM_DTYPES[tensor.datatype]:
            raise ValueError(f"{tensor.name!r} is {arrays[tensor.name].dtype}")
