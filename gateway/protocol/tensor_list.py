"""The rules for the tensors that a request lists, shared by HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fallbacks.oip.tensors import Array
from gateway.protocol.contract import TensorSpec
from gateway.protocol.problems import RequestProblems

SHARED_MEMORY = "shared_memory_region"
EXTRA_ENTRIES = 16
"""How many entries beyond the contract's are read, so that problems can name them."""


def reject_shared_memory(at: str, parameters: Mapping[str, Any], problems: RequestProblems) -> None:
    """Adds a problem if a tensor is to lie in shared memory."""
    if SHARED_MEMORY in parameters:
        problems.add(f"{at}.parameters.{SHARED_MEMORY}", "shared memory is not supported")


def spec_named(
    at: str, name: str, known: Mapping[str, TensorSpec], seen: set[str], problems: RequestProblems
) -> TensorSpec | None:
    """The spec of the tensor with this name; None and a problem for an unknown or repeated one."""
    if name not in known:
        problems.add_unknown(at, name, known)
    elif name in seen:
        problems.add(at, f"{name!r} is listed twice")
    else:
        seen.add(name)
        return known[name]
    return None


def classification_count(
    at: str, parameters: dict[str, Any], spec: TensorSpec | None, problems: RequestProblems
) -> int | None:
    """The k of an output's `classification` parameter (its k largest values); None without it."""
    if "classification" not in parameters:  # the usual case
        return None
    at = f"{at}.parameters.classification"
    count = problems.read_count(parameters, "classification", at)
    if count == 0 or (count and spec and spec.dtype.kind not in "iuf"):
        problems.add(at, "needs a count from 1 and an output of numbers")
    return count


def add_input(arrays: dict[str, Array], name: str, array: Array, at: str, problems: RequestProblems) -> None:
    """Stores an input, and adds a problem unless it has as many rows as the first one."""
    rows = len(next(iter(arrays.values()), array))
    if len(array) != rows:
        problems.add(f"{at}.shape", f"has {len(array)} rows, an input before it has {rows}")
    arrays[name] = array


def report_missing_inputs(
    inputs: Mapping[str, TensorSpec], seen: set[str], problems: RequestProblems
) -> None:
    """Adds a problem for each input of the model that the request does not list."""
    for name in inputs:
        if name not in seen:
            problems.add("inputs", f"{name!r} is missing")
