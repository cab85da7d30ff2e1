"""The rules for the tensors that a request lists, the same whatever protocol it came by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.protocol.contract import Array, TensorSpec
from gateway.protocol.problems import Faults

SHARED_MEMORY = "shared_memory_region"
SPARE_ENTRIES = 16
"""How many entries beyond the contract's are still named in problems."""


def hold_parameters(at: str, parameters: Mapping[str, Any], faults: Faults) -> None:
    """Refuses what no tensor may ask for."""
    if SHARED_MEMORY in parameters:
        faults.add(f"{at}.parameters.{SHARED_MEMORY}", "shared memory is not supported")


def named(
    at: str, name: str, known: Mapping[str, TensorSpec], seen: set[str], faults: Faults
) -> TensorSpec | None:
    """The spec of the tensor that an entry names, once."""
    if name not in known:
        faults.unknown(at, name, known)
    elif name in seen:
        faults.add(at, f"{name!r} is listed twice")
    else:
        seen.add(name)
        return known[name]
    return None


def classes(at: str, parameters: dict[str, Any], spec: TensorSpec | None, faults: Faults) -> int | None:
    """How many classes an output is to name, if any."""
    at = f"{at}.parameters.classification"
    count = faults.natural(parameters, "classification", at)
    if count == 0 or (count and spec and spec.dtype.kind not in "iuf"):
        faults.add(at, "needs a count from 1 and an output of numbers")
    return count


def add_input(arrays: dict[str, Array], name: str, array: Array, at: str, faults: Faults) -> None:
    """Takes an input, which must have as many rows as those before it."""
    rows = len(next(iter(arrays.values()), array))
    if len(array) != rows:
        faults.add(f"{at}.shape", f"has {len(array)} rows, an input before it has {rows}")
    arrays[name] = array


def hold_complete(taken: Mapping[str, TensorSpec], seen: set[str], faults: Faults) -> None:
    """Names the inputs that nobody has listed."""
    for name in taken:
        if name not in seen:
            faults.add("inputs", f"{name!r} is missing")
