"""A guard's formula as an onnxruntime graph: written once, in numpy, and recorded.

Numpy's cost for one row is its calls: some two hundred of them a request, each holding the interpreter, were
the largest part of what the gateway added (bench/README.md). onnxruntime needs a quarter of a microsecond
for a step instead of one, in C++ and with the interpreter free. So that no detector is written twice,
its own `score` is called with arrays that only record (`gateway/recorded.py`).

What was recorded is then run on the rows it was recorded with, together and alone, and must give the numbers
that numpy gave: a graph that does not reproduce its formula is refused at load, never served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fallbacks.onnx_file import open_session
from gateway.deployment.tracing import Array, Recorded, Tape

Formula: TypeAlias = Callable[[Mapping[str, Any]], Array]

AGREES = 1e-6  # sums in another order move the last digits; of two prototypes as near, either may be nearest


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A recorded formula, ready to run. `reads`: the names of the arrays that it needs."""

    reads: tuple[str, ...]
    session: Any

    def run(self, given: Mapping[str, Array], /) -> Array:
        """What the formula gives, for any number of rows; arrays that it does not need are ignored.

        Raises:  KeyError for an array that is missing, what onnxruntime raises for another shape.
        Cost:    about 8 us and a quarter of a microsecond a step, at one row.
        """
        found: Array = self.session.run(None, {name: given[name] for name in self.reads})[0]
        return found


def record(name: str, formula: Formula, like: Mapping[str, Array]) -> Graph:
    """The formula as a graph.

    Args:    name: for errors. like: a few different rows, as the formula will meet them, first axis the row.
    Raises:  ValueError if the graph does not give the formula's own numbers for them; TypeError or
             NotImplementedError for a formula that cannot be recorded.
    """
    tape = Tape()
    given = {key: Recorded(tape, key, array) for key, array in like.items()}
    found: object = formula(given)
    if not isinstance(found, Recorded):
        raise TypeError(f"{name}: its score does not depend on the row")
    inputs = [one for key, one in given.items() if tape.reads(key)]
    graph = Graph(tuple(one.name for one in inputs), open_session(name, tape.model(inputs, found), threads=1))
    for rows in (slice(None), slice(1)):
        part = {key: array[rows] for key, array in like.items()}
        if not np.allclose(graph.run(part), found.value[rows], rtol=AGREES, atol=AGREES, equal_nan=True):
            raise ValueError(f"{name}: onnxruntime does not reproduce its formula; use another version of it")
    return graph
