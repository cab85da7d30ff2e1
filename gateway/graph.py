"""A guard's formula as an onnxruntime graph: written once, in numpy, and recorded.

Numpy's cost for one row is its calls: some two hundred of them a request, each holding the interpreter, were
the largest part of what the gateway added (bench/README.md). onnxruntime needs a quarter of a microsecond
for a step instead of one, in C++ and with the interpreter free. So that nobody has to write a detector twice,
its own `score` is called with arrays that only record (`gateway/recorded.py`).

What was recorded is then run on the rows it was recorded with, together and alone, and must give the numbers
that numpy gave: a graph that does not reproduce its formula is refused at load, never served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from fallbacks.onnx_file import open_session
from gateway.recorded import Recorded, Tape
from guards.rows import F8, Signals

Score: TypeAlias = Callable[[Signals], F8]

AGREES = 1e-6  # sums in another order move the last digits; of two prototypes as near, either may be nearest


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A recorded formula, ready to run. `signals` is what it reads of x, h and z."""

    signals: tuple[str, ...]
    session: Any

    @property
    def needs_features(self) -> bool:
        """Whether it reads the model's answer, not x alone."""
        return self.signals != ("x",)

    def score(self, s: Signals, /) -> F8:
        """float64[n] or [n, ...], as the formula gives it. Raises what onnxruntime raises for another shape.

        Cost: about 5 us and a quarter of a microsecond a step, at n=1.
        """
        found: F8 = self.session.run(None, {name: getattr(s, name) for name in self.signals})[0]
        return found


def record(name: str, score: Score, like: Signals) -> Graph:
    """The formula as a graph.

    Args:    name: for errors. like: a few different rows, as the formula will meet them.
    Raises:  ValueError if the graph does not give the formula's own numbers for them; TypeError or
             NotImplementedError for a formula that cannot be recorded.
    """
    tape = Tape()
    held = {signal: array for signal in ("x", "h", "z") if (array := getattr(like, signal)) is not None}
    given = {signal: Recorded(tape, signal, array) for signal, array in held.items()}
    found: object = score(Signals(**cast(dict[str, Any], given)))
    if not isinstance(found, Recorded):
        raise TypeError(f"{name}: its score does not depend on the row")
    inputs = [one for signal, one in given.items() if tape.reads(signal)]
    graph = Graph(tuple(one.name for one in inputs), open_session(name, tape.model(inputs, found), threads=1))
    for rows in (slice(None), slice(1)):
        part = Signals(**{signal: array[rows] for signal, array in held.items()})
        if not np.allclose(graph.score(part), found.value[rows], rtol=AGREES, atol=AGREES, equal_nan=True):
            raise ValueError(f"{name}: onnxruntime does not reproduce its formula; use another version of it")
    return graph
