"""A guard's formula as an onnxruntime graph: written once, in numpy, and recorded.

Numpy's cost for one row is its calls: about two hundred a request, each with the interpreter's lock, were the
largest part of the gateway's time (bench/README.md). onnxruntime needs 0.25 us for a step instead of 1 us, in
C++ and without the lock. So that no detector is written twice, its own `score` is called with arrays that
record (`tracing.py`).

The graph is then run on the rows it was recorded with, together and one alone, and must return the numbers of
numpy: a graph that does not reproduce its formula is refused at load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fallbacks.onnx_file import open_session
from gateway.deployment.tracing import Array, Recorded, Tape

Formula: TypeAlias = Callable[[Mapping[str, Any]], Array]

TOLERANCE = 1e-6  # another order of summation changes the last digits


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A recorded formula, ready to run. `reads`: the names of the arrays that it needs."""

    reads: tuple[str, ...]
    session: Any

    def run(self, arrays: Mapping[str, Array], /) -> Array:
        """The result of the formula for any number of rows; arrays that it does not read are ignored.

        Raises:  KeyError for a missing array; what onnxruntime raises for another shape.
        Cost:    about 8 us and 0.25 us a step, at one row.
        """
        found: Array = self.session.run(None, {name: arrays[name] for name in self.reads})[0]
        return found


def record(name: str, formula: Formula, example: Mapping[str, Array]) -> Graph:
    """The formula as a graph.

    Args:    name: for errors. example: a few different rows like those served, first axis the row.
    Raises:  ValueError if the graph does not return the formula's numbers for them; TypeError or
             NotImplementedError for a formula that cannot be recorded.
    """
    tape = Tape()
    recorded = {key: Recorded(tape, key, array) for key, array in example.items()}
    found: object = formula(recorded)
    if not isinstance(found, Recorded):
        raise TypeError(f"{name}: its score does not depend on the row")
    inputs = [one for key, one in recorded.items() if tape.reads(key)]
    graph = Graph(tuple(one.name for one in inputs), open_session(name, tape.model(inputs, found), threads=1))
    for rows in (slice(None), slice(1)):
        part = {key: array[rows] for key, array in example.items()}
        if not np.allclose(
            graph.run(part), found.value[rows], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
        ):
            raise ValueError(f"{name}: onnxruntime does not reproduce its formula; use another version of it")
    return graph
